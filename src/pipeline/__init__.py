"""A reproducible, tracked training pipeline for Dense classifiers: DVC, Hydra, Lightning and MLflow as one thing."""

import os
import sys

# Both are read once, when torch loads its libraries, so they are set before anything imports it.
# Idle OpenMP threads sleep soon instead of spinning for a millisecond: beside one busy process a step took 3.5 ms, not
# 30 ms. Not at once, because waking costs: 1.5 ms a step on an idle machine, 2.0 ms with none of this (docs/log.md).
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "2000")
# Matrix products give the same bits in every run on one type of machine, with any number of threads. Without STRICT
# one run in some dozens came out otherwise with two threads (docs/log.md).
os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")
if sys.argv[:1] == ["-m"]:  # `python -m …` begins, and its module is not imported yet
    from pipeline.start import begin

    begin()
