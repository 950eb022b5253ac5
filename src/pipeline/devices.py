"""Whether the devices that the settings ask for are there."""

from __future__ import annotations

from pipeline.config.schema import TrainerConfig
from pipeline.errors import ConfigError


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
