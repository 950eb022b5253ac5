"""What the notebooks compute and draw. No stage imports any of it."""
