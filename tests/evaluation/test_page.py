"""What makes a page of a template."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from jinja2 import Environment, UndefinedError
from PIL import Image

from pipeline.evaluation.page import CompactSource, data_uri, render


@pytest.mark.parametrize(
    ("source", "compact"),
    [
        ("<p>\n  one\n  two\n</p>\n<p>", "<p>one two</p><p>"),
        ("<p>{{ a }}\n  {{ b }}\n</p>", "<p>{{ a }}{{ b }}</p>"),
        ("{% if a %}\n  <b>\n{% endif %}", "{% if a %}<b>{% endif %}"),
        ("<line x='1'\n  y='2'/>", "<line x='1' y='2'/>"),
    ],
    ids=["text", "expressions", "blocks", "attributes"],
)
def test_a_line_break_is_a_space_in_text_and_nothing_beside_a_tag(source: str, compact: str) -> None:
    assert CompactSource(Environment()).preprocess(source, "page.html.j2") == compact


def test_a_style_sheet_keeps_its_lines() -> None:
    assert CompactSource(Environment()).preprocess("a { }\n  b { }\n", "style.css") == "a { }\n  b { }\n"


def test_a_value_that_a_page_lacks_is_an_error() -> None:
    with pytest.raises(UndefinedError, match="'findings' is undefined"):
        render("evaluation/page.html.j2")


def test_an_image_is_the_same_png_from_memory_and_from_a_file(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (5, 4, 3), dtype=np.uint8)
    Image.fromarray(image).save(tmp_path / "a.png")
    uri = data_uri(image)
    assert uri == data_uri(tmp_path / "a.png")
    content = base64.b64decode(uri.removeprefix("data:image/png;base64,"))
    np.testing.assert_array_equal(Image.open(io.BytesIO(content)), image)
