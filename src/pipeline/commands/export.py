"""A model for programs without torch.  pipeline export [model=@champion] [--out model.onnx]

ONNX, with the scaling and the softmax inside: raw samples in, probabilities out, any number of samples at once. It is
written only after ONNX Runtime has given the answers that torch gives, to 1e-5.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from pipeline.commands.arguments import model_named
from pipeline.runtime.places import project_root
from pipeline.system.errors import ConfigError
from pipeline.system.startup import load


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", nargs="?", metavar="model=NAME", help="@champion, a run, or a folder")
    parser.add_argument("--out", type=Path, default=Path("outputs/model.onnx"), metavar="FILE")


def main(args: argparse.Namespace) -> None:
    if args.out.is_dir():
        raise ConfigError(f"--out {args.out}: expected a file, found a folder. Give {args.out / 'model.onnx'}")
    root, name = project_root(), model_named(args.model)
    load("export", "torch")
    from pipeline.prediction.models import find_model
    from pipeline.prediction.onnx import export_onnx

    named = find_model(root, name, "export")
    error = export_onnx(named.model, args.out)
    print(f"{args.out}: {named.what}; its probabilities are torch's to {error:.1e}")
