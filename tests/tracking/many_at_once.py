"""Eight processes, released at the same instant, on an empty project folder. Script of test_store.py."""

import os
import sys
from pathlib import Path

import mlflow.store.tracking.sqlalchemy_store  # noqa: F401  imported before the fork, so that all eight start together

from pipeline.tracking import Store

PROCESSES = 8
POINTS = 20


def work(number: int) -> None:
    with Store(Path(sys.argv[1])).run("sweep", f"job-{number}") as run:
        run.params({"job": number})
        run.metric_points([("loss", number + step, step) for step in range(POINTS)])


go, starter = os.pipe()
for number in range(PROCESSES):
    if os.fork() == 0:
        os.close(starter)
        os.read(go, 1)  # end of file comes when the parent closes its end
        work(number)
        os._exit(0)  # without Python's tidying up, 1 s a process after a fork
os.close(starter)
print(*(os.waitstatus_to_exitcode(os.wait()[1]) for _ in range(PROCESSES)))
