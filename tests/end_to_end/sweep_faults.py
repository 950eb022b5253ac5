"""Put into a test's copy of the sources: trainings that fail, hang or wait, by their seed.

FAULTS="2=raise 3=wait" in the environment: after its second epoch the training with seed 2 raises, the one with seed 3
waits until the file `go` lies at the project's root. Each training notes how it was started in probe.json.
"""

from __future__ import annotations

import inspect
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PROBE, WAITS = "probe.json", "waits"
SQL = "(sqlite3.OperationalError) database is locked\n[SQL: INSERT INTO metrics VALUES (?, ?)]\n[parameters: …]"


def inject(sources: Path) -> None:
    """Put this file and its two hooks into a copy of src/."""
    (sources / "sweep_faults.py").write_text(Path(__file__).read_text(encoding="utf-8"), encoding="utf-8")
    for module, hook in (("runtime/recording", "training_run"), ("training/fit", "fit_processed")):
        with open(sources / f"pipeline/{module}.py", "a", encoding="utf-8") as file:
            file.write(f"\n\nimport sweep_faults  # noqa: E402\n\n{hook} = sweep_faults.{hook}({hook})\n")


def fault_of(seed: int) -> str:
    return dict(word.split("=") for word in os.environ.get("FAULTS", "").split()).get(str(seed), "")


def training_run(original: Callable[..., Any]) -> Callable[..., Any]:
    """Killed before its run is opened."""

    @contextmanager
    def wrapped(cfg: Any, *rest: Any) -> Any:
        if fault_of(cfg.seed) == "sigkill_at_start":
            os.kill(os.getpid(), signal.SIGKILL)
        with original(cfg, *rest) as run:
            yield run

    return wrapped


def fit_processed(original: Callable[..., Any]) -> Callable[..., Any]:
    """The other faults, after the second epoch: a checkpoint of the first is there."""

    def wrapped(*words: Any, **named: Any) -> Any:
        given = inspect.signature(original).bind(*words, **named).arguments
        out, seed, on_epoch = given["work"].parent, given["cfg"].seed, given["on_epoch"]

        def epoch_done(epoch: int, *rest: Any) -> Any:
            answer = on_epoch(epoch, *rest)
            note(out)
            if epoch == 1:
                happen(fault_of(seed), out)
            return answer

        return original(**given | {"on_epoch": epoch_done})

    return wrapped


def note(out: Path) -> None:
    import torch

    environment = {key: os.environ.get(key) for key in ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES")}
    text = json.dumps({"pid": os.getpid(), "threads": torch.get_num_threads(), **environment})
    (out / PROBE).write_text(text, encoding="utf-8")


def happen(fault: str, out: Path) -> None:
    match fault:
        case "raise":
            raise RuntimeError(SQL)
        case "sigkill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "exit":
            sys.exit(3)
        case "_exit":
            os._exit(3)
        case "hang":
            time.sleep(1000)
        case "wait":
            (out / WAITS).touch()
            while not Path("go").exists():
                time.sleep(0.05)
            (out / WAITS).unlink()
