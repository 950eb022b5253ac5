"""What train and evaluate do once their settings are known to be right. Imports torch, Lightning and MLflow."""
