"""Section H."""
