"""A reproducible, tracked training pipeline for Dense classifiers: DVC, Hydra, Lightning and MLflow as one thing."""
