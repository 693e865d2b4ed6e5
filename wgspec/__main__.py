"""`python -m wgspec` is `wgpy spec` without wgpy's other commands."""

from wgspec.cli import spec

if __name__ == "__main__":
    spec(prog_name="wgpy spec")
