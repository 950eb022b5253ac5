"""The sections of docs/results.md that a benchmark writes: each lies between two comments that name it.

<!-- book_seeds -->
…
<!-- /book_seeds -->
"""

from __future__ import annotations

from pathlib import Path

from pipeline.system.errors import PipelineError
from pipeline.system.files import write_text


def write_section(path: Path, name: str, markdown: str) -> None:
    """Put `markdown` in place of what lies between the two comments, all or nothing."""
    write_text(path, with_section(path, name, markdown))


def with_section(path: Path, name: str, markdown: str) -> str:
    """The page's text with `markdown` between the two comments.

    Raises:
        PipelineError: a comment is missing or there twice, or they stand the wrong way round.
    """
    begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    text = path.read_text(encoding="utf-8")
    before, found, rest = text.partition(begin)
    _, closed, after = rest.partition(end)
    if not (found and closed) or text.count(begin) + text.count(end) != 2:
        raise PipelineError(
            f"{path}: expected one line {begin} and, below it, one line {end}; found {text.count(begin)} and "
            f"{text.count(end)}. Put them where the section belongs"
        )
    return f"{before}{begin}\n\n{markdown.strip()}\n\n{end}{after}"
