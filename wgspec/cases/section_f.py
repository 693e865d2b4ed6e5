"""Section F."""
