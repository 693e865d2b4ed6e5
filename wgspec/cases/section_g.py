"""Section G."""
