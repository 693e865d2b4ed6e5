"""wgpy: a userspace WireGuard in Python, to learn from, test with and measure against."""

__version__ = "0.1.0"
