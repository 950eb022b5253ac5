"""Ctrl-C, SIGTERM and SIGHUP as exceptions, held back while a run is being opened, written to or closed."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any, ClassVar, Self

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
SOON_S = 5.0  # what a block that is to end itself has for that: batch systems give it 10 s or more before SIGKILL


class Interrupts:
    """Takes over the three signals for a ``with`` block and gives them back after it.

    The first signal raises inside ``allowed()``, or waits for it, and there for the end of a ``held()``. A second one
    raises where that can take long, but cannot cut the closing of a run short; a third ends the process at once. A
    signal that is ignored (``nohup``) stays ignored. Outside the main thread Python cannot handle signals and nothing
    is taken over.
    """

    innermost: ClassVar[Interrupts | None] = None  # the one that handles the signals now

    def __init__(self) -> None:
        self.caught: int | None = None  # number of the first signal
        self._count = 0
        self._raising = False
        self._patience = 2
        self._at_most_s: float | None = None
        self._late = False
        self._timer = 0.0, 0.0  # somebody else's, with what it had left
        self._outer: Interrupts | None = None
        self._saved: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            taken = [number for number in SIGNALS if signal.getsignal(number) not in (signal.SIG_IGN, None)]
            self._saved = {number: signal.signal(number, self._handle) for number in taken}
            self._outer, Interrupts.innermost = Interrupts.innermost, self
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if signal.SIGALRM in self._saved:
            signal.setitimer(signal.ITIMER_REAL, *self._timer)
        for number, handler in self._saved.items():
            signal.signal(number, handler)
        if Interrupts.innermost is self:
            Interrupts.innermost = self._outer
        if error is None:
            self._deliver()

    @contextmanager
    def allowed(self) -> Iterator[None]:
        """Where a signal may raise. One that came before, or that the block swallowed, raises at the edge."""
        self._raising = True
        try:
            self._deliver()
            yield
        finally:
            self._raising = False
        self._deliver()

    @contextmanager
    def held(self, patience: int = 2, at_most_s: float | None = None) -> Iterator[None]:
        """A part of ``allowed()`` at whose end a signal raises, not amid it, unless there are more than `patience`.

        The first one counts once more `at_most_s` after it came, in this part and in those within it.
        """
        before = self._raising, self._patience, self._at_most_s
        self._raising, self._patience, self._at_most_s = False, patience, at_most_s or self._at_most_s
        try:
            yield
        finally:
            self._raising, self._patience, self._at_most_s = before
        if self._raising or self._too_many():
            self._deliver()

    def _deliver(self) -> None:
        if self.caught is not None:
            raise SystemExit(128 + self.caught)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self._count += 1
        if self._count > 2:
            os._exit(128 + number)
        first = self.caught is None
        if first:
            self.caught = number
            if self._at_most_s:
                self._saved[signal.SIGALRM] = signal.signal(signal.SIGALRM, self._remind)
                self._timer = signal.setitimer(signal.ITIMER_REAL, self._at_most_s)
        if (first and self._raising) or self._too_many():
            raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(128 + number)

    def _remind(self, number: int, frame: FrameType | None) -> None:
        self._late = True
        if self._too_many():
            self._deliver()

    def _too_many(self) -> bool:
        return self._count + self._late > self._patience


@contextmanager
def later_signals(wanted: bool = True) -> Iterator[Callable[[], bool]]:
    """Whether a signal has come, for a block that ends itself when one has.

    After SOON_S, or with a second signal at once, it raises all the same. If it is not wanted, or if no run is open in
    this thread, signals do what they did before.
    """
    interrupts = Interrupts.innermost
    if not wanted or interrupts is None or threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    with interrupts.held(patience=1, at_most_s=SOON_S):
        yield lambda: interrupts.caught is not None


class Uncut:
    """The methods of an object that a signal does not cut short: it waits for the call's end.

    A call of MLflow's client that is cut short leaves its transaction open for as long as the traceback lives, so the
    run could not be marked as ended: SQLite lets one writer in at a time.
    """

    def __init__(self, whole: Any) -> None:
        self._whole = whole

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._whole, name)
        if not callable(found):
            return found

        def call(*args: Any, **kwargs: Any) -> Any:
            interrupts = Interrupts.innermost
            if interrupts is None or threading.current_thread() is not threading.main_thread():
                return found(*args, **kwargs)
            with interrupts.held():
                return found(*args, **kwargs)

        return call
