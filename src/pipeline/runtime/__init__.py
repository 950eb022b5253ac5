"""How a stage gets its settings, where it writes, and what it leaves in MLflow."""
