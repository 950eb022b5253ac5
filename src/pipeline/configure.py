"""conf/ → params.yaml: composed, resolved and checked, so that plain `dvc repro` follows every edit of conf/.

data/own.json has the state of a person's own data, so that download runs when that has changed.

Under `dvc exp run` DVC itself has just composed params.yaml, with the -S overrides in it; then it is only checked,
and what differs from conf/ is printed.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pipeline.config.check import validate
from pipeline.config.compose import compose_yaml, parse
from pipeline.config.schema import Config
from pipeline.data.user_data import STATE_FILE, user_data_state
from pipeline.runtime.places import project_root
from pipeline.system.files import atomic_file, write_json, write_text

MAX_VALUE_CHARS = 60  # the digests of published files would fill the screen


def configure(conf: Path, params: Path, *, composed_by_dvc: bool) -> list[str]:
    """Bring params.yaml up to date with conf/, unless DVC has composed it; check it either way.

    Returns:
        The settings that changed, as `key=value, was …`; under `dvc exp run` those that differ from conf/, as
        `key=value, in conf/ …`. So overrides of an experiment are seen when they come and when they go.

    Raises:
        ConfigError: a wrong key, type, value or pair; params.yaml is left as it was.
    """
    text = compose_yaml(conf)
    if not composed_by_dvc:
        now = parse(text)
        validate(Config, now)
        before = parse(params.read_text(encoding="utf-8")) if params.exists() else now
        write_text(params, text)
        return [f"{setting}, was {old}" for setting, old in _differences(now, before)] + _dropped_data(now, before)
    params_of_dvc = parse(params.read_text(encoding="utf-8"))
    validate(Config, params_of_dvc)
    return [f"{setting}, in conf/ {value}" for setting, value in _differences(params_of_dvc, parse(text))]


def _dropped_data(now: Mapping[str, Any], before: Mapping[str, Any]) -> list[str]:
    """How to come back to one's own data, where it was given as overrides that are gone now."""
    data = before.get("data", {})
    path = data.get("path")
    if path in (None, now["data"]["path"]):
        return []
    return [
        f"conf/ does not name {path}, so it is the data no more. To train on it, repeat `dvc exp run "
        f"-S data={data['kind']} -S data.path={path} …`, or name it in conf/ "
        "(docs/data.md, Make your data the default)"
    ]


def _differences(new: Any, other: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """(`key=value`, the other value) of each setting that is not the same."""
    if isinstance(new, Mapping) and isinstance(other, Mapping):
        for key in sorted({*new, *other}):
            yield from _differences(new.get(key), other.get(key), f"{path}.{key}" if path else str(key))
    elif new != other:
        yield f"{path}={_short(new)}", _short(other)


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= MAX_VALUE_CHARS else "…"


def main() -> None:
    """`dvc repro` runs it first; it costs a third of a second."""
    from pipeline.system.exit_codes import explained
    from pipeline.system.startup import settle

    if len(sys.argv) > 1:
        sys.exit("configure: takes no arguments: edit conf/, or give overrides to `dvc exp run -S`")
    settle()
    with explained("configure"):
        if "DVC_STAGE" not in os.environ:  # by hand from any folder; DVC runs it where the outputs lie
            os.chdir(project_root())
        params = Path("params.yaml")
        with atomic_file(params) as new, atomic_file(Path(STATE_FILE)) as state:
            if params.exists():
                shutil.copyfile(params, new)
            differences = configure(Path("conf"), new, composed_by_dvc="DVC_EXP_NAME" in os.environ)
            path = parse(new.read_text(encoding="utf-8"))["data"]["path"]
            write_json(state, user_data_state(path, project_root()))
        for difference in differences:
            print(f"configure: {difference}")


if __name__ == "__main__":
    from pipeline.cli import main as command_line

    command_line("configure")
