"""An evaluation as a page, and what makes a page of a template: one file that needs no network."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Mapping
from functools import cache
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from jinja2.ext import Extension
from markupsafe import Markup
from numpy.typing import NDArray
from PIL import Image

if TYPE_CHECKING:
    from pipeline.evaluation.report import Findings


def evaluation_page(findings: Findings, facts: Mapping[str, str], figures: Path, max_suspects: int) -> str:
    """The whole file.

    Args:
        facts: about the model and the data, in the order in which they are shown.
        figures: the folder with the PNGs that were drawn.
    """
    return render(
        "evaluation/page.html.j2",
        findings=findings,
        facts=facts,
        figures={file.name: file for file in figures.iterdir()},
        classes=list(zip(*findings.per_class.values(), strict=True)),
        worst=findings.predictions(findings.worst),
        suspects=findings.predictions(findings.suspects[:max_suspects]),
    )


def render(template: str, **values: Any) -> str:
    """The page that a template of src/pipeline makes of these values; text is escaped."""
    return _environment().get_template(template).render(values) + "\n"


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("pipeline", ""), extensions=[CompactSource], autoescape=True, undefined=StrictUndefined,
        finalize=_escaped,
    )  # fmt: skip
    environment.filters |= {"spec": format, "data_uri": data_uri}
    return environment


class CompactSource(Extension):
    """Leaves the line breaks of a template out of its page: beside a tag or an expression, as in HTML's running text
    one is a space.
    """

    def preprocess(self, source: str, name: str | None, filename: str | None = None) -> str:
        if name is not None and name.endswith(".css"):
            return source
        return re.sub(r"\s*\n\s*", " ", re.sub(r"(?<=[>}])\s*\n\s*|\s*\n\s*(?=[<{])", "", source))


def _escaped(value: Any) -> Any:
    """Quotes too, as Python's own `escape` writes them."""
    return value if hasattr(value, "__html__") else Markup(escape(str(value)))


def data_uri(picture: Path | NDArray[Any]) -> str:
    """A PNG for `src`: of a file, or of an image (H, W) or (H, W, 3) uint8."""
    if isinstance(picture, Path):
        content = picture.read_bytes()
    else:
        file = io.BytesIO()
        Image.fromarray(np.array(picture)).save(file, "PNG")
        content = file.getvalue()
    return f"data:image/png;base64,{base64.b64encode(content).decode()}"
