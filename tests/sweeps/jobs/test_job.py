"""What an earlier start of a sweep found in a job."""

from __future__ import annotations

from typing import Any

import pytest

from config.config_makers import settings
from pipeline.sweeps.jobs.job import FailedBefore, earlier_values
from pipeline.tracking import RunRow


def run(status: str, **tags: str) -> RunRow:
    values: dict[str, Any] = {"metrics": {"val/loss": 0.5, "kept_val_loss": 0.4}, "params": {}, "tags": tags}
    return RunRow(run_id="a", experiment_id="1", name="n", status=status, start_ms=0, end_ms=None, **values)


def test_a_finished_job_gives_the_value_of_its_kept_epoch() -> None:
    """Not the last epoch's."""
    assert earlier_values(run("FINISHED"), settings(), retry_failed=False) == 0.4


def test_a_failed_job_is_run_again_on_request_only() -> None:
    """Otherwise its reason is told again, in a line."""
    failed = run("FAILED", **{"exit.reason": "it diverged\nat some length"})

    with pytest.raises(FailedBefore, match=r"^failed before \(it diverged\); sweep.retry_failed=true runs it again$"):
        earlier_values(failed, settings(), retry_failed=False)
    assert earlier_values(failed, settings(), retry_failed=True) is None


@pytest.mark.parametrize("row", [None, run("KILLED")], ids=["new", "killed"])
def test_other_jobs_are_run(row: RunRow | None) -> None:
    """Those that nobody began, and those that were cut short."""
    assert earlier_values(row, settings(), retry_failed=False) is None
