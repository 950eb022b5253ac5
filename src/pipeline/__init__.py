"""A reproducible, tracked training pipeline for Dense classifiers: DVC, Hydra, Lightning and MLflow as one thing."""

import os

# Both are read once, when torch loads its libraries, so they are set before anything imports it.
# Idle OpenMP threads sleep instead of spinning: beside other busy processes an epoch of MNIST took 2.9 s, not 25 s.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# MKL takes the same code path in every run on one machine, wherever its arrays lie in memory.
os.environ.setdefault("MKL_CBWR", "AUTO")
