"""What README.md and docs/ say is so: commands, settings, links, the reference of all settings."""

from __future__ import annotations

import ast
import importlib.util
import re
import shlex
import tomllib
from pathlib import Path

import pytest
import yaml
from reference import PAGE, page

from config.config_makers import NEEDED, composed
from documented import ELSEWHERE, PAGES, RUN, commands, path_of, settings_of
from pipeline.config.check import valid_keys
from pipeline.config.schema import Config
from project_maker import ROOT

IDS = [str(path.relative_to(ROOT)) for path in PAGES]


def test_every_command_is_run_by_a_test_or_it_is_said_why_not() -> None:
    """A command belongs in one of the two lists of tests/documented.py."""
    found = commands()

    assert {command: pages for command, pages in found.items() if command not in (*RUN, *ELSEWHERE)} == {}
    assert [command for command in (*RUN, *ELSEWHERE) if command not in found] == []
    assert set(RUN) & set(ELSEWHERE) == set()


@pytest.mark.parametrize("command", ELSEWHERE)
def test_the_test_that_is_named_for_a_command_is_there(command: str) -> None:
    for named in re.findall(r"tests/[\w/]+\.py::\w+", ELSEWHERE[command]):
        file, function = path_of(named)
        assert f"def {function}(" in file.read_text(encoding="utf-8")


PLACEHOLDERS = {"seed=N": "seed=0", "data=…": "data=mnist", "trainer.num_epoch=3": "trainer.num_epochs=3"}
ADDED_BY_THE_PAGE = ("lion", "residual")  # docs/extending.md; a test of its own trains with them
COMPOSED = [
    command
    for command in (*RUN, *ELSEWHERE)
    if re.search(r"pipeline[. ]train .*=|dvc exp run -S", command)
    and not re.search("|".join(ADDED_BY_THE_PAGE), command)
]


@pytest.mark.parametrize("command", COMPOSED)
def test_the_settings_of_a_command_are_valid(command: str) -> None:
    """Also where the command itself needs several GPUs: what it asks for passes the schema."""
    composed(*overrides_of(command))


def overrides_of(command: str) -> list[str]:
    """The overrides of a command; of what it sweeps the first value, of a range none."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    inner = re.sub(r".* && |'$", "", command) if "bash -c" in command else command
    words = [PLACEHOLDERS.get(word, word) for word in shlex.split(inner) if re.match(r"[a-z_/.]+=", word)]
    found = []
    for override in OverridesParser.create().parse_overrides(words):
        if override.is_hydra_override():
            continue
        if not override.is_sweep_override():
            found.append(str(override.input_line))
        elif override.is_discrete_sweep():
            found.append(f"{override.get_key_element()}={next(iter(override.sweep_string_iterator()))}")
    given = {word.partition("=")[0] for word in found}
    return found + [word for choice, needed in NEEDED.items() if choice in found for word in needed
                    if word.partition("=")[0] not in given]  # fmt: skip


@pytest.mark.parametrize("path", PAGES, ids=IDS)
def test_every_setting_that_a_page_names_is_there(path: Path) -> None:
    """`trainer.devices=4`, `optimizer=adam`: the key is in the schema, the choice in conf/."""
    keys, groups = set(valid_keys(Config)), {folder.name for folder in (ROOT / "conf").iterdir() if folder.is_dir()}
    for setting in settings_of(path.read_text(encoding="utf-8")):
        key, value = setting.split(" ")[0].split("=", 1)
        if key in groups and value not in ("NAME", "…", "null") and value not in ADDED_BY_THE_PAGE:
            for choice in re.split(r"[,|]", value.removesuffix("…")):
                assert (ROOT / "conf" / key / f"{choice}.yaml").exists(), setting
        elif key.partition(".")[0] in groups and key not in groups:
            assert key in keys, setting


@pytest.mark.parametrize("path", PAGES, ids=IDS)
def test_links_to_files_of_the_project_lead_there(path: Path) -> None:
    """As the web host of a repository shows them; the site's own are checked when it is built."""
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", path.read_text(encoding="utf-8")):
        assert re.match(r"[a-z]+:", target) or (path.parent / target).exists(), target


@pytest.mark.parametrize(
    ("file", "link", "in_the_site"),
    [
        ("", "[results](docs/results.md#speed)", "[results](results.md#speed)"),
        ("", "[docs/decisions/](docs/decisions/)", "[docs/decisions/](decisions/index.md)"),
        ("", "[conf/expand/deform.yaml](conf/expand/deform.yaml)", "conf/expand/deform.yaml"),
        ("docs/data.md", "[home](../README.md)", "[home](index.md)"),
        ("docs/decisions/0009-processes.md", "[devices](../devices.md)", "[devices](../devices.md)"),
        ("docs/decisions/0009-processes.md", "[other](0008-chunks.md)", "[other](../decisions/0008-chunks.md)"),
        ("docs/data.md", "[elsewhere](https://example.org/a)", "[elsewhere](https://example.org/a)"),
    ],
)
def test_a_link_of_the_repository_is_one_of_the_site(file: str, link: str, in_the_site: str) -> None:
    """What lies outside docs/ is no page of the site: its words stay."""
    spec = importlib.util.spec_from_file_location("site_of_docs", ROOT / "docs/site.py")
    assert spec is not None
    assert spec.loader is not None
    spec.loader.exec_module(site := importlib.util.module_from_spec(spec))

    assert site.for_the_site(link, file) == in_the_site


FOLDERS = "benchmarks|conf|docs|notebooks|src|tests"
PATH = re.compile(rf"(?<![\w/.-])(?:{FOLDERS})/[\w./-]*\w/?")
MODULE = re.compile(r"(?<![\w./-])pipeline(?:\.[A-Za-z_]\w*)+")
MADE_BY_A_READER = re.compile(r"\b(?:lion|residual|wide|sweep-ID|CLASS)\b")


@pytest.mark.parametrize("path", PAGES, ids=IDS)
def test_every_path_that_a_page_names_is_there(path: Path) -> None:
    """`src/pipeline/cli.py`, tests/config/: but for what docs/extending.md and a reader make."""
    named = {name for name in PATH.findall(path.read_text(encoding="utf-8")) if not MADE_BY_A_READER.search(name)}

    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("path", PAGES, ids=IDS)
def test_every_module_that_a_page_names_is_there(path: Path) -> None:
    """`pipeline.train`, `pipeline.model.rmsprop.KerasRMSprop`: a module, or a name that one defines."""
    named = {name for name in MODULE.findall(path.read_text(encoding="utf-8")) if not MADE_BY_A_READER.search(name)}

    assert [name for name in sorted(named) if not module_or_name(name)] == []


def module_or_name(dotted: str) -> bool:
    where = ROOT / "src" / dotted.replace(".", "/")
    if where.is_dir() or where.with_suffix(".py").exists():
        return True
    file, name = where.parent, where.name
    source = next((text for text in (file.with_suffix(".py"), file / "__init__.py") if text.exists()), None)
    return source is not None and bool(
        re.search(
            rf"^(?:def|class) {name}\b|^{name}\b|\b{name}\b\"?,?$", source.read_text(encoding="utf-8"), re.MULTILINE
        )
    )


def test_the_tree_in_the_readme_is_the_tree() -> None:
    """Each path is there, and each package of src/pipeline/ is named."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    tree = "conf/ " + readme.partition("```text\nconf/ ")[2].partition("```")[0]
    parents: list[str] = []
    paths = []
    for indent, name in re.findall(r"^((?: {4})*)([\w./]+)  ", tree, re.MULTILINE):
        parents = [*parents[: len(indent) // 4], name.rstrip("/")]
        paths.append("/".join(parents))
    packages = {str(file.parent.relative_to(ROOT)) for file in (ROOT / "src/pipeline").glob("*/__init__.py")}

    assert [path for path in paths if not (ROOT / path).exists()] == []
    assert packages - set(paths) == set()


def test_the_citation_has_the_version_and_licence_of_the_package() -> None:
    """CFF 1.2.0 needs these keys, and an author."""
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

    assert citation["cff-version"] == "1.2.0"
    assert citation["message"]
    assert citation["authors"] == [{"name": "The dense-pipeline project"}]
    assert [citation["title"], citation["version"], citation["license"]] == [
        project[key] for key in ("name", "version", "license")
    ]


# ---------------------------------------------------------------- private names of other packages


DOCUMENTED = {"_exit", "_replace"}  # os._exit, and a method of named tuples
PUBLIC = {"mlflow.db", "mlflow.pytorch", "mlflow.pyfunc"}  # our file, and modules that MLflow documents
PRIVATE_PATH = re.compile(r"[a-z]\w*(?:\.\w+)*\._[a-z]\w*(?:\.\w+)*")


def test_each_private_name_of_another_package_has_a_row() -> None:
    """docs/private_names.md: names with an underscore that no file of ours defines, and MLflow's modules and tags."""
    files = [*(ROOT / "src").rglob("*.py"), *(ROOT / ".dvc/hydra_plugins").glob("*.py")]
    nodes = [node for file in files for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))]
    text = (ROOT / "docs/private_names.md").read_text(encoding="utf-8")
    found = {name for node in nodes for name in foreign_names(node)} - names_of_ours(nodes) - DOCUMENTED - PUBLIC

    assert {"_apply_overrides_to_config", "torch._inductor.ir", "mlflow.parentRunId", "_foreach_sqrt_"} <= found
    assert [name for name in sorted(found) if name not in text] == []
    for file, function in map(path_of, re.findall(r"tests/[\w/]+\.py::\w+", text)):
        assert f"def {function}(" in file.read_text(encoding="utf-8")


def foreign_names(node: ast.AST) -> list[str]:
    """Of an attribute with an underscore, an import of a private module, or such a name as text."""
    match node:
        case ast.Attribute(attr=name) if re.match("_[a-z]", name):
            return [name]
        case ast.ImportFrom(module=str(module)) if not module.startswith(("pipeline", "hydra_plugins")):
            return [module] if PRIVATE_PATH.fullmatch(module) else []
        case ast.Constant(value=str(text)) if re.fullmatch(r"mlflow(\.\w+)+(\.\{\}|\.)?", text):
            return [text.removesuffix(".{}")]
        case ast.Constant(value=str(text)) if PRIVATE_PATH.fullmatch(text) and not text.startswith("hydra_plugins"):
            return [text]
    return []


def names_of_ours(nodes: list[ast.AST]) -> set[str]:
    """Functions, classes and attributes that are defined or assigned somewhere."""
    defined = {node.name for node in nodes if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
    fields = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    own = {
        node.attr
        for node in nodes
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self"
    }
    return defined | fields | own


# ---------------------------------------------------------------- the reference of all settings


def test_the_reference_is_what_schema_conf_and_dvc_yaml_say() -> None:
    """`make docs` writes it."""
    assert (ROOT / PAGE).read_text(encoding="utf-8") == page(ROOT)


def test_every_key_of_the_schema_is_in_the_reference() -> None:
    written = page(ROOT)
    repeated = re.findall(r"`(data\.files\.\w+)` \|.*\| as `", written)  # three files with the keys of the first

    assert len(repeated) == 3
    for key in valid_keys(Config):
        if key not in written.split("`") and not key.startswith(tuple(repeated)):
            assert f"## `{key}`" in written, key


def test_a_key_has_its_range_its_default_and_its_stage() -> None:
    """One row of each kind, as a person would write it."""
    rows = [[cell.strip() for cell in row.split("|")[1:-1]] for row in page(ROOT).splitlines()]
    share = "share of the training samples that validation takes; 0: train on all of them"
    never = "after which a job is ended and counts as failed; null: never"

    assert ["`data.validation_fraction`", "number, 0 or more, below 1", "`0.1`", share, "preprocess"] in rows
    assert ["`trainer.monitor`", "`val/loss` `val/accuracy`", "`val/loss`", 'what "best" means'] in rows
    assert ["`hydra.launcher.timeout_s`", "number or `null`", "`null`", never] in rows
