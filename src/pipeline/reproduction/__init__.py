"""A run made again from what MLflow remembers of it, in a folder of its own."""
