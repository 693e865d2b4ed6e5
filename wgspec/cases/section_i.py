"""Section I."""
