"""Ctrl-C, SIGTERM and SIGHUP: how a run defers them, how a process off rank zero does, and a job of submitit."""

from __future__ import annotations

import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from types import FrameType, TracebackType
from typing import Any, ClassVar, Self

from pipeline.system.errors import PipelineError

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
STOP_WITHIN_S = 5.0  # for a block that ends itself: batch systems give it 10 s or more before SIGKILL
RANK_GRACE_S = 10  # within which the processes of a training end after the first one that ended

Handlers = dict[signal.Signals, Any]


def take_over(handler: Callable[[int, FrameType | None], object], numbers: Iterable[signal.Signals]) -> Handlers:
    """Have these signals handled here; those that are ignored (``nohup``) stay so. Returns what `give_back` needs."""
    taken = [number for number in numbers if signal.getsignal(number) not in (signal.SIG_IGN, None)]
    return {number: signal.signal(number, handler) for number in taken}


def give_back(handlers: Handlers) -> None:
    for number, handler in handlers.items():
        signal.signal(number, handler)


# ---------------------------------------------------------------- while a run is open


class DeferredSignals:
    """Takes over the three signals for a ``with`` block, at whose end one that came raises SystemExit(128 + n).

    Sections of the block decide when it raises earlier. In `interruptible` the first signal does, as an exception; in
    `deferred_stop` the second one, or the first one when STOP_WITHIN_S are over; in `critical`, and outside these
    sections, none does. What is due when a section ends raises there. A third signal ends the process at once.

    Args:
        hard_exit: False: a third signal does nothing, here and within. The process of a program that imports this
            package is not ours to end: three presses would cost a notebook all that it holds.

    Outside the main thread Python cannot handle signals and nothing is taken over.
    """

    current: ClassVar[DeferredSignals | None] = None  # the innermost one: it handles the signals now

    def __init__(self, *, hard_exit: bool = True) -> None:
        self.received: int | None = None  # number of the first signal
        self._hard_exit = hard_exit
        self._count = 0
        self._raises_at = 0  # which signal raises in this section: the first, the second; 0: none
        self._is_timed = False
        self._is_late = False  # STOP_WITHIN_S are over: counts as one more signal
        self._alarm: tuple[Any, tuple[float, float]] | None = None  # somebody else's, while ours is set
        self._handlers: Handlers = {}
        self._outer: DeferredSignals | None = None

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._handlers = take_over(self._handle, ENDING)
            self._outer, DeferredSignals.current = DeferredSignals.current, self
            self._hard_exit &= self._outer is None or self._outer._hard_exit
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        give_back(self._handlers)
        if DeferredSignals.current is self:
            DeferredSignals.current = self._outer
        if error is None and self.received is not None:
            raise SystemExit(128 + self.received)

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Where the first signal raises. One that came before, or that the block swallowed, raises at the edge."""
        with self._section(raises_at=1):
            self._raise_if_due()
            yield
            self._raise_if_due()

    def critical(self) -> AbstractContextManager[None]:
        """A part of the other sections that no signal cuts short."""
        return self._section(raises_at=0)

    @contextmanager
    def deferred_stop(self) -> Iterator[Callable[[], bool]]:
        """A part of `interruptible` that ends itself when what it is given returns True: a signal has come."""
        self._is_timed = True
        try:
            with self._section(raises_at=2):
                yield lambda: self.received is not None
        finally:
            self._is_timed = False
            if self._alarm:
                handler, timer = self._alarm
                signal.setitimer(signal.ITIMER_REAL, *timer)
                signal.signal(signal.SIGALRM, handler)

    @contextmanager
    def _section(self, raises_at: int) -> Iterator[None]:
        before = self._raises_at
        try:
            self._raises_at = raises_at
            yield
        finally:
            self._raises_at = before
        self._raise_if_due()

    def _raise_if_due(self) -> None:
        if self.received is not None and 0 < self._raises_at <= self._count + self._is_late:
            raise SystemExit(128 + self.received)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self._count += 1
        if self._count > 2 and self._hard_exit:
            os._exit(128 + number)
        if self._count == 1:
            self.received = number
            if self._is_timed:
                handler = signal.signal(signal.SIGALRM, self._handle_alarm)
                self._alarm = handler, signal.setitimer(signal.ITIMER_REAL, STOP_WITHIN_S)
        if self._count == self._raises_at:
            raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(128 + number)

    def _handle_alarm(self, number: int, frame: FrameType | None) -> None:
        self._is_late = True
        self._raise_if_due()


def deferred_signals() -> DeferredSignals | None:
    """Those of the run that is open in this thread."""
    return DeferredSignals.current if threading.current_thread() is threading.main_thread() else None


def deferred_stop(wanted: bool = True) -> AbstractContextManager[Callable[[], bool]]:
    """Whether a signal has come, for a block that ends itself when one has.

    If it is not wanted, or if no run is open in this thread, signals do what they did before.
    """
    signals = deferred_signals() if wanted else None
    return signals.deferred_stop() if signals else nullcontext(lambda: False)


class SignalSafeProxy:
    """An object whose methods no signal cuts short: it waits for the call's end.

    A call of MLflow's client that is cut short leaves its transaction open for as long as the traceback lives, so the
    run could not be marked as ended: SQLite lets one writer in at a time.
    """

    def __init__(self, target: Any) -> None:
        self._target = target

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._target, name)
        if not callable(attribute):
            return attribute

        def call(*args: Any, **kwargs: Any) -> Any:
            signals = deferred_signals()
            with signals.critical() if signals else nullcontext():
                return attribute(*args, **kwargs)

        return call


# ---------------------------------------------------------------- off rank zero, and in a job of submitit


@contextmanager
def exit_after_rank_zero() -> Iterator[None]:
    """Ctrl-C and SIGTERM reach all processes: rank zero ends, marks its run, and the others end because of that.

    If this one ended earlier, rank zero would see a broken connection instead of an interruption.
    """
    received: list[int] = []

    def handle(number: int, frame: FrameType | None) -> None:
        received.append(number)
        signal.alarm(RANK_GRACE_S)  # whose default action is to end the process

    handlers = take_over(handle, ENDING)
    try:
        yield
    except PipelineError as error:
        if received:
            raise SystemExit(128 + received[0]) from error
        raise
    finally:
        give_back(handlers)


@contextmanager
def signals_as_failures() -> Iterator[None]:
    """In a job of submitit, a signal ends the block as a PipelineError; elsewhere this changes nothing.

    submitit ignores SIGTERM, and of a job that exits without an exception it learns nothing: where SLURM keeps no
    accounts, the sweep would wait for ever. It shall wait if SLURM will run the job once more.
    """
    if "SUBMITIT_EXECUTOR" not in os.environ:
        yield
        return
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        yield
    except SystemExit as error:
        if not isinstance(error.code, int) or error.code <= 128 or _is_requeued():
            raise
        name = signal.Signals(error.code - 128).name
        raise PipelineError(f"a job was ended by {name}; the same command again goes on with it") from error


def _is_requeued() -> bool:
    """Whether SLURM has this job in its queue again: it was preempted, or its time was up."""
    if "SLURM_JOB_ID" not in os.environ:
        return False
    import subprocess

    command = ("scontrol", "--oneliner", "show", "job", os.environ["SLURM_JOB_ID"])
    shown = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    restarts = re.search(r" Restarts=(\d+)", shown)
    return restarts is not None and int(restarts[1]) > int(os.environ.get("SLURM_RESTART_COUNT", 0))
