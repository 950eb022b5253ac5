"""Whether a new model becomes the champion: only if it is shown to be no worse by more than a margin.

A rejected model is no failure of the pipeline: it is registered, and a person may still promote it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pipeline.comparison.statistics import Interval, over_images
from pipeline.comparison.subjects import Member, Subjects
from pipeline.comparison.verdict import points
from pipeline.registry.versions import (
    DECISION_TAG,
    NOT_CONSIDERED,
    PROMOTED,
    REJECTED,
    Registry,
    decision_of,
    legal_name,
)
from pipeline.system.errors import PipelineError
from pipeline.system.locks import locked
from pipeline.tracking import Run, RunRow, Store
from pipeline.tracking.database import Version

LOCK = Path(".pipeline", "gate.lock")


@dataclass(frozen=True)
class Decision:
    """Whether a model becomes the champion, and why."""

    promoted: bool
    why: str
    against: Version | None = None
    interval: Interval | None = None  # of the new model's accuracy less the champion's, a fraction
    margin: float = 0.0

    @property
    def tags(self) -> dict[str, str]:
        """For the version and its run."""
        tags = {DECISION_TAG: PROMOTED if self.promoted else REJECTED, "champion.why": self.why}
        if self.against and self.interval:
            tags["champion.against"] = str(self.against)
            for name in ("difference", "low", "high", "p"):
                tags[f"champion.{name}"] = f"{getattr(self.interval, name):.6g}"
            tags["champion.margin"] = f"{self.margin:g}"
        return tags


def decide(new: Member, champion: Member, against: Version, margin: float) -> Decision:
    """Non-inferiority: the 95 % interval of the difference, paired by test sample, lies above minus the margin.

    Args:
        margin: a difference in accuracy that nobody minds, as a fraction.
    """
    first, second = (
        (member.answers.test_set, member.answers.classes, len(member.answers.labels)) for member in (champion, new)
    )
    if first != second:
        why = f"{against} was scored on other test samples, so the two cannot be compared"
        return Decision(False, why, against, None, margin)
    interval = over_images(champion.answers.right[None], new.answers.right[None])
    numbers = f"{points(interval.difference)} points, 95 % interval {points(interval.low)} to {points(interval.high)}"
    promoted = interval.low > -margin
    verdict = "no worse" if promoted else "not shown to be no worse"
    why = f"{verdict} than {against} by more than {margin * 100:.2f} points: {numbers}"
    return Decision(promoted, why, against, interval, margin)


def register_candidate(root: Path, run: Run, model_id: str, margin: float, *, may_promote: bool) -> str:
    """Register the model of a run that was evaluated, and decide once whether it is champion. Returns a line about it.

    The registered model is called after the run's experiment.

    Args:
        may_promote: False: the champion stays; for a model that is scored by hand.
    """
    store = Store(root)
    row = store.row(run.id)
    name = legal_name(store.experiment_name(row.experiment_id))
    registry = Registry(store)
    with locked(root / LOCK):  # of two at once the second is compared with the first
        version, champion = registry.register(name, run.id, model_id), registry.champion(name)
        if DECISION_TAG in version.tags:
            _finish(registry, version)
            return f"{version} before this, {'and @champion' if champion == version else 'not the champion'}"
        if not may_promote:
            registry.tag(version, {DECISION_TAG: NOT_CONSIDERED}, f"{NOT_CONSIDERED}: scored by hand")
            return f"{version}, by hand: pipeline champion {version.number} would make it the champion"
        decision = _decision(Subjects(store), row, champion, margin)
        run.tags({"registered": str(version), **decision.tags})
        registry.tag(version, decision.tags, f"{decision.tags[DECISION_TAG]}: {decision.why}")
        if decision.promoted:
            registry.promote(version)
    return f"{version} {'is @champion' if decision.promoted else 'is not the champion'}: {decision.why}"


def _finish(registry: Registry, version: Version) -> None:
    """What a kill between the decision and the deed left undone."""
    if decision_of(version) == PROMOTED and version.number not in registry.history(version.name):
        registry.promote(version)


def _decision(sides: Subjects, row: RunRow, champion: Version | None, margin: float) -> Decision:
    if champion is None:
        return Decision(True, "the first, there is no champion to compare it with")
    try:
        old = sides.champion(champion).members[0]
    except PipelineError as error:
        return Decision(False, f"{champion} cannot be compared with: {error}", champion, None, margin)
    return decide(sides.of_run(row), old, champion, margin)
