"""A mistake in a configuration is refused, and the message leads to the right key."""

from __future__ import annotations

from typing import Any

import pytest

from config.config_makers import settings, whole_config
from pipeline.config.check import did_you_mean, refuse_blind_keys, validate
from pipeline.config.schema import Config
from pipeline.system.errors import ConfigError

SGD = {"_target_": "torch.optim.SGD", "lr": 0.1, "momentum": 0.9, "nesterov": False, "weight_decay": 0.0}
DEFORM = {
    "name": "deform", "copies": 9, "rotation_degrees": 10.0, "translation_px": 1.0, "scale": 0.1, "shear": 0.1,
    "elastic_px": 0.9, "elastic_sigma_px": 4.0, "fill": 0, "seed": 0,
}  # fmt: skip
FILE = {"file": "a.gz", "sha256": "0" * 64, "sha256_gz": None}


def refusal(changes: dict[str, Any]) -> str:
    with pytest.raises(ConfigError) as caught:
        whole_config(changes)
    return str(caught.value)


# ---------------------------------------------------------------- keys


@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("trainer.num_epoch", "trainer.num_epochs"),
        ("lr", "optimizer.lr"),
        ("model.unit", "model.units"),
        ("trainer.lr", "optimizer.lr"),
        ("data.validation_fracton", "data.validation_fraction"),
        ("trainer.units", "model.units"),
        ("optimiser", "optimizer"),
        ("sweep.seed", "sweep.seeds or expand.seed or seed"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_one(key: str, nearest: str) -> None:
    """A slip of the pen, or a key in the wrong group, is answered with the key that was meant."""
    assert refusal({key: 1}) == f"{key}: there is no such key. Did you mean {nearest}?"


def test_two_keys_of_the_same_name_are_both_offered() -> None:
    """`name` alone may be any group's; three are offered."""
    assert "Did you mean data.name or expand.name or loss.name?" in refusal({"trainer.name": "x"})


def test_an_unknown_key_near_none_lists_what_there_is() -> None:
    """At the top the groups and the seed are listed."""
    message = refusal({"xyzzy": 1})

    assert message == (
        "xyzzy: there is no such key. There is: data, evaluate, expand, loss, model, optimizer, scheduler, seed, "
        "sweep, tracking, trainer."
    )


def test_an_unknown_key_in_a_group_lists_the_groups_keys() -> None:
    """Only what lies beside the key is listed."""
    assert refusal({"loss.xyzzy": 1}).endswith("There is: loss.label_smoothing, loss.name.")


@pytest.mark.parametrize(
    ("key", "nearest"),
    [("trainr.num_epoch", "trainer.num_epochs"), ("data.files.train_image", "data.files.train_images")],
)
def test_a_key_in_a_misspelt_or_deep_group_is_found(key: str, nearest: str) -> None:
    """The last part of the key decides."""
    assert did_you_mean(key) == f" Did you mean {nearest}?"


@pytest.mark.parametrize("key", ["seed.xyzzy", "xyzzy.xyzzy.xyzzy"])
def test_a_key_in_no_group_lists_the_groups(key: str) -> None:
    """The list is never empty: what the nearest group above holds is shown."""
    assert did_you_mean(key).startswith(" There is: data, evaluate, expand, loss, model, ")


def test_a_missing_key_is_named() -> None:
    """No default hides in the code: a key that conf/ lost is an error."""
    values = settings()
    del values["trainer"]["batch_size"]

    with pytest.raises(ConfigError, match=r"^trainer\.batch_size: is missing"):
        validate(Config, values)


def test_the_seed_is_required() -> None:
    """A configuration without a seed is refused."""
    values = settings()
    del values["seed"]

    with pytest.raises(ConfigError, match=r"^seed: is missing"):
        validate(Config, values)


def test_each_mistake_gets_a_line() -> None:
    """Two mistakes are told at once."""
    assert refusal({"seed": "a", "model.dropout": 2.0}).count("\n") == 1


# ---------------------------------------------------------------- values


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("trainer.num_epochs", "5"),
        ("trainer.num_epochs", 1.5),
        ("trainer.num_epochs", True),
        ("trainer.num_epochs", 0),
        ("trainer.num_epochs", None),
        ("seed", "0"),
        ("seed", 0.0),
        ("seed", False),
        ("seed", -1),
        ("seed", 2**32),
        ("optimizer.lr", "0.1"),
        ("optimizer.lr", True),
        ("optimizer.lr", 0.0),
        ("optimizer.lr", float("nan")),
        ("optimizer.lr", float("inf")),
        ("model.dropout", 1.0),
        ("model.dropout", -0.1),
        ("model.units", True),
        ("model.units", "512"),
        ("model.activation", "Relu"),
        ("tracking.progress", "yes"),
        ("tracking.progress", 1),
        ("data.transpose", 0),
        ("trainer.gradient_clip_norm", 0.0),
        ("data.name", "../../etc"),
        ("data.classes", "0123456789"),
        ("tracking.experiment", ""),
    ],
)
def test_a_wrong_value_is_refused_by_key_and_value(key: str, value: Any) -> None:
    """No type is turned into another, no range is left; the message has the key and what was found."""
    message = refusal({key: value})

    assert message.startswith(f"{key}: ")
    assert message.endswith(f"found {value!r}")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("copies", 0),
        ("copies", 1.5),
        ("rotation_degrees", -1.0),
        ("rotation_degrees", 181.0),
        ("translation_px", -0.5),
        ("scale", 1.0),
        ("shear", "0.1"),
        ("elastic_px", float("nan")),
        ("elastic_sigma_px", 0.0),
        ("fill", 256),
        ("fill", -1),
        ("seed", None),
    ],
)
def test_a_wrong_strength_is_refused(key: str, value: Any) -> None:
    """The message has the key as the user wrote it, without the choice in between."""
    message = refusal({"expand": DEFORM | {key: value}})

    assert message.startswith(f"expand.{key}: ")
    assert message.endswith(f"found {value!r}")


@pytest.mark.parametrize("key", ["model.units.1", "data.image_shape.0"])
def test_a_wrong_value_in_a_list_is_named_by_its_place(key: str) -> None:
    """The message counts from 0, as the configuration does."""
    group, place = key.rsplit(".", 1)

    assert refusal({group: [8, 0] if place == "1" else [0, 8]}).startswith(f"{key}: ")


def test_zero_is_a_seed() -> None:
    """0 is a valid seed of the training and of the split."""
    found = whole_config({"seed": 0, "data.split_seed": 0})

    assert (found.seed, found.data.split_seed) == (0, 0)


def test_the_largest_seed_is_taken() -> None:
    """Seeds are 32 bits."""
    assert whole_config({"seed": 2**32 - 1}).seed == 2**32 - 1


@pytest.mark.parametrize(("units", "widths"), [(512, (512,)), ([512, 256], (512, 256)), ([], ())])
def test_units_are_a_number_or_a_list(units: Any, widths: tuple[int, ...]) -> None:
    """One width, several, or none: a linear model."""
    assert whole_config({"model.units": units}).model.units == widths


def test_a_whole_number_is_a_fraction_too() -> None:
    """`dropout=0` is as good as 0.0, and gives the same configuration."""
    assert whole_config({"model.dropout": 0}) == whole_config({"model.dropout": 0.0})


# ---------------------------------------------------------------- classes by name


@pytest.mark.parametrize("target", ["os.system", "torch.optim.RMSprop", "builtins.eval", ""])
def test_a_target_off_the_list_is_refused(target: str) -> None:
    """Nothing is imported by a name from the configuration; the message has the list."""
    message = refusal({"optimizer._target_": target})

    assert message.startswith(f"optimizer: {target!r} is not on the list: ")
    assert "'pipeline.model.rmsprop.KerasRMSprop', 'torch.optim.SGD', 'torch.optim.Adam'" in message


def test_a_group_without_its_class_is_explained() -> None:
    """`optimizer` without `_target_` does not say which one it is."""
    message = refusal({"optimizer": {"lr": 0.1}})

    assert "_target_" in message
    assert message.startswith("optimizer: ")


def test_a_key_of_another_optimizer_is_refused() -> None:
    """rho means nothing to SGD; the key is given as the user wrote it, without the class in between."""
    assert refusal({"optimizer": SGD | {"rho": 0.9}}).startswith("optimizer.rho: there is no such key.")


def test_a_strength_without_deformation_is_refused() -> None:
    """expand=none deforms nothing; a strength there would be ignored in silence."""
    assert refusal({"expand": {"name": "none", "copies": 9}}).startswith("expand.copies: there is no such key.")


# ---------------------------------------------------------------- pairs


def test_best_needs_validation() -> None:
    """keep=best without a validation split names both keys and both ways out."""
    message = refusal({"data.validation_fraction": 0.0, "trainer.keep": "best"})

    assert message == (
        "trainer.keep=best needs a validation split, but data.validation_fraction=0: "
        "give data.validation_fraction=0.1 or trainer.keep=last"
    )


def test_early_stopping_needs_validation() -> None:
    """Without a validation split there is nothing to watch."""
    stop = {"patience_epochs": 3, "min_delta": 0.0}
    message = refusal({"data.validation_fraction": 0.0, "trainer.keep": "last", "trainer.early_stopping": stop})

    assert message.startswith("trainer.early_stopping needs a validation split")


def test_last_needs_no_validation() -> None:
    """keep=last may train on everything."""
    assert whole_config({"data.validation_fraction": 0.0, "trainer.keep": "last"}).data.validation_fraction == 0


def test_nesterov_needs_momentum() -> None:
    """torch would raise within the training; here it is said before any data is read."""
    message = refusal({"optimizer": SGD | {"nesterov": True, "momentum": 0.0}})

    assert message.endswith("optimizer.nesterov=true needs optimizer.momentum above 0")


def test_a_table_has_no_images_to_deform() -> None:
    message = refusal(
        {"data.kind": "table", "data.path": "p", "data.label": "l", "data.test_fraction": 0.2, "expand": DEFORM}
    )

    assert message == "expand=deform deforms images, but data.kind=table has none: leave it expand=none"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"data.kind": "idx"}, "data.files is needed for data.kind=idx"),
        ({"data.kind": "table"}, "data.path is needed for data.kind=table"),
        ({"data.kind": "image_folder", "data.path": "p"}, "data.color is needed for data.kind=image_folder"),
        ({"data.path": "p"}, "data.path means nothing for data.kind=package"),
        ({"data.label": "species"}, "data.label means nothing for data.kind=package"),
        ({"data.test_fraction": 0.2}, "data.test_fraction means nothing for data.kind=package"),
        ({"data.classes": ["a", "a"]}, "data.classes names a class twice"),
        (
            {"data.kind": "table", "data.path": "p", "data.label": "l", "data.test_fraction": 0.0},
            "data.test_fraction=0 leaves no test set",
        ),
    ],
)
def test_keys_that_do_not_fit_the_kind_of_data_are_refused(changes: dict[str, Any], said: str) -> None:
    """Each kind of data needs its own keys and ignores none in silence."""
    assert said in refusal(changes)


def test_a_published_file_needs_a_digest() -> None:
    """Bytes from the network are never taken on trust."""
    file = FILE | {"sha256": None}
    files = dict.fromkeys(("train_images", "train_labels", "test_images", "test_labels"), file)

    assert "give sha256 (of the content) or sha256_gz" in refusal({"data.kind": "idx", "data.files": files})


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "a/../b", ".hidden", "a\\b", "http://x/y"])
def test_a_published_file_stays_below_its_mirror(name: str) -> None:
    """A file's name cannot climb out of the folder it is stored in."""
    files = dict.fromkeys(("train_labels", "test_images", "test_labels"), FILE)
    message = refusal({"data.kind": "idx", "data.files": files | {"train_images": FILE | {"file": name}}})

    assert message.startswith("data.files.train_images.file: ")


# ---------------------------------------------------------------- what DVC cannot see


@pytest.mark.parametrize("key", ["size", "nfiles"])
@pytest.mark.parametrize("path", ["", "model.", "trainer.early_stopping."])
def test_keys_that_dvc_does_not_see_are_refused_at_any_depth(path: str, key: str) -> None:
    """DVC's run cache leaves them out of its key (treeverse/dvc#10296); the message says how to rename it."""
    message = refusal({"trainer.early_stopping": {}, f"{path}{key}": 3})

    assert message.startswith(f"{path}{key}: rename it: DVC's run cache does not see parameters named {key!r}")
    assert f"num_{key} is safe" in message


def test_a_value_named_size_is_no_key() -> None:
    """Only keys are looked at."""
    refuse_blind_keys({"name": "size", "list": ["nfiles"]})


def test_the_codes_own_name_of_a_key_is_refused() -> None:
    """`optimizer.target` is the code's word for `_target_`, not the configuration's."""
    message = refusal({"optimizer": SGD | {"target": "torch.optim.SGD"}})

    assert message.startswith("optimizer.target: there is no such key.")
