"""pipeline export: a model as ONNX, for programs without torch.

Scaling and softmax are inside: raw samples in, probabilities out, any number of samples at once. The file is written
only after ONNX Runtime has given torch's answers to 1e-5.
"""

from __future__ import annotations

import argparse

from pipeline.commands.arguments import model_named
from pipeline.runtime.places import project_root
from pipeline.system.errors import ConfigError
from pipeline.system.startup import load


def main(args: argparse.Namespace) -> None:
    if args.out.is_dir():
        raise ConfigError(f"--out {args.out}: expected a file, found a folder. Give {args.out / 'model.onnx'}")
    root, name = project_root(), model_named(args.model, args.models)
    load("export", "torch")
    from pipeline.prediction.models import find_model
    from pipeline.prediction.onnx import export_onnx

    named = find_model(root, name, "export")
    error = export_onnx(named.model, args.out)
    print(f"{args.out}: {named.what}; its probabilities are torch's to {error:.1e}")
