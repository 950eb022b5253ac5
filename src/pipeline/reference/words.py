"""Types of the schema in words: `whole number, 1 or more`."""

from __future__ import annotations

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
