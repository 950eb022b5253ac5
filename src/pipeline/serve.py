"""The champion behind a REST interface, by MLflow's own server.  python -m pipeline.serve [model=@champion] [--port N]

On this machine alone (127.0.0.1). What is sent are samples as they are, such as 28 x 28 numbers from 0 to 255 an image;
what comes back are the probabilities of the classes.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from pipeline.command import described, explained, load
from pipeline.places import project_root
from pipeline.prediction.served import Served, served_model
from pipeline.prediction.words import model_named, port
from pipeline.start import run

PORT = 5001


def command(found: Served, port_number: int) -> list[str]:
    """MLflow's server, in this very environment."""
    server = [sys.executable, "-m", "mlflow", "models", "serve", "--env-manager", "local"]
    return [*server, "--host", "127.0.0.1", "--port", str(port_number), "--model-uri", str(found.folder)]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = described("serve", __doc__)
    parser.add_argument("model", nargs="?", metavar="model=NAME", help="@champion, or a run")
    parser.add_argument("--port", type=port, default=PORT)
    asked = parser.parse_args(arguments)
    with explained("serve"):
        root, name = project_root(), model_named(asked.model)
        load("serve", "MLflow")
        found = served_model(root, name)
        print(f"{found.what}. When it runs:", flush=True)
        print(
            f"  curl http://127.0.0.1:{asked.port}/invocations -H 'Content-Type: application/json' -d @{found.example}",
            flush=True,
        )
        os.execv(sys.executable, command(found, asked.port))


if __name__ == "__main__":
    run(main)
