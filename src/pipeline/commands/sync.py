"""pipeline sync: copy to a tracking server what it does not have of the runs in mlflow.db.

Runs that are complete there cost nothing, so it may be started again at will. What is edited on the server stays there.
"""

from __future__ import annotations

import argparse

from pipeline.runtime.places import project_root
from pipeline.system.errors import PipelineError
from pipeline.system.startup import load
from pipeline.tracking.replica import server_from, sync_all, without_password
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
    copied, going, complete = sync_all(store, server)
    print(
        f"{without_password(server)}: {copied} copied, {complete} were complete"
        + (f", {going} not ended yet" if going else "")
    )
