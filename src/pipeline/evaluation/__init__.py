"""A model on the test set: scores, suspected labels (findings), robustness, figures, and the report with its page."""
