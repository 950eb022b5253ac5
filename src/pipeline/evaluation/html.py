"""Pieces of a page that is one file and needs no network."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

STYLE = """
:root { color-scheme: light dark; --ink: #222; --soft: #667; --line: #d8dbe2;
  --better: #1f6fb2; --worse: #c2571a; --page: #fff }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e8ee; --soft: #9aa3b5; --line: #3a4150; --better: #6db3ee; --worse: #f0975f; --page: #171a21 } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--page);
  max-width: 52rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.3rem } h2 { font-size: 1.1rem; margin: 2.2rem 0 .4rem } h3 { font-size: 1rem; margin: 1.4rem 0 .3rem }
.better h2 { color: var(--better) } .worse h2 { color: var(--worse) }
table { border-collapse: collapse; margin: .4rem 0 } td, th { text-align: left; padding: .15rem 1.2rem .15rem 0;
  border-bottom: 1px solid var(--line); vertical-align: top }
td.number { font-variant-numeric: tabular-nums; white-space: nowrap }
.soft { color: var(--soft) } svg { max-width: 100%; height: auto } svg text { fill: var(--ink); font-size: 13px }
.images { display: flex; flex-wrap: wrap; gap: .6rem }
.images figure { margin: 0; width: 84px; font-size: .75rem; text-align: center }
.images img { width: 84px; height: 84px; object-fit: contain; image-rendering: pixelated;
  border: 1px solid var(--line) }
.drawing { display: block; max-width: 100%; background: #fff; border-radius: 4px }
"""


def document(title: str, parts: Iterable[str]) -> str:
    """The whole file, from its parts, which are HTML already."""
    return "".join(
        [
            "<!doctype html><html lang='en'><meta charset='utf-8'>",
            "<meta name='viewport' content='width=device-width, initial-scale=1'>",
            f"<title>{escape(title)}</title><style>{STYLE}</style>",
            *parts,
            "</html>\n",
        ]
    )


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Cells are text; what begins with a digit or a sign is set as a number."""
    cells = "".join(f"<th>{escape(name)}</th>" for name in head)
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
    return f"<table>{f'<tr>{cells}</tr>' if cells else ''}{body}</table>"


def _cell(text: str) -> str:
    kind = " class='number'" if text[:1].isdigit() or text[:1] in "+-–" else ""
    return f"<td{kind}>{escape(text)}</td>"


def sample(image: NDArray[Any], index: int, first: str, second: str = "") -> str:
    """An image of the test set, (H, W) or (H, W, 3) uint8, with its index and a word or two below it."""
    file = io.BytesIO()
    Image.fromarray(np.array(image)).save(file, "PNG")
    below = f"<br><span class='soft'>{escape(second)}</span>" if second else ""
    return (
        f"<figure><img alt='test image {index}' src='{png(file.getvalue())}'>"
        f"<figcaption>#{index}: {escape(first)}{below}</figcaption></figure>"
    )


def samples(figures: Iterable[str]) -> str:
    return f"<div class='images'>{''.join(figures)}</div>"


def drawing(content: bytes, alt: str) -> str:
    """A PNG at the width of the page."""
    return f"<img class='drawing' alt='{escape(alt)}' src='{png(content)}'>"


def png(content: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(content).decode()}"
