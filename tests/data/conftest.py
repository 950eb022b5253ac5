"""`data_makers` lies one folder up, beside the tests of the stages, which use it too."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
