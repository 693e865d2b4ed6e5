"""Section B."""
