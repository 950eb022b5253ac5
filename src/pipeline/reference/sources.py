"""What the page is made of: the schema, the files of conf/ with their comments, and what dvc.yaml watches."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.config.schema import Config
from pipeline.files import read_yaml

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
