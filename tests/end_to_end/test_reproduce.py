"""`pipeline reproduce`: a run made again from what MLflow remembers, byte for byte, or what differs first."""

from __future__ import annotations

import re
import sys

import pytest

from pipeline.tracking import MODEL_TAG, RunRow
from project_maker import Project

pytestmark = pytest.mark.slow
TRAIN = (sys.executable, "-m", "pipeline.train")
REPRODUCE = (sys.executable, "-m", "pipeline", "reproduce")
SMALL = ("model.units=16", "trainer.num_epochs=2")
AGAIN = "The run was made again, byte for byte."


def newest(project: Project) -> RunRow:
    return project.store.rows(f"tags.`{MODEL_TAG}` != ''")[0]


def checked(text: str) -> dict[str, str]:
    """What was compared, and whether it was the same."""
    lines = [line.split() for line in text.splitlines() if line.startswith("  ")]
    return {words[0]: words[1] for words in lines}


def test_the_pipelines_run_of_three_commits_ago(project: Project) -> None:
    """Other code and settings since; the data comes from DVC's cache, the scores are compared too."""
    row = project.store.rows("metrics.`test/accuracy` > 0")[-1]
    project.git("checkout", "--quiet", "-b", "later")
    for number in range(3):
        with open(project.root / "src/pipeline/model/dense.py", "a", encoding="utf-8") as file:
            file.write(f"# later {number}\n")
        project.edit("conf/model/dense.yaml", f"units: {128 + number}", f"units: {129 + number}")
        project.commit_all(f"later {number}")
    before = project.status
    done = project.run(*REPRODUCE, row.run_id, PIPELINE_WARM="0")

    assert checked(done.text) == dict.fromkeys(
        ("environment", "code", "data", "weights", "metrics", "predictions"), "same"
    )
    assert "from DVC's cache" in done.text
    assert AGAIN in done.text.splitlines()
    assert project.status == before


def test_a_run_of_a_dirty_tree_and_a_job_of_a_sweep(project: Project) -> None:
    """What was never committed is in the run's patch: code, settings, a new file. The job's sums, in the order that the
    threads of a sweep's job give them.
    """
    project.edit("src/pipeline/model/dense.py", "Raw samples in", "Raw  samples in")
    project.edit("conf/optimizer/rmsprop.yaml", "lr: 1.0e-3", "lr: 2.0e-3")
    (project.root / "conf/experiment/mine.yaml").write_text("# @package _global_\nseed: 7\n")
    project.run(*TRAIN, "experiment=mine", *SMALL)
    dirty = newest(project)
    project.git("checkout", "--quiet", ".")
    project.git("clean", "--quiet", "--force", "conf")
    project.run(*TRAIN, "-m", "optimizer=adam,sgd", "model.normalization=layer", *SMALL)
    job = newest(project)
    first, second = (project.run(*REPRODUCE, row.run_id[:8]) for row in (dirty, job))

    assert (dirty.params["seed"], dirty.params["optimizer.lr"]) == ("7", "0.002")
    assert "and its uncommitted changes" in first.text
    assert "and its uncommitted changes" not in second.text
    for done in (first, second):
        assert set(checked(done.text).values()) == {"same"}
        assert done.text.splitlines()[-1] == AGAIN


def test_what_differs_first_is_named(project: Project) -> None:
    """A run whose store says that other weights came out, in other epochs; and one that torch 1.0 trained."""
    project.run(*TRAIN, *SMALL)
    row, client = newest(project), project.store.client
    history = project.store.artifacts(row.run_id) / "dvc/history.csv"
    lines = history.read_text().splitlines()
    history.write_text("\n".join([*lines[:-1], lines[-1].replace("1,", "1,9", 1)]) + "\n")
    client.set_tag(row.run_id, MODEL_TAG, "0" * 64)
    client.set_tag(row.run_id, "version.torch", "1.0")
    done = project.run(*REPRODUCE, row.run_id, expect=1)

    assert checked(done.text) == {
        "environment": "OTHER", "code": "same", "data": "same", "weights": "OTHER", "metrics": "OTHER"
    }  # fmt: skip
    assert "Not the same. What differs first: weights (sha256 000000000000 then, " in done.text
    assert "train/loss of epoch 2: 9" in done.text
    assert "The environment has changed: torch 1.0, now " in done.text


def test_what_cannot_be_made_again_is_said_at_once(project: Project) -> None:
    row, client = project.store.rows("metrics.`test/accuracy` > 0")[-1], project.store.client
    unknown = project.run(*REPRODUCE, "nonsense", expect=2)
    try:
        client.set_tag(row.run_id, "git.commit", "0" * 40)
        gone = project.run(*REPRODUCE, row.run_id, expect=1)
        client.set_tag(row.run_id, "git.commit", "none")
        without = project.run(*REPRODUCE, row.run_id, expect=1)
    finally:
        client.set_tag(row.run_id, "git.commit", row.tags["git.commit"])

    assert unknown.text.startswith("reproduce: error: nonsense: nothing is called so. Expected a run")
    assert f"commit 000000000000 of run {row.run_id[:8]} is not in this repository" in gone.text
    assert "began in no commit of git" in without.text
    for done in (unknown, gone, without):
        assert "Traceback" not in done.text


IN_PYTHON = """
import numpy as np, pipeline
arrays = np.arange(30 * 20, dtype=np.uint8).reshape(30, 5, 4), np.arange(30) % 3
for data in pipeline.load_data("mnist_5k"), pipeline.load_data(arrays, test_fraction=0.2):
    model = pipeline.Dense(16)
    model.fit(data, epochs=2, verbose=False, track="from Python")
    print(model.run_id)
"""


def test_a_fit_in_python_on_a_published_data_set_but_not_on_arrays(project: Project) -> None:
    """The data set is made anew from its group of conf/; of arrays there are digests alone."""
    said = project.run(sys.executable, "-c", IN_PYTHON).text
    published, arrays = re.findall(r"^[0-9a-f]{32}$", said, re.MULTILINE)
    again = project.run(*REPRODUCE, published)
    refused = project.run(*REPRODUCE, arrays, expect=1)

    assert set(checked(again.text).values()) == {"same"}
    assert again.text.splitlines()[-1] == AGAIN
    assert "was fitted in Python on data of your own (arrays)" in refused.text
