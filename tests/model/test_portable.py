"""A saved model comes back as it was, or not at all."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from config.config_makers import train_config
from pipeline.model import DESCRIPTION, WEIGHTS
from pipeline.model.dense import DenseNetwork, InputSpec
from pipeline.model.portable import Probabilities, load_model, save_model
from pipeline.system.errors import PipelineError
from pipeline.system.files import sha256_of

CLASSES = ["cat", "dog", "Österreich"]
TABLE = InputSpec((3,), "float32", (1.0, -2.0, 0.5), (2.0, 4.0, 0.25))
TRAINING = {"kept_epoch": 2, "data_sha256": "d"}
CHANGES = {"model.units": [4, 5], "model.normalization": "batch", "model.dropout": 0.3}


def make(folder: Path, seed: int = 0) -> DenseNetwork:
    """A small network with batch normalization that has seen a batch, saved in `folder`."""
    cfg = train_config(CHANGES).model
    torch.manual_seed(seed)
    network = DenseNetwork(cfg, TABLE, len(CLASSES))
    network.train()(torch.randn(8, 3))
    save_model(folder, network, cfg, TABLE, CLASSES, TRAINING)
    return network.eval()


def describe(folder: Path, **changes: Any) -> None:
    """Change the description of a saved model; None removes a key."""
    values = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8")) | changes
    kept = {key: value for key, value in values.items() if value is not None}
    (folder / DESCRIPTION).write_text(json.dumps(kept), encoding="utf-8")


def refusal(folder: Path) -> str:
    with pytest.raises(PipelineError) as caught:
        load_model(folder)
    return str(caught.value)


def test_a_model_gives_the_same_logits_after_a_round_trip(tmp_path: Path) -> None:
    """Weights, running means, scaling and architecture all come back."""
    network = make(tmp_path)
    rows = torch.from_numpy(np.random.default_rng(0).normal(size=(9, 3)).astype(np.float32))
    loaded = load_model(tmp_path)

    with torch.no_grad():
        assert torch.equal(loaded.network(rows), network(rows))


def test_a_model_knows_what_it_is_after_a_round_trip(tmp_path: Path) -> None:
    """Classes, input, origin and digest are in the description; the network is ready to answer."""
    make(tmp_path)
    loaded = load_model(tmp_path)

    assert (loaded.classes, loaded.input, loaded.training) == (CLASSES, TABLE, TRAINING)
    assert loaded.model_sha256 == sha256_of(tmp_path / WEIGHTS)
    assert not loaded.network.training


def test_the_same_network_gives_the_same_bytes(tmp_path: Path) -> None:
    """Both files are a function of the network, so DVC sees no change where there is none."""
    make(tmp_path / "a")
    make(tmp_path / "b")
    make(tmp_path / "c", seed=1)

    for file in (WEIGHTS, DESCRIPTION):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
        assert (tmp_path / "a" / file).read_bytes() != (tmp_path / "c" / file).read_bytes()


def test_the_weights_are_read_without_our_code(tmp_path: Path) -> None:
    """safetensors alone opens the file; the description is plain JSON."""
    from safetensors.numpy import load_file

    network = make(tmp_path)
    weights = load_file(tmp_path / WEIGHTS)

    assert set(weights) == set(network.state_dict())
    np.testing.assert_array_equal(weights["head.weight"], network.head.weight.detach().numpy())


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize("file", [WEIGHTS, DESCRIPTION])
def test_a_missing_file_is_named(file: str, tmp_path: Path) -> None:
    """The message has its path and the command that makes it."""
    make(tmp_path)
    (tmp_path / file).unlink()

    assert refusal(tmp_path) == f"{tmp_path / file} is missing: train a model first: `dvc repro train`"


def test_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    """A well-formed file that is not the one described: the digest tells."""
    make(tmp_path / "a")
    make(tmp_path / "b", seed=1)
    (tmp_path / "b" / WEIGHTS).replace(tmp_path / "a" / WEIGHTS)

    assert f"{tmp_path / 'a' / WEIGHTS} is not what {DESCRIPTION} describes" in refusal(tmp_path / "a")


def test_a_single_flipped_bit_is_refused(tmp_path: Path) -> None:
    """In the last weight, where no parser would see it."""
    make(tmp_path)
    content = bytearray((tmp_path / WEIGHTS).read_bytes())
    content[-1] ^= 1
    (tmp_path / WEIGHTS).write_bytes(content)

    assert "expected sha256" in refusal(tmp_path)


@pytest.mark.parametrize("cut", [0, 4, 100])
def test_a_cut_file_is_refused(cut: int, tmp_path: Path) -> None:
    """Half a download says so and names the folder."""
    make(tmp_path)
    (tmp_path / WEIGHTS).write_bytes((tmp_path / WEIGHTS).read_bytes()[:cut])

    assert refusal(tmp_path).startswith(f"{tmp_path}: not a model of this pipeline")


def test_a_pickle_is_refused_unread(tmp_path: Path) -> None:
    """A file that would run code when unpickled runs none, even if the description vouches for it."""
    make(tmp_path)
    trap = tmp_path / "sprung"
    (tmp_path / WEIGHTS).write_bytes(pickle.dumps(Trap(str(trap))))
    describe(tmp_path, sha256={WEIGHTS: sha256_of(tmp_path / WEIGHTS)})

    assert "not a model of this pipeline" in refusal(tmp_path)
    assert not trap.exists()


class Trap:
    """Makes a file when it is unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (self.path, "w")


@pytest.mark.parametrize("key", ["architecture", "classes", "input", "sha256", "training"])
def test_a_description_that_lacks_a_part_is_refused(key: str, tmp_path: Path) -> None:
    """Each part is needed; the message says which is not there, and where."""
    make(tmp_path)
    describe(tmp_path, **{key: None})

    message = refusal(tmp_path)
    assert str(tmp_path) in message
    assert key in message


def test_a_description_of_other_widths_is_refused(tmp_path: Path) -> None:
    """Weights of 4 and 5 units do not go into a network of 6."""
    make(tmp_path)
    describe(tmp_path, architecture=train_config(CHANGES | {"model.units": [6]}).model.model_dump(mode="json"))

    assert refusal(tmp_path).startswith(f"{tmp_path}: weights and description do not fit")


def test_a_description_with_too_few_classes_is_refused(tmp_path: Path) -> None:
    """The head's width is the number of classes."""
    make(tmp_path)
    describe(tmp_path, classes=["cat", "dog"])

    assert "weights and description do not fit" in refusal(tmp_path)


def test_a_description_with_an_unknown_setting_is_refused(tmp_path: Path) -> None:
    """A model of a later version is not half understood; the message names the file's folder."""
    make(tmp_path)
    architecture = train_config(CHANGES).model.model_dump(mode="json") | {"depth": 3}
    describe(tmp_path, architecture=architecture)

    message = refusal(tmp_path)
    assert str(tmp_path) in message
    assert "depth" in message


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("shape", [0], "input.shape: Input should be greater than or equal to 1, found 0"),
        ("dtype", "int8", "input.dtype: Input should be 'uint8' or 'float32', found 'int8'"),
        ("offset", float("nan"), "input.offset: Input should be a finite number, found nan"),
        ("scale", [1.0, 2.0], "input: scale: expected one for each value of a sample, whose shape is (3,), found 2"),
        ("features", ["a"], "input: features: expected one for each value of a sample, whose shape is (3,), found 1"),
        ("size", 3, "input.size: Unexpected keyword argument, found 3"),
    ],
)
def test_an_input_that_is_none_is_refused_with_the_place(key: str, value: Any, message: str, tmp_path: Path) -> None:
    """Where, what was expected, what was found."""
    make(tmp_path)
    described = json.loads((tmp_path / DESCRIPTION).read_text(encoding="utf-8"))["input"]
    describe(tmp_path, input=described | {key: value})

    assert refusal(tmp_path) == f"{tmp_path}: not a model of this pipeline: {message}. `dvc checkout` brings it back"


@pytest.mark.parametrize("text", ["", "[]", "{", "\xff"])
def test_a_description_that_is_no_json_object_is_refused(text: str, tmp_path: Path) -> None:
    """A damaged description is a message, not a traceback."""
    make(tmp_path)
    (tmp_path / DESCRIPTION).write_bytes(text.encode("latin-1"))

    assert "not a model of this pipeline" in refusal(tmp_path)


# ---------------------------------------------------------------- as it is served


def test_probabilities_are_the_softmax_of_the_logits(tmp_path: Path) -> None:
    """(B, C), each row exp(logit) / sum, and it sums to 1."""
    network = make(tmp_path)
    rows = torch.randn(5, 3)
    with torch.no_grad():
        found, logits = Probabilities(network).eval()(rows).double().numpy(), network(rows).double().numpy()

    np.testing.assert_allclose(found, np.exp(logits) / np.exp(logits).sum(1, keepdims=True), atol=1e-6)
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-6)
