"""pipeline demo: a page to draw on, served on this machine alone.

The probabilities move with each stroke; the page shows what the network sees and which strokes spoke for its answer.
"""

from __future__ import annotations

import argparse

from pipeline.prediction.arguments import model_named
from pipeline.runtime.places import project_root
from pipeline.system.errors import ConfigError
from pipeline.system.startup import load


def main(args: argparse.Namespace) -> None:
    root, name = project_root(), model_named(args.model)
    load("demo", "torch")
    import torch

    from pipeline.prediction.demo_server import Demo, require_pictures
    from pipeline.prediction.models import find_model

    found = find_model(root, name, "demo")
    require_pictures(found)
    torch.set_num_threads(1)  # one drawing at a time is too little for more
    try:
        server = Demo(found, args.port)
    except OSError as error:
        raise ConfigError(f"--port {args.port}: {error.strerror}. Choose another") from error
    with server:
        print(f"{found.what}\ndraw at {server.url} (Ctrl-C ends it)", flush=True)
        server.serve_forever()
