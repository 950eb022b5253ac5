"""pipeline sync: copy to a tracking server what it does not have of the runs in mlflow.db.

Runs that are complete there cost nothing, so it may be started again at will. What is edited on the server stays there.
"""

from __future__ import annotations

import argparse

from pipeline.runtime.places import project_root
from pipeline.system.errors import PipelineError
from pipeline.system.startup import load
from pipeline.tracking.replica import Replica, reason, server_from, shown
from pipeline.tracking.store import Store


def main(args: argparse.Namespace) -> None:
    """Say what was copied.

    Raises:
        PipelineError: no server is named, it does not answer, or there is nothing to copy.
    """
    server = server_from(args.server)
    if server is None:
        raise PipelineError("No server is named: give --server http://HOST:5000, or set MLFLOW_TRACKING_URI to that")
    store = Store(project_root())
    if not store.exists:
        raise PipelineError(f"There is nothing to copy: {store.root / 'mlflow.db'} does not exist")
    load("sync", "MLflow")
    store.reap()
    copied, going, had = sync_all(store, server)
    print(f"{shown(server)}: {copied} copied, {had} were complete" + (f", {going} not ended yet" if going else ""))


def sync_all(store: Store, server: str) -> tuple[int, int, int]:
    """Copy all runs. Returns how many were copied, how many of them are still going, and how many were complete.

    Raises:
        PipelineError: the server does not answer.
    """
    from mlflow.exceptions import MlflowException

    replica = Replica(store.root, store.client, server)
    copied = going = had = 0
    try:
        there = replica.ids()
        for row in reversed(store.rows("")):  # oldest first, as they came
            lost = len(there.get(row.run_id, [])) != 1
            if not lost and replica.is_complete(row.run_id):
                had += 1
                continue
            copied += 1
            going += not replica.copy(row.run_id, again=lost)
    except (MlflowException, OSError) as error:
        raise PipelineError(
            f"{shown(server)} does not answer ({reason(error, server)}). Copied before: {copied} runs. Nothing is "
            "lost: start this again when it does"
        ) from error
    return copied, going, had
