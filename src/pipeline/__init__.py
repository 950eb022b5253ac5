"""A reproducible, tracked training pipeline for Dense classifiers: DVC, Hydra, Lightning and MLflow as one thing.

    import pipeline

    data = pipeline.load_data("mnist_5k")
    model = pipeline.Dense(units=[512])
    model.fit(data, epochs=5, batch_size=128)
    model.evaluate(data)

Importing it changes nothing and costs next to nothing: what is slow comes with the first use.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.api import Data, Dense, History, Verdict, compare, load_data, load_model
    from pipeline.system.errors import ConfigError, DataContractError, Diverged, DownloadError, PipelineError

    __version__: str

__all__ = [
    "ConfigError",
    "Data",
    "DataContractError",
    "Dense",
    "Diverged",
    "DownloadError",
    "History",
    "PipelineError",
    "Verdict",
    "__version__",
    "compare",
    "load_data",
    "load_model",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("dense-pipeline")
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    is_error = name.endswith("Error") or name == "Diverged"
    return getattr(importlib.import_module("pipeline.system.errors" if is_error else "pipeline.api"), name)


def __dir__() -> list[str]:
    return __all__
