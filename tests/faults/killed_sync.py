"""Copies a store to a server in a fork that is killed after so many seconds, for each line of input.

Script of test_outages.py. Arguments: project, server. Prints each fork's exit code.
"""

import os
import signal
import sys
import threading
from pathlib import Path

import mlflow.store.tracking.rest_store
import mlflow.store.tracking.sqlalchemy_store  # noqa: F401  imported once, before the forks

from pipeline.tracking import Store
from pipeline.tracking.replica import sync_all

for line in sys.stdin:
    pid = os.fork()
    if not pid:
        sync_all(Store(Path(sys.argv[1])), sys.argv[2])
        os._exit(0)
    timer = threading.Timer(float(line), os.kill, [pid, signal.SIGKILL])
    timer.start()
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    timer.cancel()
    print(code, flush=True)
