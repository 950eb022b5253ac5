"""Every benchmark runs to its end: none is found broken on the day that its figures are wanted."""

from __future__ import annotations

import importlib
import json
import math
import os
import re
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from keras_peer import needs_keras
from project_maker import ROOT

BENCHMARKS = ROOT / "benchmarks"
TEXTS = {path.name: path.read_text(encoding="utf-8") for path in sorted(BENCHMARKS.glob("*.py"))}
PROGRAMS = [name for name, text in TEXTS.items() if '__name__ == "__main__"' in text]
PART_OF = {name: found[1] for name in PROGRAMS if (found := re.search(r"Script of (\w+\.py)\.$", TEXTS[name], re.M))}
COMMANDS = [name for name in PROGRAMS if name not in PART_OF]
PAGE = ROOT / "docs/results.md"
NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?(?:e-?\d+)?|nan|inf")
# It imports torch, Lightning and MLflow once; each benchmark is a fork of it.
SERVER = """
import json, sys
from process import run
for line in sys.stdin:
    try:
        told = run([line.strip(), "--smallest"], fork=True).stdout, ""
    except RuntimeError as error:
        told = "", str(error)
    print(json.dumps(told), flush=True)
"""


@pytest.fixture(scope="module")
def smallest() -> Iterator[Callable[[str], str]]:
    """What a benchmark's smallest form prints, in a process of its own that finds no tracking server."""
    theirs = ("DVC_", "GIT_", "MLFLOW_")
    environment = {key: value for key, value in os.environ.items() if not key.startswith(theirs)}
    environment |= {"PYTHONPATH": f"{ROOT / 'src'}:{BENCHMARKS}", "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        (sys.executable, "-c", SERVER),
        cwd=ROOT,
        env=environment,
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as server:
        assert server.stdin
        assert server.stdout
        ask, answers = server.stdin, server.stdout

        def run(name: str) -> str:
            print(BENCHMARKS / name, file=ask, flush=True)
            printed, error = json.loads(answers.readline())
            assert not error, error
            return str(printed)

        yield run
        server.kill()


@needs_keras
@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_the_smallest_form_makes_the_tables_of_the_results(smallest: Callable[[str], str], name: str) -> None:
    """The same columns and rows as on docs/results.md, each cell with finite numbers; the page itself stays."""
    before = PAGE.read_bytes()
    made, written = tables(smallest(name)), tables(before.decode())

    assert made
    for head, rows in made.items():
        assert set(rows) == set(written[head])
        for label, cells in rows.items():
            assert all(numbers(cell) and all(map(math.isfinite, numbers(cell))) for cell in cells), (label, cells)
    assert PAGE.read_bytes() == before


def tables(text: str) -> dict[str, dict[str, list[str]]]:
    """Head -> label of a row -> its other cells; `#` for each number in head and label, for the data are others."""
    found = {}
    for table in re.findall(r"(?:^\|.*\|\n?)+", text, re.M):
        head, _, *rows = [line.strip("| \n").split(" | ") for line in table.splitlines()]
        found[NUMBER.sub("#", " | ".join(head))] = {NUMBER.sub("#", label): cells for label, *cells in rows}
    return found


def numbers(cell: str) -> list[float]:
    return [float(number.replace(",", "")) for number in NUMBER.findall(cell)]


def test_a_subject_in_an_interpreter_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As benchmarks measure: its output and its memory come back, and what it says when it fails."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    run = importlib.import_module("process").run

    done = run(["-c", "import os; print(os.getcwd(), os.environ)"], fork=False, cwd=tmp_path, env={"SAID": "so"})
    assert done.stdout.startswith(f"{tmp_path} ")
    assert "'SAID': 'so'" in done.stdout
    own_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    assert 1 < done.resident_mib <= max(100, own_mib)  # Linux counts what the parent had when it forked
    with pytest.raises(RuntimeError, match=r"(?s)ended with status 3:\n.*no such digit"):
        run(["-c", "import sys; print('no such digit', file=sys.stderr); sys.exit(3)"], fork=False)


def test_a_program_that_is_no_benchmark_is_run_by_one() -> None:
    assert [name for name, owner in PART_OF.items() if name not in TEXTS[owner]] == []


def test_make_bench_runs_every_benchmark() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")

    assert sorted(re.findall(r"python benchmarks/(\w+\.py) --write", makefile)) == COMMANDS
