"""Section C."""
