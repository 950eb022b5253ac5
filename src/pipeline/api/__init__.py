"""The project from Python: load data, fit a Dense network, score it, compare two. `pipeline` itself offers it.

Each call does what a command does, with the settings of conf/ for all that you leave out: of the project that you are
in, else of the checkout that this package was installed from. A mistake raises a `PipelineError` with the message that
the command prints.

Torch, Lightning and MLflow, which take seconds to import, come with the first method that needs them.
"""

from pipeline.api.data import Data, load_data
from pipeline.api.dense import Dense, History, load_model
from pipeline.api.verdict import Verdict, compare

__all__ = ["Data", "Dense", "History", "Verdict", "compare", "load_data", "load_model"]
