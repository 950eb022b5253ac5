"""Whether the devices that the settings ask for are there, and how a CPU is made fast. Imports torch when called."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.config.schema import TrainerConfig
from pipeline.system.errors import ConfigError


def accelerator(cfg: TrainerConfig) -> str:
    """`auto` is a CUDA GPU if there is one, else the CPU: the metrics' float64 sums exist on no other device."""
    if cfg.accelerator != "auto":
        return cfg.accelerator
    import torch

    return "gpu" if torch.cuda.is_available() else "cpu"


def require_device(cfg: TrainerConfig) -> None:
    """Raise ConfigError if the devices that are asked for are not there, or cannot compute what is asked for.

    Imports torch only where a GPU may be meant.
    """
    on_gpu = accelerator(cfg) == "gpu"
    if on_gpu:
        import torch

        if not torch.cuda.is_available():
            raise ConfigError(
                "trainer.accelerator=gpu, but torch finds no CUDA GPU here. Use trainer.accelerator=auto or cpu, "
                "or install a CUDA build of torch"
            )
        if cfg.devices > torch.cuda.device_count():
            raise ConfigError(f"trainer.devices={cfg.devices}, but torch finds {torch.cuda.device_count()} GPUs here")
    elif cfg.strategy == "fsdp":
        raise ConfigError("trainer.strategy=fsdp needs GPUs (Lightning 2.6 refuses it elsewhere). Use trainer=ddp_cpu")
    elif cfg.precision == "16-mixed":
        raise ConfigError("trainer.precision=16-mixed needs a GPU; on the CPU use 32-true or bf16-mixed")


# ---------------------------------------------------------------- many small matrix products on a CPU


M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's mallopt
MAPPED_BYTES, KEPT_BYTES = 32 * 2**20, 256 * 2**20


@contextmanager
def tuned_cpu(num_threads: int) -> Iterator[None]:
    """The number of threads, and numbers too small for float32's normal range as zeros.

    The mean square gradient of a rarely used weight halves every seven steps of RMSprop; below 1e-38 each operation on
    it takes some hundred cycles, and steps took 1.3 times as long (docs/log.md). Threads that exist already keep their
    mode, so this comes before the first parallel operation.
    """
    import torch

    keep_freed_memory()
    before = torch.get_num_threads()
    torch.set_num_threads(num_threads)
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)
        torch.set_num_threads(before)


def threads_of(cfg: TrainerConfig) -> int:
    """How many a training here has, those of all its processes on this machine."""
    return min(cfg.num_threads, thread_limit())


def thread_limit() -> int:
    """The cores, or OMP_NUM_THREADS if that is less: a sweep gives each of its jobs a share of the machine by it."""
    cores = os.cpu_count() or 1
    given = os.environ.get("OMP_NUM_THREADS", "")
    return min(cores, int(given)) if given.isdecimal() and int(given) else cores


def keep_freed_memory() -> None:
    """Have glibc reuse the megabytes that each step frees.

    It gave them back to the kernel and got them again at every step: up to 1,000 page faults, 1 ms of a step of 2.5 ms.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)
        mallopt(M_MMAP_THRESHOLD, MAPPED_BYTES)
