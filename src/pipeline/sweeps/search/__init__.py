"""A search with Optuna: its options, its space, its study, and when a trial is pruned."""
