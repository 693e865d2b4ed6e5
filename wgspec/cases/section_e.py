"""Section E."""
