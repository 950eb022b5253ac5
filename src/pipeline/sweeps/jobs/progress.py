"""What a person sees while a sweep runs: a line for each job that runs now, a line for each that has ended."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.live import Live as RichLive
from rich.table import Table
from rich.text import Text

from pipeline.sweeps.jobs.job import Job
from pipeline.sweeps.jobs.pool import Ended, Running

REFRESHES_PER_S = 4


class Live:
    """On a terminal the running jobs are redrawn in place; elsewhere only what has ended is printed."""

    def __init__(self, count: int | None, console: Console | None = None) -> None:
        self.console = console or Console(soft_wrap=True, highlight=False)
        self.count, self.done = count, 0
        self._live = RichLive(console=self.console, transient=True, refresh_per_second=REFRESHES_PER_S)

    def __enter__(self) -> Self:
        if self.console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._live.stop()

    def show(self, running: Iterable[Running]) -> None:
        if not self._live.is_started:
            return
        table = Table.grid(padding=(0, 2))
        for one in running:
            table.add_row(*_line(one))
        self._live.update(table)

    def ended(self, job: Job, reason: str, ended: Ended | None) -> None:
        """One line; `ended` is None for a job of an earlier start."""
        self.done += 1
        of = f"/{self.count}" if self.count else ""
        if reason:
            text = Text(f"failed: {reason}", style="red")
        else:
            values = _metrics(ended.said) if ended else "done before"
            how = "  pruned" if ended and ended.said.get("pruned") else ""
            text = Text(f"{values}  {ended.elapsed_s:.0f} s{how}" if ended else values)
        self.console.print(Text(f"{self.done:>3}{of}  {job.label}  "), text, sep="")


def _line(running: Running) -> list[str]:
    said = running.said
    if "epoch" not in said:
        return [f"#{running.job.number}", running.job.label, "starting", "", ""]
    epoch, total = said["epoch"], said["num_epochs"]
    return [
        f"#{running.job.number}",
        running.job.label,
        f"epoch {epoch}/{total}",
        _metrics(said),
        "" if running.left_s is None else f"{running.left_s:.0f} s left",
    ]


def _metrics(said: Mapping[str, Any]) -> str:
    values = said.get("values", {})
    names = [name for name in ("val/loss", "val/accuracy") if name in values] or ["train/loss", "train/accuracy"]
    return "  ".join(f"{name} {values[name]:.4f}" for name in names if name in values)
