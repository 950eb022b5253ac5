"""pipeline demo: a page to draw on, served on this machine alone.

The probabilities move with each stroke; the page shows what the network sees and which strokes spoke for its answer.
"""

from __future__ import annotations

import argparse
import os
import socket

from pipeline.commands import model_named
from pipeline.runtime.places import project_root
from pipeline.system.errors import ConfigError
from pipeline.system.startup import load


def main(args: argparse.Namespace) -> None:
    root, name = project_root(), model_named(args.model, args.models)
    load("demo", "torch")
    import torch

    from pipeline.prediction.demo_app import HOST, demo_app, serve
    from pipeline.prediction.models import find_model

    named = find_model(root, name, "demo")
    app = demo_app(named, args.port)
    torch.set_num_threads(1)  # one drawing at a time is too little for more
    try:
        listener = socket.create_server((HOST, args.port))
    except OSError as error:  # whose own words repeat the address
        raise ConfigError(f"--port {args.port}: {os.strerror(error.errno or 0)}. Choose another") from error
    with listener:
        print(f"{named.what}\ndraw at http://{HOST}:{args.port} (Ctrl-C ends it)", flush=True)
        serve(app, listener)
