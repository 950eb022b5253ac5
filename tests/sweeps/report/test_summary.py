"""What a sweep says at its end: files, table and note."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from row_makers import ACCURACY, LOSS, WEIGHTS, row, seeds

from pipeline.sweeps.report.rows import Objective, Row
from pipeline.sweeps.report.summary import write_summary
from pipeline.sweeps.report.table import note, number_text, print_summary
from pipeline.system.files import read_json

SIX = {
    "optimizer": "rmsprop",
    "optimizer.lr": "0.0012345678901234",
    "model.units": "128",
    "model.dropout": "0.19961148827",
    "model.widths": "[256,128,64]",
    "optimizer.weight_decay": "0.00591273051060851",
}


def printed(rows: Sequence[Row], objectives: Sequence[Objective], width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width)
    print_summary(console, rows, objectives)
    return console.file.getvalue()  # type: ignore[attr-defined,no-any-return]


def table(rows: Sequence[Row], objectives: Sequence[Objective], width: int = 80) -> list[list[str]]:
    """The words of the first lines, up to the line of counts."""
    lines = printed(rows, objectives, width).splitlines()
    end = next(n for n, line in enumerate(lines) if "jobs finished" in line)
    return [line.split() for line in lines[:end] if line.strip() and "─" not in line]


def written(folder: Path, rows: Sequence[Row], objectives: Sequence[Objective] = (ACCURACY,)) -> Any:
    write_summary(folder, "abc", "pipeline train -m x=1,2", rows, objectives)
    return read_json(folder / "summary.json")


def cells(folder: Path) -> list[list[str]]:
    with open(folder / "summary.csv", newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


# ---------------------------------------------------------------- files


def test_the_csv_has_a_row_a_job_by_number(tmp_path: Path) -> None:
    """Swept keys, status, the objective before the other metrics; an empty cell for what is missing."""
    rows = [
        row(1, {"model.widths": "[64,32]"}, status="FAILED", reason="boom"),
        row(0, {"model.widths": "[64]"}, 0.951234567890123, epochs=5.0),
    ]

    written(tmp_path, rows)

    assert cells(tmp_path) == [
        ["number", "model.widths", "status", "val/accuracy", "epochs", "elapsed_s", "run_id", "overrides"],
        ["0", "[64]", "FINISHED", "0.951234567890123", "5.0", "10.0", "run0", "'model.widths=[64]'"],
        ["1", "[64,32]", "FAILED", "", "", "11.0", "run1", "'model.widths=[64,32]'"],
    ]


def test_the_csv_has_the_columns_of_all_jobs(tmp_path: Path) -> None:
    """A key or metric that only one has is a column."""
    rows = [row(0, {"a": 1}, 0.9), row(1, {"b": 2}, 0.8, extra=1.5)]

    written(tmp_path, rows)

    assert cells(tmp_path)[0][:6] == ["number", "a", "b", "status", "val/accuracy", "extra"]


def test_the_json_has_the_best_by_its_mean(tmp_path: Path) -> None:
    """With all its runs, and the command that repeats it with all its seeds."""
    rows = [*seeds(0, 64, [0.99, 0.80]), *seeds(2, 128, [0.90, 0.92])]

    best = written(tmp_path, rows)["best"]

    assert best["mean"] == pytest.approx(0.91)
    assert best["sd"] == pytest.approx(0.0141421, rel=1e-5)
    del best["mean"], best["sd"]
    assert best == {
        "values": {"model.units": "128"},
        "n": 2,
        "numbers": [2, 3],
        "run_ids": ["run2", "run3"],
        "command": "pipeline train -m model.units=128 seed=0,1",
    }


def test_the_json_counts_by_status(tmp_path: Path) -> None:
    """Only those that occur."""
    rows = [row(0, {"a": 1}, 0.9), row(1, {"a": 2}, status="PRUNED"), row(2, {"a": 3}, status="PRUNED")]

    assert written(tmp_path, rows)["counts"] == {"FINISHED": 1, "PRUNED": 2}


def test_the_json_has_null_for_nan(tmp_path: Path) -> None:
    """A diverged job does not make the file unreadable."""
    value = written(tmp_path, [row(0, {"a": 1}, math.nan, loss=math.inf)])

    assert value["rows"][0]["metrics"] == {"val/accuracy": None, "val/loss": None}
    assert value["best"] is None


def test_one_seed_has_null_for_its_spread(tmp_path: Path) -> None:
    """0 would claim that there is none."""
    assert written(tmp_path, [row(0, {"a": 1}, 0.9)])["best"]["sd"] is None


def test_a_second_summary_takes_the_place_of_the_first(tmp_path: Path) -> None:
    """As a sweep that goes on writes it again; nothing else is left in the folder."""
    written(tmp_path, [row(0, {"a": 1}, 0.9)])
    written(tmp_path, [row(0, {"a": 1}, 0.9), row(1, {"a": 2}, 0.95)])

    assert len(cells(tmp_path)) == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["summary.csv", "summary.json"]


# ---------------------------------------------------------------- terminal


def test_the_table_has_a_line_a_configuration() -> None:
    """Best first and marked; short names; mean, spread and n of the seeds."""
    rows = [*seeds(0, 64, [0.9500, 0.9520]), *seeds(2, 128, [0.9600, 0.9640])]

    assert table(rows, [ACCURACY]) == [
        ["#", "units", "val/accuracy", "n", "time"],
        ["1*", "128", "0.9620", "±", "0.0028", "2", "12.5", "s"],
        ["2", "64", "0.9510", "±", "0.0014", "2", "10.5", "s"],
    ]


def test_a_lost_seed_shows_in_n() -> None:
    """And is said below the table."""
    rows = [*seeds(0, 64, [0.95, 0.96]), *seeds(2, 128, [0.97])]
    rows.append(row(3, {"model.units": 128, "seed": 1}, status="FAILED"))

    assert [line[3] for line in table(rows, [ACCURACY])[1:]] == ["±", "1/2"]
    assert "Fewer finished seeds than the others: 1 of 2 configurations, see n." in printed(rows, [ACCURACY])


@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_no_number_is_cut(width: int) -> None:
    """Six keys and two objectives: columns are left out, folded or share a column."""
    rows = [row(n, SIX, 0.9512 + n / 1000, loss=0.12345, num_weights=407050.0) for n in range(3)]

    text = printed(rows, [ACCURACY, WEIGHTS], width)

    top = text[: text.index("jobs finished")]
    for number in ("0.9532", "0.9512", "407,050", "0.001235", "0.1996", "0.005913", "[256,128,64]"):
        assert number in top
    assert "…" not in top
    assert max(map(len, top.splitlines())) <= width


def test_six_keys_fit_into_80_columns() -> None:
    """A line each; the long title is folded."""
    values = {key.replace("decay", "decay_rate"): value for key, value in SIX.items()}

    lines = table([row(n, values, loss=0.12345 + n) for n in range(3)], [LOSS])

    assert lines[:2] == [["weight_"], ["decay_"]]
    assert lines[2] == ["#", "optimizer", "lr", "units", "dropout", "widths", "rate", "val/loss"]
    assert lines[3] == ["1*", "rmsprop", "0.001235", "128", "0.1996", "[256,128,64]", "0.005913", "0.1235"]


def test_a_long_table_ends_with_how_many_more() -> None:
    """15 are shown."""
    rows = [row(number, {"optimizer.lr": number}, 0.9 - number / 100) for number in range(52)]

    assert table(rows, [ACCURACY])[-2][0] == "15"
    assert "… and 37 more in summary.csv" in printed(rows, [ACCURACY])


def test_what_was_not_ranked_is_on_one_line() -> None:
    """Each status in its word, and the first line of the first reason."""
    rows = [
        row(0, {"a": 0}, 0.9),
        row(1, {"a": 1}, math.nan),
        row(2, {"a": 2}, status="FAILED", reason="CUDA out of memory\nTraceback"),
        row(3, {"a": 3}, status="KILLED", reason="killed by SIGKILL"),
        row(4, {"a": 4}, status="PRUNED"),
        row(5, {"a": 5}, status="WAITING"),
        row(6, {"a": 6}, status="RUNNING"),
    ]

    assert (
        "2 of 7 jobs finished; not ranked: 1 failed, 1 killed, 1 pruned, 1 still running, 1 never started, "
        "1 without a finite val/accuracy (job 2: CUDA out of memory)\n"
    ) in printed(rows, [ACCURACY])


def test_the_best_can_be_repeated_by_a_copy_of_one_line() -> None:
    """Quoted for the shell, with the exact value and not the rounded one, unbroken however long."""
    command = (
        "repeat  pipeline train optimizer=rmsprop optimizer.lr=0.0012345678901234 model.units=128 "
        "model.dropout=0.19961148827 'model.widths=[256,128,64]' optimizer.weight_decay=0.00591273051060851"
    )

    assert command in printed([row(0, SIX, 0.9)], [ACCURACY]).splitlines()


def test_the_end_says_how_far_the_best_can_be_believed() -> None:
    """That it was chosen, the second, and whether the difference is more than chance."""
    rows = [*seeds(0, 64, [0.90, 0.92, 0.94]), *seeds(3, 128, [0.89, 0.91, 0.93])]

    assert printed(rows, [ACCURACY]).endswith(
        "Best of 2 configurations on the validation split: its own score is optimistic.\n"
        "Second: 0.9100 ± 0.020 with units=128.\n"
        "The best cannot be told apart from the second (p = 0.57, n = 3 and 3).\n"
    )


def test_two_objectives_mark_the_front() -> None:
    """With a star each, and a sentence that explains it."""
    rows = [row(n, {"a": n}, 0.9 + n / 100, num_weights=float(100 * n + 1)) for n in range(2)]
    rows.append(row(2, {"a": 2}, 0.89, num_weights=150.0))

    assert [line[0] for line in table(rows, [ACCURACY, WEIGHTS])[1:]] == ["1*", "2*", "3"]
    assert "On the Pareto front of val/accuracy and num_weights (*): 2 of 3, none beaten in both." in " ".join(
        printed(rows, [ACCURACY, WEIGHTS]).split()
    )


def test_without_a_finished_job_there_is_no_best() -> None:
    """One line, and no error."""
    rows = [row(0, {"a": 1}, status="FAILED", reason="boom")]

    assert printed(rows, [LOSS]) == "0 of 1 jobs finished; not ranked: 1 failed (job 0: boom)\n"


def test_a_value_that_looks_like_markup_is_shown_as_it_is() -> None:
    """Rich would take [bold] for itself."""
    assert "[bold]" in printed([row(0, {"model.widths": "[bold]"}, 0.9)], [ACCURACY])


@pytest.mark.parametrize(
    ("metric", "value", "text"),
    [
        ("val/accuracy", 0.95123, "0.9512"),
        ("val/accuracy", 1.0, "1.0000"),
        ("val/loss", 0.12, "0.1200"),
        ("val/loss", 2.0, "2.000"),
        ("val/loss", 0.0000123456, "1.235e-05"),
        ("val/loss", 5500.25, "5,500"),
        ("num_weights", 407050.0, "407,050"),
        ("val/loss", math.nan, ""),
    ],
)
def test_numbers_have_the_digits_that_mean_something(metric: str, value: float, text: str) -> None:
    """Four decimals for an accuracy, four significant ones for a loss, counts whole."""
    assert number_text(metric, value) == text


# ---------------------------------------------------------------- MLflow


def test_the_note_begins_with_the_best() -> None:
    """MLflow shows about three lines: the best, the counts, the command."""
    rows = [*seeds(0, 64, [0.9500, 0.9520]), row(2, {"model.units": 128, "seed": 0}, status="PRUNED")]

    assert note(rows, [ACCURACY]).splitlines()[:6] == [
        "best val/accuracy 0.9510 ± 0.0014 (n = 2) with `units=64`",
        "",
        "2 of 3 jobs finished; not ranked: 1 pruned",
        "",
        "```",
        "pipeline train -m model.units=64 seed=0,1",
    ]


def test_the_note_has_a_table_of_the_top_five() -> None:
    """In Markdown, numbers to the right."""
    rows = [row(number, {"optimizer.lr": number}, 0.9 - number / 100) for number in range(7)]

    lines = [line for line in note(rows, [ACCURACY]).splitlines() if line.startswith("|")]

    assert lines[:3] == ["| # | lr | val/accuracy |", "| --: | --: | --: |", r"| 1\* | 0 | 0.9000 |"]
    assert len(lines) == 7


def test_the_note_escapes_what_markdown_would_take() -> None:
    """A reason with HTML or a bar in it is text."""
    text = note([row(0, {"a": "x|y"}, 0.9), row(1, {"a": 1}, status="FAILED", reason="<Foo_bar> *")], [ACCURACY])

    assert r"job 1: \<Foo\_bar> \*" in text
    assert r"| x\|y |" in text


def test_the_note_without_a_finished_job_says_why() -> None:
    """In its first line."""
    rows = [row(0, {"a": 1}, status="FAILED", reason="boom")]

    assert note(rows, [LOSS]) == "no best yet: 0 of 1 jobs finished; not ranked: 1 failed (job 0: boom)"
