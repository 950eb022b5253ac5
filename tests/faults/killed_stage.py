"""A stage started as DVC starts it, killed at random instants, started again, until it ends. Script of test_kills.py.

Arguments: stage, seed, number of kills. A third of the kills comes at a random instant after the start, a third at one
after the first checkpoint that this start has written, and the last third after the last epoch, while results are
written and recorded. Runs in the project's folder. All is imported once and each start is a fork, so that a life is
spent on the stage. A chunk is a step, and each is saved, so that an epoch has 29 places to go on from. Prints each
start's kind of end and exit code, as JSON.
"""

import json
import os
import random
import re
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from pipeline.cli import dispatch
from pipeline.system.fork_server import TRAINING, exit_at_once, import_available
from pipeline.training import checkpoints
from pipeline.training import data_module as batches

STAGE, SEED, NUM_KILLS = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
LONGEST_S = 1.0
LOG = Path("stage.log")

batches.CHUNK_BYTES = 1
checkpoints.MAX_SAVE_SHARE = 1e9


def live() -> None:
    log = os.open(LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.environ |= {"DVC_STAGE": STAGE, "DVC_ROOT": str(Path.cwd())}
    sys.argv = [STAGE]
    dispatch(STAGE)


def newest_checkpoint_ns() -> int:
    return max((path.stat().st_mtime_ns for path in Path(".pipeline/checkpoints").glob("*/last.ckpt")), default=0)


def has_saved_since(time_ns: int) -> bool:
    return newest_checkpoint_ns() > time_ns


def is_trained() -> bool:
    lines = LOG.read_text().splitlines() if LOG.exists() else []
    return any(re.match(r"epoch +(\d+)/\1 ", line) for line in lines)


def wait(until: Callable[[], bool]) -> None:
    end_s = time.monotonic() + 60
    while not until() and time.monotonic() < end_s:
        time.sleep(0.002)


import_available(f"pipeline.{STAGE}", *TRAINING)
chance = random.Random(SEED)
lives = []
while True:
    newest_ns = newest_checkpoint_ns()
    pid = os.fork()
    if pid == 0:
        live()
        exit_at_once(0)
    number = len(lives)
    if number < NUM_KILLS:
        if number >= NUM_KILLS * 2 // 3:
            wait(is_trained)
        elif number % 2:
            wait(partial(has_saved_since, newest_ns))
        time.sleep(chance.uniform(0.0, LONGEST_S / 3 if number >= NUM_KILLS * 2 // 3 else LONGEST_S))
        os.kill(pid, signal.SIGKILL)
    lives.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    if lives[-1] != -signal.SIGKILL:
        break
print(json.dumps(lives))
