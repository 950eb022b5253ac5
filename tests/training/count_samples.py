"""Each of several processes counts its part of a split. Script of test_ranks.py.

Prints for each its number, the samples it saw, and those that all saw.
"""

import os
import sys
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist

from pipeline.training.data_module import BatchShard, ChunkLoader
from pipeline.training.module import EpochMetrics

NUM_SAMPLES, WORLD, MEETING_POINT = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])


def count(number: int) -> str:
    dist.init_process_group("gloo", init_method=f"file://{MEETING_POINT}", rank=number, world_size=WORLD)
    samples, labels = np.zeros((NUM_SAMPLES, 2), np.uint8), np.zeros(NUM_SAMPLES, np.int64)
    metrics, own = EpochMetrics(), 0
    for chunk in ChunkLoader(samples, labels, 2048, None, BatchShard(number, WORLD), max_steps=1):
        metrics.update(torch.zeros(1), torch.zeros(len(chunk.labels), 3), chunk.labels)
        own += len(chunk.labels)
    metrics.sync()
    found = f"{number} {own} {int(metrics.count)}"
    dist.destroy_process_group()
    return found


children = []
for number in range(WORLD):
    pid = os.fork()
    if pid == 0:
        os.write(
            1, f"{count(number)}\n".encode()
        )  # print() writes the end of the line on its own, after another's line
        os._exit(0)
    children.append(pid)
for pid in children:
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
