"""Write docs/configuration.md.

Use:  python docs/_build/reference.py --write    (make docs does)
Names, types and ranges come from pipeline/config/schema.py; defaults and meanings from conf/, a meaning that conf/
leaves out from the schema's comments; which stage a key concerns from dvc.yaml.
"""

from __future__ import annotations


import argparse
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from pipeline.system.files import write_text
from pipeline.runtime.places import project_root


import ast
import io
import re
import tokenize
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.config.schema import Config
from pipeline.system.files import read_yaml


import re
from collections.abc import Mapping
from typing import Any



WORDS = {"int": "whole number", "float": "number", "str": "text", "bool": "`true` `false`", "None": "`null`"}
VALUES = re.compile(r"[\w/.-]+(?: (?:or )?[\w/.-]+)+")  # `best or last`, `cpu gpu auto`


def type_words(node: Mapping[str, Any], defs: Mapping[str, Any]) -> str:
    """A node of the JSON schema in words: `whole number, 1 or more`."""
    if "$ref" in node:
        keys = defs[node["$ref"].rpartition("/")[2]]["properties"]
        return "{" + ", ".join(f"`{key}`" for key in keys) + "}"
    if "anyOf" in node:
        return " or ".join(type_words(option, defs) for option in node["anyOf"])
    if "const" in node or "enum" in node:
        return " ".join(f"`{value}`" for value in node.get("enum", [node.get("const")]))
    match node.get("type"):
        case "integer" | "number":
            return ("whole number" if node["type"] == "integer" else "number") + _range(node)
        case "string":
            fits = f" that fits `{node['pattern']}`" if "pattern" in node else ""
            most = f", at most {node['maxLength']} characters" if "maxLength" in node else ""
            return f"text{fits}{most}"
        case "array" if "prefixItems" in node:
            first, *others = (type_words(item, defs) for item in node["prefixItems"])
            return f"list of {1 + len(others)}: {first}" if set(others) <= {first} else f"list of: {first}, …"
        case "array":
            return f"list of: {type_words(node['items'], defs)}"
        case "boolean":
            return WORDS["bool"]
        case "null":
            return WORDS["None"]
    raise ValueError(f"the schema has a type that this page has no words for: {node}")


def _range(node: Mapping[str, Any]) -> str:
    low = {"minimum": "{} or more", "exclusiveMinimum": "above {}"}
    high = {"maximum": "at most {}", "exclusiveMaximum": "below {}"}
    said = [words.format(f"{node[key]:g}" if node[key] < 1e6 else node[key])
            for ends in (low, high) for key, words in ends.items() if key in node]  # fmt: skip
    return "".join(f", {words}" for words in said)


def annotation_words(annotation: str) -> str:
    """A class field's type: `int | None` is a whole number or null."""
    listed = re.sub(r"list\[(\w+)\]", lambda inner: f"list of: {WORDS[inner[1]]}", annotation)
    listed = re.sub(r"dict\[.*\]", "mapping", listed)
    return " or ".join(WORDS.get(part, part) for part in listed.split(" | "))


def without_values(comment: str, allowed: str) -> str:
    """A comment without the parts that only list the allowed values, as the column beside it does."""
    parts = re.split(r"(; |: )", comment)
    kept = ""
    for part, mark in zip(parts[::2], [*parts[1::2], ""], strict=True):
        words = set(re.findall(r"[\w/.-]+", part)) - {"or"}
        if not (VALUES.fullmatch(part) and words <= set(re.findall(r"[\w/.-]+", allowed))):
            kept += part + mark
    return kept.removesuffix("; ").removesuffix(": ")


SCHEMA = "src/pipeline/config/schema.py"
BEGINNINGS = ("base", "default", "local")  # files that others of their group begin with


@dataclass(frozen=True)
class Line:
    """`key: value # comment`, of a YAML file or of a class."""

    key: str
    value: str  # as it is written; of a class field its default, "" without one
    comment: str
    type: str = ""  # of a class field: its annotation


def class_fields(source: str, name: str) -> dict[str, Line]:
    """The annotated fields of a class, each with the comment beside and below it."""
    found = next(n for n in ast.parse(source).body if isinstance(n, ast.ClassDef) and n.name == name)
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    comments = {token.start[0]: token.string.lstrip("# ") for token in tokens if token.type == tokenize.COMMENT}
    fields = {}
    for node in found.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.end_lineno:
            last = node.end_lineno
            said = [comments[n] for n in range(node.lineno, last + 1) if n in comments]
            while (last := last + 1) in comments and source.splitlines()[last - 1].lstrip().startswith("#"):
                said.append(comments[last])
            value = ast.unparse(node.value) if node.value else ""
            key = node.target.id
            if alias := re.search(r"alias='(\w+)'", value):
                key, value = alias[1], ""
            fields[key] = Line(key, value, " ".join(said), ast.unparse(node.annotation))
    return fields


def yaml_lines(text: str) -> dict[str, Line]:
    """The keys of a file's outermost level, as they are written."""
    found = re.findall(r"^(\w+):(?: +(\[.*?\]|\{.*?\}|[^#\n]*?))?(?: +# (.*))?$", text, re.MULTILINE)
    return {key: Line(key, value, comment) for key, value, comment in found if key != "defaults"}


def opening(text: str) -> list[str]:
    """The lines of the comment that a file opens with."""
    lines = [line for line in text.splitlines() if not line.startswith("# @")]
    count = next((n for n, line in enumerate(lines) if not line.startswith("#")), len(lines))
    return [line.lstrip("# ") for line in lines[:count]]


def about(text: str) -> str:
    """What a file says of itself before its `Use:`."""
    lines = opening(text)
    use = next((n for n, line in enumerate(lines) if line.startswith("Use:")), len(lines))
    return " ".join(lines[:use]).removesuffix(" The default.")  # the page says which one that is


def begins_with(text: str) -> str:
    """The file of the same group that a file takes its other values from, unless all of the group do."""
    found = re.search(r"^defaults:\s*(?:\[|- )(\w+)", text, re.MULTILINE)
    return f"`{found[1]}`" if found and found[1] not in BEGINNINGS else ""


@dataclass(frozen=True)
class Sources:
    """What the page is made of."""

    root: Path
    defs: Mapping[str, Any]  # JSON schema of each section
    groups: Mapping[str, Any]  # JSON schema of each outermost key
    schema: str  # the source, for its comments
    watched: Mapping[str, Sequence[str]]  # stage -> keys, from dvc.yaml

    @classmethod
    def of(cls, root: Path) -> Sources:
        whole = Config.model_json_schema(by_alias=True)
        stages = read_yaml(root / "dvc.yaml")["stages"]
        watched = {name: stage.get("params", []) for name, stage in stages.items()}
        return cls(root, whole["$defs"], whole["properties"], (root / SCHEMA).read_text(encoding="utf-8"), watched)

    def file(self, group: str, choice: str) -> str:
        return (self.root / "conf" / group / f"{choice}.yaml").read_text(encoding="utf-8")

    def choices(self, group: str) -> list[str]:
        """The files of a group, those first that others begin with."""
        names = [path.stem for path in (self.root / "conf" / group).glob("*.yaml")]
        return sorted(names, key=lambda name: (name not in BEGINNINGS, name != self.default(group), name))

    def groups_in_order(self) -> list[str]:
        """As conf/config.yaml chooses them."""
        lines = read_yaml(self.root / "conf/config.yaml")["defaults"]
        return [key for line in lines if isinstance(line, dict) for key in line if key in self.groups]

    def default(self, group: str) -> str:
        """The choice of conf/config.yaml."""
        chosen = read_yaml(self.root / "conf/config.yaml")["defaults"]
        return next(str(line[group]) for line in chosen if isinstance(line, dict) and group in line)

    def comment(self, section: str, key: str) -> str:
        """What the schema says of a key, in a section's class or in one that it extends."""
        bases = re.search(rf"^class {section}\((.*)\):", self.schema, re.MULTILINE)
        fields = class_fields(self.schema, section)
        if key in fields:
            return fields[key].comment
        return next((said for base in (bases[1].split(", ") if bases else ()) if base not in ("Section", "BaseModel")
                     and (said := self.comment(base, key))), "")  # fmt: skip

    def watchers(self, key: str) -> str:
        """The stages whose `params:` have the key or a group that it is in."""
        found = [name for name, keys in self.watched.items() if any(f"{key}.".startswith(f"{k}.") for k in keys)]
        return ", ".join(found) or "none"


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
HYDRA = {  # what else may be set, of plug-ins of ours: heading -> (class, prefix, sentence)
    "hydra/launcher=process": (
        "ProcessLauncherConf", "hydra.launcher",
        "How `-m` starts the jobs of a sweep; the default. See [sweeps](sweeps.md).",
    ),
    "hydra/sweeper=optuna": (
        "OptunaSweeperConf", "hydra.sweeper",
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
    source = (root / "src/pipeline/config/plugins.py").read_text(encoding="utf-8")
    for heading, (name, prefix, sentence) in HYDRA.items():
        fields = class_fields(source, name)
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
    parser = argparse.ArgumentParser(prog="python docs/_build/reference.py", description="Make " + PAGE)
    parser.add_argument("--write", action="store_true", help=f"write {PAGE}; else print it")
    root = project_root()
    asked = parser.parse_args(arguments)
    if asked.write:
        write_text(root / PAGE, page(root))
    else:
        print(page(root), end="")


if __name__ == "__main__":
    main()