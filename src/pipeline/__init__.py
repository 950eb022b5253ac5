"""A reproducible, tracked training pipeline for Dense classifiers: DVC, Hydra, Lightning and MLflow as one thing."""

import os

# Both are read once, when torch loads its libraries, so they are set before anything imports it.
# Idle OpenMP threads sleep instead of spinning: beside other busy processes an epoch of MNIST took 2.9 s, not 25 s.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# Matrix products give the same bits in every run on one type of machine, with any number of threads. Without STRICT
# one run in some dozens came out otherwise with two threads (docs/log.md).
os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")
