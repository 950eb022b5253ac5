"""pipeline serve: a model behind a REST interface, by MLflow's own server, on this machine alone.

Clients send samples as they are, such as 28 x 28 numbers from 0 to 255 for an image, and get the probabilities of the
classes.
"""

from __future__ import annotations

import argparse
import os
import sys

from pipeline.commands import model_named
from pipeline.prediction.models import ServedModel, served_model
from pipeline.runtime.places import project_root
from pipeline.system.startup import load


def command(served: ServedModel, port_number: int) -> list[str]:
    """MLflow's server, in this very environment."""
    server = [sys.executable, "-m", "mlflow", "models", "serve", "--env-manager", "local"]
    return [*server, "--host", "127.0.0.1", "--port", str(port_number), "--model-uri", str(served.folder)]


def main(args: argparse.Namespace) -> None:
    root, name = project_root(), model_named(args.model, args.models)
    load("serve", "MLflow")
    served = served_model(root, name)
    print(f"{served.what}. When it runs:", flush=True)
    print(
        f"  curl http://127.0.0.1:{args.port}/invocations -H 'Content-Type: application/json' -d @{served.example}",
        flush=True,
    )
    os.execv(sys.executable, command(served, args.port))
