"""Makers lie one folder up, or in a folder beside this one: `from training.training_makers import …`."""

import sys
from pathlib import Path

import pipeline  # noqa: F401  # before torch: sets what torch reads when it is loaded

if (tests := str(Path(__file__).parents[1])) not in sys.path:
    sys.path.insert(0, tests)
