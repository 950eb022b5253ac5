"""Write docs/configuration.md.

Use:  python -m pipeline.reference --write    (make docs does)
Names, types and ranges come from pipeline/config/schema.py; defaults and meanings from conf/, a meaning that conf/
leaves out from the schema's comments; which stage a key concerns from dvc.yaml.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from pipeline.command import settle
from pipeline.files import write_text
from pipeline.places import project_root
from pipeline.reference.sources import Line, Sources, about, begins_with, class_fields, yaml_lines
from pipeline.reference.words import annotation_words, type_words, without_values
from pipeline.start import run

PAGE = "docs/configuration.md"
INTRODUCTION = """\
# Every setting

`make docs` writes this page from the schema of all settings (src/pipeline/config/schema.py), the files of conf/ and
dvc.yaml, and a test fails when it says anything else.

On the command line a key is written `group.key=value`, in its file `conf/<group>/<choice>.yaml` it is `key: value`;
`group=choice` takes another file of the group. Types are strict: the text `"5"` is no number, 1.5 no whole number. A
key that is not on this page is refused, with the nearest one that is. Some values exclude each other; the message then
says which, and what to give instead. What a command would use, all of it: `python -m pipeline.train --cfg job`.

"Watched by" names the stages that DVC runs again when the value changes; those behind them follow if what they read has
changed. "None" means that the value changes no result.
"""
HYDRA = {  # what else may be set, of plug-ins of ours: heading -> (file, class, prefix, sentence)
    "hydra/launcher=process": (
        "pipeline_process_launcher", "ProcessLauncherConf", "hydra.launcher",
        "How `-m` starts the jobs of a sweep; the default. See [sweeps](sweeps.md).",
    ),
    "hydra/sweeper=optuna": (
        "pipeline_optuna_sweeper", "OptunaSweeperConf", "hydra.sweeper",
        "How a search chooses its trials. See [searching](searching.md).",
    ),
}  # fmt: skip


def page(root: Path) -> str:
    sources = Sources.of(root)
    seed = yaml_lines((root / "conf/config.yaml").read_text(encoding="utf-8"))["seed"]
    whole = type_words(sources.groups["seed"], sources.defs)
    watchers = sources.watchers("seed")
    parts = [INTRODUCTION, f"## `seed`\n\n{table([('`seed`', whole, f'`{seed.value}`', seed.comment, watchers)])}"]
    parts += [group_part(sources, group) for group in sources.groups_in_order()]
    parts += [experiments(sources), *hydra_parts(root)]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def group_part(sources: Sources, group: str) -> str:
    """One group: its choices and its keys; a table for each choice where each has keys of its own."""
    node, choices = sources.groups[group], sources.choices(group)
    if "discriminator" in node:
        kind, mapping = node["discriminator"]["propertyName"], node["discriminator"]["mapping"]
        parts = []
        for choice in choices:
            text = sources.file(group, choice)
            section = mapping[yaml_lines(text)[kind].value].rpartition("/")[2]
            rows = key_rows(sources, group, section, yaml_lines(text))
            parts.append(f"### {chosen(sources, group, choice)}\n\n{about(text)}\n\n{table(rows)}")
        return f"## `{group}`\n\n" + "\n\n".join(parts)
    rows = key_rows(sources, group, node["$ref"].rpartition("/")[2], yaml_lines(sources.file(group, choices[0])))
    listed = [f"- {chosen(sources, group, choice)}: {about(text)}{sets(text, first=choice == choices[0])}"
              for choice in choices if choice != "base" and (text := sources.file(group, choice))]  # fmt: skip
    return f"## `{group}`\n\n" + "\n".join(listed) + f"\n\n{table(rows)}"


def chosen(sources: Sources, group: str, choice: str) -> str:
    return f"`{group}={choice}`" + (" (default)" if choice == sources.default(group) else "")


def sets(text: str, *, first: bool) -> str:
    """The values that a file gives beside those that it begins with; what a data set is made of is left out."""
    lines = [line for line in yaml_lines(text).values() if line.value and line.key not in ("name", "kind", "classes")]
    given = ", ".join(f"`{line.key}: {line.value}`" for line in lines)
    other = begins_with(text)
    return (f" Begins with {other}." if other else "") + (f" Sets {given}." if given and not first else "")


def key_rows(sources: Sources, prefix: str, section: str, lines: Mapping[str, Line]) -> list[tuple[str, ...]]:
    """A row for each key of a section, and for each key of the sections in it."""
    rows: list[tuple[str, ...]] = []
    shown: dict[str, str] = {}  # section -> the first key that holds one
    for key, node in sources.defs[section]["properties"].items():
        name, line = f"{prefix}.{key}", lines.get(key, Line(key, "", ""))
        said = type_words(node, sources.defs)
        meaning = without_values(line.comment, said) or sources.comment(section, key)
        inner = re.search(r"'#/\$defs/(\w+)'", str(node))
        if inner and inner[1] in shown:
            meaning = f"as `{shown[inner[1]]}`"
        default = f"`{line.value}`" if line.value else ""
        rows.append((f"`{name}`", said, default, plain(meaning), sources.watchers(name)))
        if inner and shown.setdefault(inner[1], name) == name:
            rows += key_rows(sources, name, inner[1], {})
    return rows


def plain(text: str) -> str:
    """Text that Markdown leaves as it is."""
    return text.replace("<", "&lt;")


def experiments(sources: Sources) -> str:
    """The sets of settings that a person may choose."""
    parts = [
        "## `experiment`\n\nA whole set of settings, over what conf/config.yaml chooses. `null`: none, the default."
    ]
    for choice in sources.choices("experiment"):
        if not choice.startswith("sweep-"):  # promoted: a project's own
            text = sources.file("experiment", choice)
            body = re.sub(r"\A(#.*\n)+", "", text).strip()
            parts.append(f"### `experiment={choice}`\n\n{about(text)}\n\n```yaml\n{body}\n```")
    return "\n\n".join(parts)


def hydra_parts(root: Path) -> Iterator[str]:
    """Options of our plug-ins, from their dataclasses."""
    for heading, (module, name, prefix, sentence) in HYDRA.items():
        fields = class_fields((root / f"src/hydra_plugins/{module}.py").read_text(encoding="utf-8"), name)
        rows = []
        for key, line in fields.items():
            if not key.startswith("_"):
                default = {"None": "null", "field(default_factory=dict)": "{}"}.get(line.value, line.value.strip("'"))
                rows.append((f"`{prefix}.{key}`", annotation_words(line.type), f"`{default}`", line.comment))
        yield f"## `{heading}`\n\n{sentence}\n\n{table(rows)}"


def table(rows: Sequence[Sequence[str]]) -> str:
    """Markdown. The column of stages is said once above it where it is the same in all rows."""
    header = ["key", "type and range", "default", "meaning", "watched by"][: len(rows[0])]
    above = ""
    if len(header) == 5 and len({row[4] for row in rows}) == 1:
        above = f"Watched by: {rows[0][4]}.\n\n"
        header, rows = header[:4], [row[:4] for row in rows]
    lines = [header, ["---"] * len(header), *rows]
    return above + "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in lines)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m pipeline.reference", description="Make " + PAGE)
    parser.add_argument("--write", action="store_true", help=f"write {PAGE}; else print it")
    root = project_root()
    asked = parser.parse_args(arguments)
    settle()
    if asked.write:
        write_text(root / PAGE, page(root))
    else:
        print(page(root), end="")


if __name__ == "__main__":
    run(main)
