"""Who becomes champion: only what is shown to be no worse by more than the margin."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline.comparison.statistics import tango_interval
from pipeline.comparison.subjects import Answers, Member
from pipeline.registry import gate
from pipeline.registry.gate import decide, register_candidate
from pipeline.registry.versions import Registry
from pipeline.system.errors import PipelineError
from pipeline.tracking import Store
from pipeline.tracking.database import Version
from tracking.tracking_makers import Serve, make_images

HELD = Version("digits", 3, "r", "m", {})


def member(wrong: int, count: int = 1000, first: int = 0, test_set: str = "a") -> Member:
    """A network of two classes that gets `wrong` samples wrong, from the one called `first`."""
    labels = np.arange(count) % 2
    said = labels.copy()
    said[first : first + wrong] ^= 1
    return Member(
        Answers(np.log(np.eye(2, dtype=np.float32)[said] * 0.8 + 0.1), labels, ["x", "y"], test_set), {}, {}, "r"
    )


def test_a_better_network_is_promoted() -> None:
    found = decide(member(20), member(60), HELD, 0.01)
    low, high = tango_interval(40, 0, 1000)
    assert found.promoted
    assert found.why.startswith("no worse than version 3 of digits by more than 1.00 points: +4.00 points")
    assert found.tags == {
        "champion.decision": "promoted",
        "champion.why": found.why,
        "champion.against": "version 3 of digits",
        "champion.difference": "0.04",
        "champion.low": f"{low:.6g}",
        "champion.high": f"{high:.6g}",
        "champion.p": found.tags["champion.p"],
        "champion.margin": "0.01",
    }
    assert float(found.tags["champion.p"]) < 1e-6


@pytest.mark.parametrize(
    ("wrong", "count", "margin", "promoted"),
    [
        (60, 1000, 0.01, True),  # the same answers
        (63, 1000, 0.01, True),  # 0.3 points worse, and surely not 1
        (68, 1000, 0.01, False),  # 0.8 points worse, which may be 1.5
        (68, 1000, 0.02, True),  # nobody minds 2
        (80, 1000, 0.01, False),  # worse
        (3, 40, 0.01, False),  # too few samples to show anything
    ],
)
def test_the_margin_decides(wrong: int, count: int, margin: float, promoted: bool) -> None:
    held = 60 if count == 1000 else 2
    found = decide(member(wrong, count), member(held, count), HELD, margin)
    assert found.promoted is promoted
    assert found.tags["champion.decision"] == ("promoted" if promoted else "rejected")


def test_as_many_errors_on_other_samples_show_less() -> None:
    """Paired: 60 errors each, on other samples, leave more doubt than the same 60."""
    assert decide(member(60), member(60), HELD, 0.01).promoted
    assert not decide(member(60, first=500), member(60), HELD, 0.01).promoted


def test_other_test_samples_decide_nothing() -> None:
    found = decide(member(0, test_set="b"), member(60), HELD, 0.01)
    assert not found.promoted
    assert found.why == "version 3 of digits was scored on other test samples, so the two cannot be compared"


# ---------------------------------------------------------------- with a registry


def evaluated(store: Store, monkeypatch: pytest.MonkeyPatch, *, may_promote: bool = True, wrong: int = 60) -> str:
    """A run with a model is registered; every champion got 60 of 1,000 wrong. Returns what is said."""
    monkeypatch.setattr(gate.Subjects, "of_run", lambda self, row: member(wrong))
    monkeypatch.setattr(gate.Subjects, "champion", lambda self, version: type("Subject", (), {"members": [member(60)]}))
    with store.run("team/digits", "one") as run:
        model = run.model(Serve().eval(), make_images(2), name="dense", requirements=["torch"])
        said = register_candidate(store.root, run, model, 0.01, may_promote=may_promote)
        assert register_candidate(store.root, run, model, 0.01, may_promote=may_promote).startswith(
            said[:20]
        )  # once is enough
    return said


def killed(*_: object) -> None:
    raise KeyboardInterrupt


def number_of_champion(store: Store) -> int:
    found = Registry(store).champion("team-digits")
    assert found is not None
    return found.number


def test_a_model_is_judged_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first is champion, a worse one and one that was scored by hand are not; names are those of experiments."""
    assert "version 1 of team-digits is @champion: the first" in evaluated(store, monkeypatch)
    assert "is not the champion: not shown" in evaluated(store, monkeypatch, wrong=90)
    assert "pipeline champion 3 would make it" in evaluated(store, monkeypatch, wrong=0, may_promote=False)
    assert number_of_champion(store) == 1
    assert "version 4 of team-digits is @champion: no worse" in evaluated(store, monkeypatch, wrong=20)
    assert number_of_champion(store) == 4


@pytest.mark.parametrize("where", ["tag", "promote"])
def test_a_kill_between_registering_and_deciding_is_made_good(
    where: str, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stage that is started again judges the version that it finds, and promotes what was judged so."""
    evaluated(store, monkeypatch)
    with store.run("team/digits", "killed") as run:
        model = run.model(Serve().eval(), make_images(2), name="dense", requirements=["torch"])
        monkeypatch.setattr(gate.Subjects, "of_run", lambda self, row: member(20))
        with monkeypatch.context() as cut:
            cut.setattr(Registry, where, killed)
            with pytest.raises(KeyboardInterrupt):
                register_candidate(store.root, run, model, 0.01, may_promote=True)
        assert number_of_champion(store) == 1
        register_candidate(store.root, run, model, 0.01, may_promote=True)
    assert number_of_champion(store) == 2


def test_a_champion_whose_run_is_gone_keeps_the_new_one_out_and_fails_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluated(store, monkeypatch)
    held = Registry(store).champion("team-digits")
    assert held is not None
    store.client.delete_run(str(held.run_id))
    monkeypatch.undo()
    with store.run("team/digits", "next") as run:
        model = run.model(Serve().eval(), make_images(2), name="dense", requirements=["torch"])
        said = register_candidate(store.root, run, model, 0.01, may_promote=True)
    assert "cannot be compared with: version 1 of team-digits has no run in the store" in said
    assert number_of_champion(store) == 1


def test_damaged_predictions_are_one_error(tmp_path: Path) -> None:
    from pipeline.comparison.subjects import _kept_answers

    (tmp_path / "index.json").write_text("{}")
    with pytest.raises(PipelineError, match="expected the predictions that an evaluation kept"):
        _kept_answers(tmp_path)
