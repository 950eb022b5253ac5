"""A model for programs without torch.  python -m pipeline.export [model=@champion] [--out model.onnx]

ONNX, with the scaling and the softmax inside: raw samples in, probabilities out, any number of samples at once. It is
written only after ONNX Runtime has given the answers that torch gives, to 1e-5.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pipeline.command import described, explained, load
from pipeline.errors import ConfigError
from pipeline.places import project_root
from pipeline.prediction.words import model_named
from pipeline.start import run


def main(arguments: Sequence[str] | None = None) -> None:
    parser = described("export", __doc__)
    parser.add_argument("model", nargs="?", metavar="model=NAME", help="@champion, a run, or a folder")
    parser.add_argument("--out", type=Path, default=Path("outputs/model.onnx"), metavar="FILE")
    asked = parser.parse_args(arguments)
    with explained("export"):
        if asked.out.is_dir():
            raise ConfigError(f"--out {asked.out}: expected a file, found a folder. Give {asked.out / 'model.onnx'}")
        root, name = project_root(), model_named(asked.model)
        load("export", "torch")
        from pipeline.prediction.models import find_model
        from pipeline.prediction.onnx_file import export

        found = find_model(root, name, "export")
        worst = export(found.model, asked.out)
        print(f"{asked.out}: {found.what}; its probabilities are torch's to {worst:.1e}")


if __name__ == "__main__":
    run(main)
