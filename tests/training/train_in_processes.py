"""A training in two processes that is never done, until test_ranks.py kills it. Arguments: processed, work."""

import sys
from pathlib import Path

from training.ranks_makers import in_processes

in_processes(2, Path(sys.argv[1]), Path(sys.argv[2]), {"trainer.num_epochs": 100_000})
