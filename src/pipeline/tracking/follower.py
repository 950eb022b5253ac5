"""A thread that keeps a run's copy on the tracking server up to date. It never raises into the run, nor holds it up."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.tracking.replica import Replica, reason, shown

PERIOD_S, LONGEST_S = 5.0, 60.0  # between two looks; longer and longer while the server does not answer
LAST_LOOK_S = 5.0  # that the end of a run may wait for its last copy
CATCH_UP = "python -m pipeline.tracking sync"

log = logging.getLogger(__name__)


class Follower:
    """Copies a run now and then, and once more when it is closed."""

    def __init__(self, replica: Callable[[], Replica], run_id: str, server: str) -> None:
        self.run_id, self.server, self._address = run_id, shown(server), server
        self.complete, self._replica = False, replica
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="tracking server", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """After the run has ended. What the server does not have by then is left for a later catching up."""
        self._closing.set()
        self._thread.join(LAST_LOOK_S)
        if not self.complete:
            log.warning("%s does not have all of run %s yet. Later: %s", self.server, self.run_id, CATCH_UP)

    def _follow(self) -> None:
        replica, wait_s, last = None, 0.0, False
        while not last:
            last = self._closing.wait(wait_s)
            try:
                replica = replica or self._replica()
                self.complete = replica.copy(self.run_id)
                wait_s = PERIOD_S
            except Exception as error:
                if wait_s <= PERIOD_S:
                    why = reason(error, self._address)
                    log.warning("%s does not answer; the run goes on without it (%s)", self.server, why)
                wait_s = min(LONGEST_S, 2 * max(wait_s, PERIOD_S))


@contextmanager
def followed(root: Path, run_id: str, local_uri: str, server: str | None) -> Iterator[None]:
    """Have the run copied while the block goes, and a last time at its end; without a server nothing is done."""
    if server is None:
        yield
        return

    def replica() -> Replica:
        from mlflow import MlflowClient

        return Replica(root, MlflowClient(local_uri, local_uri), server)

    follower = Follower(replica, run_id, server)
    try:
        yield
    finally:
        follower.close()
