"""The documentation as a site: built strictly, and nothing in it comes from another host."""

from __future__ import annotations

import re

import pytest

from project_maker import Project, lend_environment

pytestmark = pytest.mark.slow
LOADED = re.compile(r"""<(?:script|link|img|iframe)\b[^>]*?(?:src|href)=["']?((?:https?:)?//[^"'\s>]+)""")


def test_the_site_is_built_strictly_and_asks_no_other_host(project: Project) -> None:
    """`make docs` ends well; a link that leads nowhere would end it. The pages load files of the site alone."""
    lend_environment(project)
    project.run("make", "docs")

    pages = {path: path.read_text(encoding="utf-8") for path in (project.root / "site").rglob("*.html")}
    names = {str(path.relative_to(project.root / "site")) for path in pages}
    assert names >= {"index.html", "configuration.html", "troubleshooting.html", "decisions/index.html", "log.html"}
    assert {str(path): LOADED.findall(text) for path, text in pages.items() if LOADED.findall(text)} == {}
    assert not re.search(
        r"url\((?:https?:)?//", "".join(p.read_text() for p in project.root.glob("site/assets/**/*.css"))
    )
    assert (project.root / "site/search/search_index.json").stat().st_size > 10_000
    assert "site" not in project.status
