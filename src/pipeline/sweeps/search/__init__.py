"""A search with Optuna: its options, its space, its trials, and when a trial is pruned."""
