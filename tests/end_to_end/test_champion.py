"""`dvc repro` registers what it evaluates; a gate, or a person, decides who is @champion; predict and compare know."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.registry.versions import Registry
from pipeline.system.files import read_json
from pipeline.tracking import Store
from pipeline.tracking.database import Version
from project_maker import Project

pytestmark = pytest.mark.slow
PYTHON = (sys.executable, "-m")
CHAMPION = (*PYTHON, "pipeline", "champion")
PREDICT = (*PYTHON, "pipeline", "predict")
IMAGES = "data/processed/test/images.npy"


@pytest.fixture
def fresh(project: Project, tmp_path: Path) -> Project:
    """A copy whose registry a test may fill; the network in models/ is the champion."""
    copy = project.copy(tmp_path / "work")
    registry, run_id = Registry(copy.store), read_json(copy.root / "models/run.json")["run_id"]
    (own,) = [version for version in registry.versions("mnist-dense") if version.run_id == run_id]
    registry.promote(own)
    return copy


def newest(project: Project) -> Version:
    return Registry(Store(project.root)).versions("mnist-dense")[0]


def champion(project: Project) -> int:
    found = Registry(Store(project.root)).champion("mnist-dense")
    assert found is not None
    return found.number


def units(project: Project, count: int) -> str:
    """Train and evaluate a network of one hidden layer of this width under DVC."""
    return project.run("dvc", "exp", "run", "-S", f"model.units=[{count}]").text


def test_promoted_rolled_back_and_promoted_again(fresh: Project) -> None:
    """A worse network is rejected and fails nothing; a better one becomes champion, with the numbers on its version."""
    first, next_one = champion(fresh), newest(fresh).number + 1
    worse, better = f"version {next_one} of mnist-dense", f"version {next_one + 1} of mnist-dense"
    assert f"{worse} is not the champion: not shown to be no worse than version {first}" in units(fresh, 2)
    assert champion(fresh) == first
    fresh.run(*CHAMPION, str(next_one))
    assert champion(fresh) == next_one
    assert f"{better} is @champion: no worse than {worse} by more than 1.00 points" in units(fresh, 1024)
    assert champion(fresh) == next_one + 1

    version = newest(fresh)
    run = fresh.store.row(str(version.run_id))
    for tags in (version.tags, run.tags):
        assert tags["champion.decision"] == "promoted"
        assert float(tags["champion.low"]) > 0.1
        assert tags["champion.against"] == worse
    assert run.tags["registered"] == str(version) == better

    assert f"{worse} is @champion again, {better} no longer" in fresh.run(*CHAMPION, "--back").text
    fresh.run("dvc", "repro", "--force", "--single-item", "evaluate")  # scored again, it is not considered again
    assert champion(fresh) == next_one
    fresh.run(*CHAMPION, str(next_one + 1))
    assert champion(fresh) == next_one + 1
    shown = next(line for line in fresh.run(*CHAMPION).text.splitlines() if line.startswith("@champion"))
    assert f" {next_one + 1} " in shown
    assert "promoted by hand" in shown
    (found,) = json.loads(fresh.run(*PYTHON, "pipeline", "compare", "main", "@champion", "--format", "json").text)
    assert found["b"]["run_ids"] == [version.run_id]
    assert "mnist-dense has no version 99" in fresh.run(*CHAMPION, "99", expect=2).text


def test_a_model_that_is_scored_by_hand_is_registered_alone(fresh: Project) -> None:
    first = champion(fresh)
    fresh.run(*PYTHON, "pipeline.train", "model.units=1024")
    folder = max(fresh.root.glob("outputs/train/*/models")).relative_to(fresh.root)
    said = fresh.run(*PYTHON, "pipeline.evaluate", f"evaluate.model_folder={folder}").text
    assert f"pipeline champion {newest(fresh).number} would make it the champion" in said
    assert champion(fresh) == first


def test_other_test_images_decide_nothing(fresh: Project) -> None:
    """The champion learned other classes: nothing is compared, nothing fails."""
    first = champion(fresh)
    rng = np.random.default_rng(0)
    for kind, brightness in (("dark", 60), ("light", 200)):
        folder = fresh.root.parent / f"leaves/{kind}"
        folder.mkdir(parents=True)
        for number in range(20):
            pixels = rng.normal(brightness, 10, (20, 30)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"{number}.png")
    path = fresh.root.parent / "leaves"
    said = fresh.run("dvc", "exp", "run", "-S", "data=image_folder", "-S", f"data.path={path}").text
    assert f"version {first} of mnist-dense was scored on other test samples" in said
    assert champion(fresh) == first
    table = fresh.run(*PREDICT, str(path / "dark/0.png"), "model=models").text
    assert "dark" in table
    assert "scaled from 30 x 20" in table
    assert "inverted" not in table


def test_the_champion_predicts(project: Project, tmp_path: Path) -> None:
    """Pictures, arrays and what is bad among them, as a table, CSV and JSON."""
    images = np.load(project.root / "data/processed/test/images.npy")[::50]
    np.save(tmp_path / "all.npy", images)
    (tmp_path / "digits").mkdir()
    for number, image in enumerate(images):
        page = Image.new("L", (300, 400), 250)
        page.paste(Image.fromarray(255 - image).resize((200, 200), Image.Resampling.BICUBIC), (60, 90))
        page.save(tmp_path / f"digits/{number}.png")
    (tmp_path / "digits/x.jpg").write_bytes(b"no picture")

    table = project.run(*PREDICT, str(tmp_path / "all.npy"))
    found = project.run(*PREDICT, str(tmp_path / "digits"), "model=@champion", "--format", "json", expect=1).text
    rows = json.loads(found[found.index("[\n") : found.rindex("]") + 1])
    comma = project.run(*PREDICT, str(tmp_path / "all.npy"), "model=models", "--format", "csv").text.splitlines()

    assert "@champion" in table.text
    assert "x.jpg: expected an image" in found
    assert "1 could not be read" in found
    assert [row["input"] for row in rows] == sorted(row["input"] for row in rows)
    plain = [line.split(",")[1] for line in comma if "all.npy[" in line]
    by_number = sorted(rows, key=lambda row: int(row["input"].rpartition("/")[2].removesuffix(".png")))
    assert np.mean([row["class"] == name for row, name in zip(by_number, plain, strict=True)]) >= 0.85
    assert all(sum(row["probabilities"].values()) == pytest.approx(1, abs=1e-5) for row in rows)
    assert all(row["done"].startswith("inverted, scaled") for row in rows)
    assert comma.count("input,class,probability,done,0,1,2,3,4,5,6,7,8,9") == 1


def test_a_reader_that_has_enough_is_no_error(project: Project) -> None:
    done = project.run("bash", "-c", "pipeline predict data/processed/test/images.npy --format csv | head -1")
    assert "Traceback" not in done.text


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((IMAGES, "model=nothing"), "model=nothing: nothing is called so"),
        (("model=models",), "nothing to predict"),
        ((IMAGES, "model=a", "model=b"), "expected one model, found 2: a, b"),
        ((IMAGES, "model=a", "--model", "b"), "expected one model, found 2: a, b"),
        ((IMAGES, "model=none@champion"), "no registered model is called none. Expected one of mnist-dense"),
    ],
)
def test_a_wrong_word_is_told(words: tuple[str, ...], said: str, project: Project) -> None:
    done = project.run(*PREDICT, *words, expect=2)
    assert said in done.text
    assert "Traceback" not in done.text
