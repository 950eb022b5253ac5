"""Write docs/configuration.md.

Use:  python docs/_build/reference.py --write    (make docs does)

Names, types and ranges come from pipeline/config/schema.py; defaults and meanings from the files of conf/, and where
these say nothing of a key, its meaning from the comment beside it in the schema; the stages that a key concerns from
dvc.yaml.
"""

from __future__ import annotations

import argparse
import ast
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.config.schema import Config
from pipeline.runtime.places import project_root
from pipeline.system.files import read_yaml, write_text

PAGE = "docs/configuration.md"
INTRODUCTION = """\
# Every setting

`make docs` writes this page from the schema of all settings (src/pipeline/config/schema.py), the files of conf/ and
dvc.yaml, and a test fails when it says anything else.

On the command line a key is written `group.key=value`, in its file `conf/<group>/<choice>.yaml` it is `key: value`;
`group=choice` takes another file of the group. Types are strict: the text `"5"` is no number, 1.5 no whole number. A
key that is not on this page is refused, with the nearest one that is. Some values exclude each other; the message then
says which, and what to give instead. What a command would use, all of it: `pipeline train --cfg job`.

"Watched by" names the stages that DVC runs again when the value changes; those behind them follow if what they read has
changed. "None" means that the value changes no result.
"""
PLUGINS = {  # what else may be set, of our plug-ins of Hydra: heading -> (class, prefix, sentence)
    "hydra/launcher=process": (
        "ProcessLauncherConf", "hydra.launcher",
        "How `-m` starts the jobs of a sweep; the default. See [sweeps](sweeps.md).",
    ),
    "hydra/sweeper=optuna": (
        "OptunaSweeperConf", "hydra.sweeper",
        "How a search chooses its trials. See [searching](searching.md).",
    ),
}  # fmt: skip
BEGINNINGS = ("base", "default", "local")  # files that others of their group begin with
TYPES = {"int": "whole number", "float": "number", "str": "text", "bool": "`true` `false`", "None": "`null`"}


# ---------------------------------------------------------------- the page


def page(root: Path) -> str:
    """The whole of it, for the project at root."""
    sources = Sources.of(root)
    seed = yaml_lines((root / "conf/config.yaml").read_text(encoding="utf-8"))["seed"]
    row = ("`seed`", type_text(sources.groups["seed"], sources.sections), f"`{seed.value}`", seed.comment)
    parts = [INTRODUCTION, f"## `seed`\n\n{table([(*row, sources.watchers('seed'))])}"]
    parts += [group_part(sources, group) for group in sources.ordered_groups()]
    parts += [experiments_part(sources), *(plugin_part(root, heading) for heading in PLUGINS)]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def group_part(sources: Sources, group: str) -> str:
    """A group: its choices, and a table of its keys; a table for each choice where each has keys of its own."""
    node, choices = sources.groups[group], sources.choices(group)
    if "discriminator" not in node:
        first = yaml_lines(sources.file(group, choices[0]))
        shown = [choice for choice in choices if choice != "base"]
        items = [f"- {choice_line(sources, group, choice, choice == choices[0])}" for choice in shown]
        rows = key_rows(sources, group, section_name(node["$ref"]), first)
        return f"## `{group}`\n\n" + "\n".join(items) + f"\n\n{table(rows)}"
    parts = [f"## `{group}`"]
    tag, section_of = node["discriminator"]["propertyName"], node["discriminator"]["mapping"]
    for choice in choices:
        text = sources.file(group, choice)
        lines = yaml_lines(text)
        rows = key_rows(sources, group, section_name(section_of[lines[tag].value]), lines)
        parts.append(f"### {choice_name(sources, group, choice)}\n\n{about(text)}\n\n{table(rows)}")
    return "\n\n".join(parts)


def choice_name(sources: Sources, group: str, choice: str) -> str:
    return f"`{group}={choice}`" + (" (default)" if choice == sources.default(group) else "")


def choice_line(sources: Sources, group: str, choice: str, first: bool) -> str:
    """What a choice is, what it begins with, and the values that it gives; what a data set is made of is left out."""
    text = sources.file(group, choice)
    lines = [line for line in yaml_lines(text).values() if line.value and line.key not in ("name", "kind", "classes")]
    begins = re.search(r"^defaults:\s*(?:\[|- )(\w+)", text, re.MULTILINE)
    said = f"{choice_name(sources, group, choice)}: {about(text)}"
    if begins and begins[1] not in BEGINNINGS:
        said += f" Begins with `{begins[1]}`."
    if lines and not first:
        said += f" Sets {', '.join(f'`{line.key}: {line.value}`' for line in lines)}."
    return said


def key_rows(sources: Sources, prefix: str, section: str, lines: Mapping[str, Line]) -> list[tuple[str, ...]]:
    """A row for each key of a section, and for each key of the sections in it."""
    rows: list[tuple[str, ...]] = []
    first_with: dict[str, str] = {}  # section -> the first key that holds one
    for key, node in sources.sections[section]["properties"].items():
        name, line = f"{prefix}.{key}", lines.get(key, Line(key))
        allowed = type_text(node, sources.sections)
        meaning = without_values(line.comment, allowed) or sources.comment(section, key)
        found = re.search(r"'(#/\$defs/\w+)'", str(node))
        inner = section_name(found[1]) if found else ""
        if inner in first_with:
            meaning = f"as `{first_with[inner]}`"
        default = f"`{line.value}`" if line.value else ""
        rows.append((f"`{name}`", allowed, default, meaning.replace("<", "&lt;"), sources.watchers(name)))
        if inner and first_with.setdefault(inner, name) == name:
            rows += key_rows(sources, name, inner, {})
    return rows


def experiments_part(sources: Sources) -> str:
    """The sets of settings that come with the project; one that `pipeline adopt` wrote is a person's own."""
    parts = [
        "## `experiment`\n\nA whole set of settings, over what conf/config.yaml chooses. `null`: none, the default."
    ]
    for choice in sources.choices("experiment"):
        if not choice.startswith("sweep-"):
            text = sources.file("experiment", choice)
            body = re.sub(r"\A(#.*\n)+", "", text).strip()
            parts.append(f"### `experiment={choice}`\n\n{about(text)}\n\n```yaml\n{body}\n```")
    return "\n\n".join(parts)


def plugin_part(root: Path, heading: str) -> str:
    """The options of a plug-in, from its dataclass."""
    name, prefix, sentence = PLUGINS[heading]
    source = (root / "src/pipeline/config/compose.py").read_text(encoding="utf-8")
    values = {"None": "null", "field(default_factory=dict)": "{}"}
    rows = [
        (f"`{prefix}.{line.key}`", annotation_text(line.type), f"`{values.get(line.value, line.value.strip(chr(39)))}`",
         line.comment)
        for line in class_fields(source, name).values() if not line.key.startswith("_")
    ]  # fmt: skip
    return f"## `{heading}`\n\n{sentence}\n\n{table(rows)}"


def table(rows: Sequence[Sequence[str]]) -> str:
    """Markdown. The column of stages is said once above it where it is the same in all rows."""
    header = ["key", "type and range", "default", "meaning", "watched by"][: len(rows[0])]
    above = ""
    if len(header) == 5 and len({row[4] for row in rows}) == 1:
        above = f"Watched by: {rows[0][4]}.\n\n"
        header, rows = header[:4], [row[:4] for row in rows]
    lines = [header, ["---"] * len(header), *rows]
    return above + "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in lines)


# ---------------------------------------------------------------- types in words


def type_text(node: Mapping[str, Any], sections: Mapping[str, Any]) -> str:
    """A node of the JSON schema: `whole number, 1 or more`."""
    if "$ref" in node:
        return "{" + ", ".join(f"`{key}`" for key in sections[section_name(node["$ref"])]["properties"]) + "}"
    if "anyOf" in node:
        return " or ".join(type_text(option, sections) for option in node["anyOf"])
    if "const" in node or "enum" in node:
        return " ".join(f"`{value}`" for value in node.get("enum", [node.get("const")]))
    match node.get("type"):
        case "integer" | "number":
            return ("whole number" if node["type"] == "integer" else "number") + range_text(node)
        case "string":
            fits = f" that fits `{node['pattern']}`" if "pattern" in node else ""
            return f"text{fits}" + (f", at most {node['maxLength']} characters" if "maxLength" in node else "")
        case "array" if "prefixItems" in node:
            first, *others = (type_text(item, sections) for item in node["prefixItems"])
            return f"list of {1 + len(others)}: {first}" if set(others) <= {first} else f"list of: {first}, …"
        case "array":
            return f"list of: {type_text(node['items'], sections)}"
        case "boolean":
            return TYPES["bool"]
        case "null":
            return TYPES["None"]
    raise ValueError(f"the schema has a type that this page has no words for: {node}")


def range_text(node: Mapping[str, Any]) -> str:
    bounds = {"minimum": "{} or more", "exclusiveMinimum": "above {}", "maximum": "at most {}",
              "exclusiveMaximum": "below {}"}  # fmt: skip
    given = [(text, node[key]) for key, text in bounds.items() if key in node]
    return "".join(", " + text.format(f"{value:g}" if value < 1e6 else value) for text, value in given)


def annotation_text(annotation: str) -> str:
    """A field of a dataclass: `int | None` is a whole number or null."""
    listed = re.sub(r"list\[(\w+)\]", lambda inner: f"list of: {TYPES[inner[1]]}", annotation)
    listed = re.sub(r"dict\[.*\]", "mapping", listed)
    return " or ".join(TYPES.get(part, part) for part in listed.split(" | "))


def without_values(comment: str, allowed: str) -> str:
    """A comment without the parts that only list the allowed values (`best or last`), as the column beside it does."""
    parts = re.split(r"(; |: )", comment)
    kept = ""
    for part, mark in zip(parts[::2], [*parts[1::2], ""], strict=True):
        words = set(re.findall(r"[\w/.-]+", part)) - {"or"}
        is_list = re.fullmatch(r"[\w/.-]+(?: (?:or )?[\w/.-]+)+", part)
        if not (is_list and words <= set(re.findall(r"[\w/.-]+", allowed))):
            kept += part + mark
    return kept.removesuffix("; ").removesuffix(": ")


# ---------------------------------------------------------------- what it is made of


@dataclass(frozen=True)
class Line:
    """`key: value # comment`, of a YAML file or of a class."""

    key: str
    value: str = ""  # as it is written; of a class field its default
    comment: str = ""
    type: str = ""  # of a class field: its annotation


@dataclass(frozen=True)
class Sources:
    root: Path
    groups: Mapping[str, Any]  # JSON schema of each outermost key
    sections: Mapping[str, Any]  # JSON schema of each class
    schema: str  # the source, for its comments
    watched: Mapping[str, Sequence[str]]  # stage -> keys, from dvc.yaml

    @classmethod
    def of(cls, root: Path) -> Sources:
        whole = Config.model_json_schema(by_alias=True)
        source = (root / "src/pipeline/config/schema.py").read_text(encoding="utf-8")
        stages = read_yaml(root / "dvc.yaml")["stages"]
        watched = {name: stage.get("params", []) for name, stage in stages.items()}
        return cls(root, whole["properties"], whole["$defs"], source, watched)

    def defaults(self) -> dict[str, Any]:
        """Group -> choice, in the order of conf/config.yaml."""
        lines = read_yaml(self.root / "conf/config.yaml")["defaults"]
        return {group: choice for line in lines if isinstance(line, dict) for group, choice in line.items()}

    def default(self, group: str) -> str:
        return str(self.defaults()[group])

    def ordered_groups(self) -> list[str]:
        return [group for group in self.defaults() if group in self.groups]

    def choices(self, group: str) -> list[str]:
        """The files of a group: those first that others begin with, then the default."""
        names = [path.stem for path in (self.root / "conf" / group).glob("*.yaml")]
        return sorted(names, key=lambda name: (name not in BEGINNINGS, name != self.default(group), name))

    def file(self, group: str, choice: str) -> str:
        return (self.root / "conf" / group / f"{choice}.yaml").read_text(encoding="utf-8")

    def watchers(self, key: str) -> str:
        """The stages whose `params:` have the key or a group that it is in."""
        found = [name for name, keys in self.watched.items() if any(f"{key}.".startswith(f"{k}.") for k in keys)]
        return ", ".join(found) or "none"

    def comment(self, section: str, key: str) -> str:
        """What the schema says of a key, in a section's class or in one that it extends."""
        fields = class_fields(self.schema, section)
        if key in fields:
            return fields[key].comment
        bases = re.search(rf"^class {section}\((.*)\):", self.schema, re.MULTILINE)
        others = [base for base in (bases[1].split(", ") if bases else []) if base != "Section"]
        return next((found for base in others if (found := self.comment(base, key))), "")


def section_name(reference: str) -> str:
    """`#/$defs/ModelConfig` means ModelConfig."""
    return reference.rpartition("/")[2]


def class_fields(source: str, name: str) -> dict[str, Line]:
    """The annotated fields of a class, each with the comment beside it and below it."""
    lines = source.splitlines()
    found = next(node for node in ast.parse(source).body if isinstance(node, ast.ClassDef) and node.name == name)
    fields = {}
    for node in found.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.end_lineno:
            end = node.end_lineno
            while end < len(lines) and lines[end].lstrip().startswith("#"):
                end += 1
            comments = [line.partition("# ")[2] for line in lines[node.lineno - 1 : end] if "# " in line]
            key, value = node.target.id, ast.unparse(node.value) if node.value else ""
            if alias := re.search(r"alias='(\w+)'", value):
                key, value = alias[1], ""
            fields[key] = Line(key, value, " ".join(comments), ast.unparse(node.annotation))
    return fields


def yaml_lines(text: str) -> dict[str, Line]:
    """The keys of a file's outermost level, as they are written."""
    found = re.findall(r"^(\w+):(?: +(\[.*?\]|\{.*?\}|[^#\n]*?))?(?: +# (.*))?$", text, re.MULTILINE)
    return {key: Line(key, value, comment) for key, value, comment in found if key != "defaults"}


def about(text: str) -> str:
    """What a file says of itself, in the comment that it opens with, before its `Use:`."""
    body = re.sub(r"\A# @.*\n", "", text)
    opening = re.match(r"((?:#.*\n)*?)(?:# Use:|[^#]|\Z)", body)
    lines = [line.lstrip("# ") for line in opening[1].splitlines()] if opening else []
    return " ".join(lines).removesuffix(" The default.")  # the page says which one that is


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python docs/_build/reference.py", description="Make " + PAGE)
    parser.add_argument("--write", action="store_true", help=f"write {PAGE}; else print it")
    root = project_root()
    if parser.parse_args(arguments).write:
        write_text(root / PAGE, page(root))
    else:
        print(page(root), end="")


if __name__ == "__main__":
    main()
