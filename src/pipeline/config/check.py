"""A mistake in a configuration, explained: where it is, what was expected, what was found, the nearest valid key."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from pipeline.config.schema import Config
from pipeline.system.errors import ConfigError

Validated = TypeVar("Validated", bound=BaseModel)

# DVC's run cache leaves parameters of these names out of its key, so a change of one would restore an old result
# in silence (treeverse/dvc#10296). May go when that is fixed.
DVC_BLIND_KEYS = ("size", "nfiles")


def validate(model: type[Validated], values: Mapping[str, Any]) -> Validated:
    """The values as the typed section `model`.

    Raises:
        ConfigError: one line for each mistake.
    """
    refuse_blind_keys(values)
    try:
        return model.model_validate(values)
    except ValidationError as error:
        lines = [_explain(mistake, values) for mistake in error.errors()]
        raise ConfigError("\n".join(lines)) from None


def refuse_blind_keys(values: Any, path: str = "") -> None:
    """Raise ConfigError for a key that DVC's run cache would not see."""
    if not isinstance(values, Mapping):
        return
    for key, value in values.items():
        if key in DVC_BLIND_KEYS:
            raise ConfigError(
                f"{path}{key}: rename it: DVC's run cache does not see parameters named {key!r}, so changing it would "
                f"bring back an old result (treeverse/dvc#10296). num_{key} is safe."
            )
        refuse_blind_keys(value, f"{path}{key}.")


def did_you_mean(key: str) -> str:
    """` Did you mean …?` with the valid keys nearest to a dotted one; what there is beside it if none is near."""
    known = sorted(set(valid_keys(Config)) - {key})
    group, _, leaf = key.rpartition(".")
    while group and not any(k.startswith(f"{group}.") for k in known):
        group = group.rpartition(".")[0]
    beside = [k for k in known if k.rpartition(".")[0] == group]
    same_leaf = [k for k in known if k.rpartition(".")[2] == leaf]
    near = list(dict.fromkeys([*_near_leaves(leaf, beside), *same_leaf])) or _near_leaves(leaf, known)
    return f" Did you mean {' or '.join(near[:3])}?" if near else f" There is: {', '.join(beside)}."


def valid_keys(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Every dotted key of a section, groups included."""
    for name, field in model.model_fields.items():
        key = f"{prefix}{field.alias or name}"
        yield key
        for part in _sections_in(field.annotation):
            yield from valid_keys(part, f"{key}.")


def _sections_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [section for argument in get_args(annotation) for section in _sections_in(argument)]


def _near_leaves(leaf: str, known: Sequence[str]) -> list[str]:
    leaves = {k.rpartition(".")[2] for k in known}
    close = difflib.get_close_matches(leaf, leaves, n=1, cutoff=0.7)
    return [k for k in known if k.rpartition(".")[2] in close]


def _explain(mistake: Any, values: Mapping[str, Any]) -> str:
    key = ".".join(_path_in(values, mistake["loc"]))
    match mistake["type"]:
        case "extra_forbidden":
            return f"{key}: there is no such key.{did_you_mean(key)}"
        case "missing":
            return f"{key}: is missing. Every default lives in conf/; has a file there lost it?"
        case "value_error":
            said = str(mistake["ctx"]["error"])
            return f"{key}: {said}" if key and not said.startswith(key) else said
        case "union_tag_invalid":
            return f"{key}: {mistake['ctx']['tag']!r} is not on the list: {mistake['ctx']['expected_tags']}"
        case "union_tag_not_found":
            return f"{key}: {mistake['ctx']['discriminator']} is missing: it says which of the group's choices this is"
        case "tuple_type":
            return f"{key}: should be a list like [28,28], found {mistake['input']!r}"
        case _:
            return f"{key}: {_lower(mistake['msg'])}, found {mistake['input']!r}"


def _path_in(values: Any, loc: Sequence[str | int]) -> Iterator[str]:
    """The keys as the user wrote them: pydantic's location also holds the tags of unions, which are no keys."""
    for n, part in enumerate(loc):
        inside = isinstance(values, Mapping) and part in values
        if inside or n == len(loc) - 1 or isinstance(part, int):
            yield str(part)
            values = values[part] if inside else None


def _lower(message: str) -> str:
    return message[:1].lower() + message[1:]
