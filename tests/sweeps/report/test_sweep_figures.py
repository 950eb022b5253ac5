"""The pictures of a sweep: axes, what is drawn on them, and that the same rows give the same bytes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from row_makers import ACCURACY, LOSS, WEIGHTS, row, seeds

from pipeline.evaluation.figures import ORANGE, save
from pipeline.sweeps.report.figures import Scale, against_parameters, importances, parallel_coordinates
from pipeline.sweeps.report.rows import Row


def grid() -> list[Row]:
    """3 × 2 jobs; 256 units and adam are best."""
    return [
        row(n, {"model.units": units, "optimizer": optimizer}, 0.8 + units / 4000 + (optimizer == "adam") / 100)
        for n, (units, optimizer) in enumerate((u, o) for u in (64, 128, 256) for o in ("sgd", "adam"))
    ]


def axis(figure: Figure, name: str) -> Axes:
    return next(axes for axes in figure.axes if axes.get_label() == name)


def panel(figure: Figure, name: str) -> Axes:
    return next(axes for axes in figure.axes if axes.get_xlabel() == name)


def orange(axes: Axes) -> list[list[float]]:
    """The points of what is drawn in orange, line by line."""
    return [np.ravel(line.get_ydata()).tolist() for line in axes.lines if to_hex(line.get_color()) == ORANGE]


def title(figure: Figure) -> str:
    return figure.get_suptitle()


# ---------------------------------------------------------------- scales


@pytest.mark.parametrize(
    ("texts", "kind"),
    [
        (["0.1", "0.2", "0.3"], "linear"),
        (["1e-4", "1e-2"], "log"),
        (["64", "128", "256"], "log"),
        (["1e-3", "3e-3", "1e-2"], "log"),
        (["0", "1", "1000"], "linear"),
        (["64"], "linear"),
        (["relu", "tanh"], "category"),
        (["0.1", "null"], "category"),
        (["[64,32]", "[64]"], "category"),
    ],
)
def test_a_scale_follows_its_values(texts: list[str], kind: str) -> None:
    """Logarithmic for geometric series and for two decades, if all are above zero."""
    assert Scale.of(texts).kind == kind


def test_an_even_sample_of_two_decades_stays_linear() -> None:
    """A dropout between 0.003 and 0.6 was not sampled on a logarithmic scale."""
    assert Scale.of([f"{n / 300:.4f}" for n in range(1, 180)]).kind == "linear"


def test_a_log_scale_can_be_asked_for() -> None:
    """By who knows that a narrow range was sampled so."""
    assert Scale.of(["0.1", "0.2", "0.3"], log=True).kind == "log"


def test_categories_begin_with_the_numbers() -> None:
    """In their order, the words after them."""
    assert [name for _, name in Scale.of(["null", "10", "9", "auto"]).ticks] == ["9", "10", "auto", "null"]


# ---------------------------------------------------------------- parallel coordinates


def test_each_key_and_objective_has_its_axis() -> None:
    """Numbers as numbers, words as words, under short names."""
    figure = parallel_coordinates(grid(), [ACCURACY])

    assert [text.get_text() for text in figure.axes[0].get_xticklabels()] == ["units", "optimizer", "val/accuracy"]
    assert axis(figure, "units").get_yscale() == "log"
    assert [text.get_text() for text in axis(figure, "units").get_yticklabels()] == ["64", "128", "256"]
    assert [text.get_text() for text in axis(figure, "optimizer").get_yticklabels()] == ["adam", "sgd"]
    assert axis(figure, "val/accuracy").get_yscale() == "linear"


def test_each_configuration_is_a_line_on_its_values() -> None:
    """Where it crosses an axis is where the axis has its value."""
    figure = parallel_coordinates(grid(), [ACCURACY])
    host, units, score = figure.axes[0], axis(figure, "units"), axis(figure, "val/accuracy")

    (best,) = orange(host)
    assert len(host.lines) == 6
    for axes, share, value in ((units, best[0], 256), (score, best[2], 0.874)):
        _, height = axes.transAxes.inverted().transform(axes.transData.transform((0, value)))
        assert share == pytest.approx(height, abs=1e-9)


def test_seeds_are_one_line_at_their_mean() -> None:
    """The luckiest seed is not the best configuration."""
    figure = parallel_coordinates([*seeds(0, 64, [0.99, 0.80]), *seeds(2, 128, [0.90, 0.92])], [ACCURACY])

    low, high = axis(figure, "val/accuracy").get_ylim()
    (best,) = orange(figure.axes[0])
    assert low + best[-1] * (high - low) == pytest.approx(0.91)
    assert title(figure) == "orange: best of 2, val/accuracy 0.9100 ± 0.014 (n = 2)"


def test_what_failed_is_left_out_and_said() -> None:
    """Also what diverged."""
    rows = [*grid(), row(6, {"model.units": 512}, status="FAILED"), row(7, {"model.units": 32}, math.nan)]

    figure = parallel_coordinates(rows, [ACCURACY])

    assert len(figure.axes[0].lines) == 6
    assert title(figure).splitlines()[1] == "left out: 1 failed, 1 without a finite val/accuracy"


def test_two_objectives_have_the_front_in_orange() -> None:
    """Two of the three; job 2 is beaten in both."""
    rows = [row(n, {"a": n}, 0.9 + n / 100, num_weights=100.0 * (n + 1)) for n in range(2)]
    rows.append(row(2, {"a": 2}, 0.89, num_weights=150.0))

    figure = parallel_coordinates(rows, [ACCURACY, WEIGHTS])

    assert len(orange(figure.axes[0])) == 2
    assert title(figure) == "orange: the Pareto front, 2 of 3"


def test_nothing_but_seeds_has_no_best() -> None:
    """A line each; which is best would be luck."""
    figure = parallel_coordinates([row(n, {"seed": n}, 0.9 + n / 100) for n in range(4)], [ACCURACY])

    assert (len(figure.axes[0].lines), orange(figure.axes[0])) == (4, [])


def test_the_colour_bar_is_that_of_the_objective() -> None:
    """With its name and limits."""
    figure = parallel_coordinates(grid(), [ACCURACY])

    assert figure.axes[-1].get_ylabel() == "val/accuracy"
    assert figure.axes[-1].get_ylim() == axis(figure, "val/accuracy").get_ylim()


# ---------------------------------------------------------------- against parameters


def test_each_key_has_a_panel_with_all_jobs() -> None:
    """One dot a job at its value, the best in orange."""
    units = panel(against_parameters(grid(), [ACCURACY]), "units")

    jobs = next(line for line in units.lines if line.get_label() == "a job")
    assert units.get_xscale() == "log"
    assert sorted(np.asarray(jobs.get_xdata()).tolist()) == [64, 64, 128, 128, 256]
    assert orange(units) == [[pytest.approx(0.874)]]


def test_the_mean_of_the_seeds_is_drawn() -> None:
    """At each value that several jobs share."""
    figure = against_parameters([*seeds(0, 64, [0.90, 0.94]), *seeds(2, 128, [0.95, 0.97])], [ACCURACY])

    means = next(line for line in panel(figure, "units").lines if line.get_label() == "mean at this value")
    np.testing.assert_allclose(np.column_stack(means.get_data()), [[64, 0.92], [128, 0.96]])


def test_words_are_not_joined_by_a_line() -> None:
    """There is nothing between adam and sgd."""
    optimizer = panel(against_parameters(grid(), [ACCURACY]), "optimizer")

    means = next(line for line in optimizer.lines if line.get_label() == "mean at this value")
    assert means.get_linestyle() == "None"
    np.testing.assert_allclose(means.get_ydata(), [0.8 + 448 / 12000 + 0.01, 0.8 + 448 / 12000])


def test_each_objective_has_its_panels() -> None:
    """Accuracy above, weights below; a job without the second value is in the first alone."""
    rows = [row(n, {"a": n, "b": -n}, 0.9, num_weights=100.0 + n) for n in range(3)]
    rows.append(row(3, {"a": 3, "b": -3}, 0.8))

    figure = against_parameters(rows, [ACCURACY, WEIGHTS])

    assert [axes.get_ylabel() for axes in figure.axes] == ["val/accuracy", "", "num_weights", ""]
    dots = [sum(len(np.ravel(line.get_xdata())) for line in axes.lines) for axes in figure.axes]
    assert dots == [4, 4, 3, 3]


# ---------------------------------------------------------------- importances


def bars(figure: Figure) -> dict[str, float]:
    (axes,) = figure.axes
    names = [text.get_text() for text in axes.get_yticklabels()]
    return dict(zip(names, (bar.get_width() for bar in axes.patches), strict=True))


def noisy(num_jobs: int, num_words: int = 3) -> list[Row]:
    """The loss is a function of lr alone."""
    draw = np.random.default_rng(0)
    return [
        row(n, {"optimizer.lr": lr, "model.activation": f"word{draw.integers(num_words)}"}, loss=math.log10(lr) ** 2)
        for n, lr in enumerate(10 ** draw.uniform(-4, -1, num_jobs))
    ]


def test_what_matters_has_the_long_bar() -> None:
    """And is on top; the shares add up to one."""
    figure = importances(noisy(30), LOSS)

    assert figure is not None
    shares = bars(figure)
    assert list(shares) == ["activation", "lr"]
    assert shares["lr"] > 0.9
    assert sum(shares.values()) == pytest.approx(1)


@pytest.mark.parametrize(
    "rows",
    [
        noisy(3),
        [row(n, {"a": n}, loss=float(n)) for n in range(9)],
        [row(n, {"a": n, "b": 1}, loss=float(n)) for n in range(9)],
        [row(n, {"a": n, "b": -n}, loss=0.5) for n in range(9)],
        [row(n, {"a": n, "b": -n}, loss=float(n), status="PRUNED") for n in range(9)],
    ],
    ids=["three jobs", "one key", "one key that varies", "the same loss", "none finished"],
)
def test_too_little_to_tell_is_no_figure(rows: Sequence[Row]) -> None:
    """None, rather than bars that mean nothing."""
    assert importances(rows, LOSS) is None


@pytest.mark.timeout(60)
def test_many_words_take_no_longer() -> None:
    """optuna's time doubles with each category: 35 did not end in ten minutes."""
    figure = importances(noisy(60, num_words=40), LOSS)

    assert figure is not None
    assert bars(figure)["lr"] > 0.8


def test_importances_leave_optuna_s_messages_as_they_were() -> None:
    """Its level of logging is a global that a sampler of the same process may have set."""
    import optuna

    before = optuna.logging.get_verbosity()
    importances(noisy(10), LOSS)

    assert optuna.logging.get_verbosity() == before


# ---------------------------------------------------------------- all of them

CASES = {
    "grid": grid(),
    "seeds": seeds(0, 64, [0.9, 0.91]),
    "one job": [row(0, {"model.units": 64}, 0.9)],
    "equal": [row(n, {"a": n, "b": "x"}, 0.9) for n in range(5)],
    "a key that one job lacks": [row(0, {"a": 1}, 0.9), row(1, {"a": 2, "b": 3}, 0.8)],
    "40 words": [row(n, {"a": f"a very long word {n}"}, 0.9 + n / 1000) for n in range(40)],
    "nothing finished": [row(0, {"a": 1}, status="FAILED")],
    "no jobs": [],
}


@pytest.mark.parametrize("rows", CASES.values(), ids=CASES)
@pytest.mark.parametrize("make", [parallel_coordinates, against_parameters])
def test_the_same_rows_give_the_same_bytes(make: object, rows: list[Row], tmp_path: Path) -> None:
    """Whatever the order of the rows."""
    save(make(rows, [ACCURACY]), tmp_path / "a.png")  # type: ignore[operator]
    save(make(rows[::-1], [ACCURACY]), tmp_path / "b.png")  # type: ignore[operator]

    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
