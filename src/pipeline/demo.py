"""A page to draw on.  python -m pipeline.demo [model=@champion] [--port N]

Draw a figure with mouse, pen or finger: the probabilities move with each stroke, and the page shows what the
network sees and which strokes spoke for its answer. On this machine alone (127.0.0.1).
"""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.command import described, explained, load
from pipeline.errors import ConfigError
from pipeline.places import project_root
from pipeline.prediction.words import model_named, port
from pipeline.start import run

PORT = 5002


def main(arguments: Sequence[str] | None = None) -> None:
    parser = described("demo", __doc__)
    parser.add_argument("model", nargs="?", metavar="model=NAME", help="@champion, a run, or a folder")
    parser.add_argument("--port", type=port, default=PORT)
    asked = parser.parse_args(arguments)
    with explained("demo"):
        root, name = project_root(), model_named(asked.model)
        load("demo", "torch")
        import torch

        from pipeline.prediction.demo_server import Demo, require_pictures
        from pipeline.prediction.models import find_model

        found = find_model(root, name, "demo")
        require_pictures(found)
        torch.set_num_threads(1)  # one drawing at a time is too little for more
        try:
            server = Demo(found, asked.port)
        except OSError as error:
            raise ConfigError(f"--port {asked.port}: {error.strerror}. Choose another") from error
        with server:
            print(f"{found.what}\ndraw at {server.url} (Ctrl-C ends it)", flush=True)
            server.serve_forever()


if __name__ == "__main__":
    run(main)
