"""Ctrl-C, SIGTERM and SIGHUP as exceptions, held back while a run is being opened or closed."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any, Self

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupts:
    """Takes over the three signals for a ``with`` block and gives them back after it.

    The first signal raises inside ``allowed()``, or waits for it. A second one cannot cut the closing of a run short;
    a third ends the process at once. A signal that is ignored (``nohup``) stays ignored. Outside the main thread Python
    cannot handle signals and nothing is taken over.
    """

    def __init__(self) -> None:
        self.caught: int | None = None  # number of the first signal
        self._count = 0
        self._raising = False
        self._saved: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            taken = [number for number in SIGNALS if signal.getsignal(number) not in (signal.SIG_IGN, None)]
            self._saved = {number: signal.signal(number, self._handle) for number in taken}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for number, handler in self._saved.items():
            signal.signal(number, handler)
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

    def _deliver(self) -> None:
        if self.caught is not None:
            raise SystemExit(128 + self.caught)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self._count += 1
        if self._count > 2:
            os._exit(128 + number)
        if self.caught is None:
            self.caught = number
            if self._raising:
                raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(128 + number)
