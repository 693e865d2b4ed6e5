"""Section D."""
