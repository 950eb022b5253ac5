"""Hydra's syntax as a space to search, and back."""

from __future__ import annotations

from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from pipeline.config.overrides import label_of
from pipeline.sweeps.search.space import Space, hydra_text, parse_space
from pipeline.system.errors import ConfigError


def space(*words: str) -> Space:
    return parse_space(words, loader=None)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("interval(1e-4,1e-1)", FloatDistribution(1e-4, 1e-1)),
        ("tag(log,interval(1e-4,1e-1))", FloatDistribution(1e-4, 1e-1, log=True)),
        ("interval(16,256)", FloatDistribution(16, 256)),
        ("int(interval(16,256))", IntDistribution(16, 256)),
        ("int(tag(log,interval(16,256)))", IntDistribution(16, 256, log=True)),
        ("tag(log,int(interval(16,256)))", IntDistribution(16, 256, log=True)),
        ("range(64,257,64)", IntDistribution(64, 256, step=64)),
        ("range(10,0,-3)", IntDistribution(1, 10, step=3)),
        ("tag(log,range(1,9))", IntDistribution(1, 8, log=True)),
        ("range(0.5,2,0.5)", FloatDistribution(0.5, 1.5, step=0.5)),
        ("rmsprop,adam", CategoricalDistribution(("rmsprop", "adam"))),
        ("choice(64,128)", CategoricalDistribution(("64", "128"))),
        ("[128],[64,64],null", CategoricalDistribution(("[128]", "[64,64]", "null"))),
        ("true,'a b'", CategoricalDistribution(("true", "'a b'"))),
    ],
)
def test_hydras_sweeps_are_optunas_distributions(text: str, expected: BaseDistribution) -> None:
    assert space(f"key={text}").distributions == {"key": expected}


def test_what_is_no_sweep_stays_fixed() -> None:
    """In the order of the command line, Hydra's own words left out; the last word about a key counts."""
    found = space("a=1", "b=1,2", "hydra.sweeper.n_trials=3", "c=x", "a=interval(0,1)", "b=3")

    assert list(found.distributions) == ["a"]
    assert found.fixed == ("b=3", "c=x")


def test_a_new_key_keeps_its_plus() -> None:
    found = space("+new=1,2")

    assert found.keys == ["new"]
    assert found.overrides({"+new": "1"}) == ["+new=1"]


@pytest.mark.parametrize("value", [1e-05, 0.004430375245218269, 0.1, 3.0, 1e300, 16, -3])
def test_a_sampled_number_reaches_the_job_exactly(value: float) -> None:
    parsed = OverridesParser.create().parse_override(f"key={hydra_text(value)}").value()

    assert parsed == value
    assert type(parsed) is type(value)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("0.004430375245218269", "0.00443"),
        ("1.2345678901234e-05", "1.235e-05"),
        ("-0.30000000000000004", "-0.3"),
        ("1e-3", "1e-3"),
        ("0.00012345", "0.00012345"),
        ("123456789012", "123456789012"),
        ("[0.123456789012]", "[0.123456789012]"),
        ("relu", "relu"),
    ],
)
def test_a_label_rounds_what_was_sampled_not_what_was_typed(text: str, shown: str) -> None:
    assert label_of([f"optimizer.lr={text}", "seed=1"], ["optimizer.lr"]) == f"lr={shown}"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("interval(1,0)", r"key=interval\(1,0\): `low <= high` must hold"),
        ("tag(log,interval(0,1))", "`low > 0` must hold"),
        ("tag(logarithmic,interval(1,2))", "the tag 'logarithmic' means nothing here; there is: log"),
        ("tag(log,choice(1,2))", "choices have no order"),
        ("tag(log,range(1,9,2))", "step"),
        ("tag(log,range(0.5,2,0.5))", "a range of floats has no logarithmic scale"),
        ("range(5,5)", "the range is empty"),
        ("range(1000000)", "more than 100,000 values"),
    ],
)
def test_a_sweep_that_means_nothing_is_refused(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        space(f"key={text}")


def test_hydras_own_mistakes_stay_hydras() -> None:
    with pytest.raises(HydraException, match="interval"):
        space("key=interval(1)")


def test_a_grid_has_every_value() -> None:
    found = space("a=range(1,6,2)", "b=x,y", "c=range(0.5,2,0.5)").grid()

    assert found == {"a": [1, 3, 5], "b": ["x", "y"], "c": [0.5, 1.0, 1.5]}


@pytest.mark.parametrize("text", ["interval(0,1)", "int(interval(1,3))"])
def test_a_grid_has_no_interval(text: str) -> None:
    with pytest.raises(ConfigError, match="the grid sampler tries every value, and an interval has too many"):
        space(f"key={text}").grid()


def test_corners_show_each_choice_and_each_end_once() -> None:
    found: list[dict[str, Any]] = list(space("a=interval(0,1)", "b=x,y,z", "c=range(3,4)").corners())

    assert found == [
        {"a": 0.0, "b": "x", "c": 3},
        {"a": 1.0, "b": "x", "c": 3},
        {"a": 0.0, "b": "y", "c": 3},
        {"a": 0.0, "b": "z", "c": 3},
    ]
