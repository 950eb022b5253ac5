"""From predictions to numbers (scores) and pictures (figures)."""
