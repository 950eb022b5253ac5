"""A training in two processes, which test_ranks.py kills. Arguments: processed, work, changed settings as JSON."""

import json
import sys
from pathlib import Path

from training.ranks_makers import in_processes

in_processes(2, Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3]))
