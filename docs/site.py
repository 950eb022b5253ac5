"""What mkdocs.yml cannot say: the home page is README.md, and the decisions are those that are there.

On the web host of the repository a link may lead anywhere in it; the site has the pages of docs/ alone. A link that
leads out of docs/ is plain text in the site.
"""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from posixpath import normpath
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)#\s]+)(#[^)\s]*)?\)")


def on_config(config: Any) -> Any:
    """Fill the decisions in."""
    for section in config.nav:
        for name, pages in section.items():
            if isinstance(pages, list):
                section[name] = [_decisions() if "decisions" in page.values() else page for page in pages]
    return config


def _decisions() -> dict[str, Any]:
    return {"Decisions": ["decisions/index.md", *(f"decisions/{path.name}" for path in _decision_files())]}


def _decision_files() -> list[Path]:
    return sorted((ROOT / "docs/decisions").glob("[0-9]*.md"))


def on_files(files: Files, config: Any) -> Files:
    """README.md as the home page, and a page that lists the decisions."""
    files.append(File.generated(config, "index.md", content=(ROOT / "README.md").read_text(encoding="utf-8")))
    titles = [(path.name, path.read_text(encoding="utf-8").partition("\n")[0][2:]) for path in _decision_files()]
    listed = "\n".join(f"- [{title}]({name})" for name, title in titles)
    text = f"# Decisions\n\nWhat was chosen, what was not, and why; half a page each.\n\n{listed}\n"
    files.append(File.generated(config, "decisions/index.md", content=text))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    return for_the_site(markdown, "" if page.file.src_uri == "index.md" else f"docs/{page.file.src_uri}")


def for_the_site(markdown: str, file: str) -> str:
    """A page's links as they are in the site. file: where the page lies in the repository; "" is README.md."""
    here = PurePosixPath(file).parent

    def rewritten(link: re.Match[str]) -> str:
        picture, words, target, anchor = link[1], link[2], link[3], link[4] or ""
        if re.match(r"[a-z]+:", target):
            return link[0]
        path = normpath(here / target)
        if path == "README.md":
            return f"[{words}]({_up(here)}index.md{anchor})"
        if not path.startswith("docs/"):
            return words
        inside = f"{path}/index.md" if path == "docs/decisions" else path
        return f"{picture}[{words}]({_up(here)}{inside.removeprefix('docs/')}{anchor})"

    return LINK.sub(rewritten, markdown)


def _up(here: PurePosixPath) -> str:
    """From the folder of a page to docs/."""
    return "../" * max(0, len(here.parts) - 1)
