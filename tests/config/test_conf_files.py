"""Every file in conf/: it composes, it is valid, and it explains itself."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from config.config_makers import CONF, NEEDED, composed, group_options
from pipeline.config.overrides import swept_keys
from pipeline.model.dense import DenseNetwork, InputSpec
from pipeline.model.optimizers import build_optimizer, build_scheduler
from pipeline.system.errors import ConfigError
from pipeline.training.devices import require_device
from pipeline.training.fit import build_trainer
from pipeline.training.module import Classifier

FILES = sorted(CONF.rglob("*.yaml"))
NAMES = [str(file.relative_to(CONF)) for file in FILES]
PIXELS = InputSpec((4, 4), "uint8", 0.0, 255.0)


def options(group: str) -> list[str]:
    return [option for option in group_options() if option.startswith(f"{group}=")]


def written(option: str) -> dict[str, object]:
    """What the file of an option itself says."""
    values = yaml.safe_load((CONF / option.replace("=", "/")).with_suffix(".yaml").read_text(encoding="utf-8"))
    return {key: value for key, value in values.items() if key != "defaults"}


def head(file: Path) -> str:
    """The comment that a file opens with, without `# @package`, in one line."""
    lines = [line for line in file.read_text(encoding="utf-8").splitlines() if not line.startswith("# @")]
    first_other = next(n for n, line in enumerate(lines) if not line.startswith("#"))
    return " ".join(line.lstrip("# ") for line in lines[:first_other])


# ---------------------------------------------------------------- what they make


@pytest.mark.parametrize("option", group_options())
def test_every_option_composes_to_what_its_file_says(option: str) -> None:
    """Chosen by name, an option passes the schema, and the group then has the file's values."""
    group = option.partition("=")[0]
    found = composed(option, *NEEDED.get(option, [])).model_dump(mode="json", by_alias=True)[group]

    given = {override.partition("=")[0].removeprefix(f"{group}.") for override in NEEDED.get(option, [])}
    for key, value in written(option).items():
        if key not in given:
            assert found[key] == ([value] if key == "units" and isinstance(value, int) else _number(value, found[key]))


def _number(value: object, like: object) -> object:
    """YAML 1.1 reads 1.0e-3 as a number but for example 1e-3 as text; OmegaConf reads both as numbers."""
    return float(value) if isinstance(value, str) and isinstance(like, float) else value


@pytest.mark.parametrize("file", sorted((CONF / "experiment").glob("*.yaml")), ids=lambda file: file.stem)
def test_every_experiment_composes_and_changes_something(file: Path) -> None:
    """An experiment passes the schema and is not the default by another name."""
    assert composed(f"experiment={file.stem}") != composed()


@pytest.mark.parametrize("option", options("model"))
def test_every_model_is_built(option: str) -> None:
    """A model's file gives a network with as many logits as there are classes."""
    network = DenseNetwork(composed(option).model, PIXELS, num_classes=3)

    assert network(torch.zeros(2, 4, 4, dtype=torch.uint8)).shape == (2, 3)


@pytest.mark.parametrize("option", options("optimizer"))
def test_every_optimizer_is_built_with_its_numbers(option: str) -> None:
    """The class is the one that `_target_` names, and each number of the file arrives in it."""
    optimizer = build_optimizer(composed(option).optimizer, [torch.zeros(1, requires_grad=True)])
    numbers = {key: _number(value, 0.0) for key, value in written(option).items() if key != "_target_"}
    betas = tuple(numbers.pop(key) for key in ("beta1", "beta2") if key in numbers)

    assert type(optimizer).__name__ == str(written(option)["_target_"]).rpartition(".")[2]
    assert {key: optimizer.param_groups[0][key] for key in numbers} == numbers
    assert optimizer.param_groups[0].get("betas", ()) == betas


@pytest.mark.parametrize(
    ("option", "factor_at_the_end"), [("scheduler=constant", 1.0), ("scheduler=cosine", 0.0), ("scheduler=step", 0.5)]
)
def test_every_scheduler_is_built(option: str, factor_at_the_end: float) -> None:
    """Ten steps of a cosine, or five epochs of steps down, end where the file says."""
    optimizer = build_optimizer(composed().optimizer, [torch.zeros(1, requires_grad=True)])
    if built := build_scheduler(composed(option).scheduler, optimizer, num_steps=10):
        for _ in range({"step": 10, "epoch": 5}[built[1]]):
            optimizer.step()
            built[0].step()

    assert optimizer.param_groups[0]["lr"] == pytest.approx(1e-3 * factor_at_the_end, abs=1e-12)


def test_no_scheduler_is_left_out_above() -> None:
    """The list of the test above is the list of conf/."""
    assert options("scheduler") == ["scheduler=constant", "scheduler=cosine", "scheduler=step"]


@pytest.mark.parametrize("option", options("loss"))
def test_every_loss_is_built(option: str) -> None:
    """Without smoothing the loss of equal logits over 3 classes is log 3."""
    cfg = composed(option)
    module = Classifier(DenseNetwork(cfg.model, PIXELS, 3), cfg, lambda *_: None, lambda *_: None)

    assert float(module.loss(torch.zeros(2, 3), torch.tensor([0, 2]))) == pytest.approx(np.log(3), rel=1e-6)


@pytest.mark.parametrize("option", options("trainer"))
def test_every_trainer_is_built(option: str, tmp_path: Path) -> None:
    """Lightning takes the trainer's settings; where there is no GPU, those for GPUs are refused before that."""
    cfg = composed(option).trainer
    if cfg.accelerator == "gpu" and not torch.cuda.is_available():
        with pytest.raises(ConfigError, match="finds no CUDA GPU"):
            require_device(cfg)
        return
    trainer = build_trainer(cfg, tmp_path, [])

    assert (trainer.max_epochs, trainer.precision) == (cfg.num_epochs, cfg.precision)


# ---------------------------------------------------------------- what they say


@pytest.mark.parametrize("file", FILES, ids=NAMES)
def test_a_file_opens_with_what_it_is(file: Path) -> None:
    """The first words of a file are a sentence about it."""
    assert re.match(r"[A-Z0-9].{10,}\.", head(file))


@pytest.mark.parametrize("file", [file for file in FILES if file.stem not in ("base", "config")], ids=str)
def test_the_command_in_a_files_head_works(file: Path) -> None:
    """The command after `Use:` chooses the file, and its overrides compose to a valid configuration."""
    command = re.search(r"Use: +(?:dvc repro +or +)?((?:dvc exp run|pipeline train).*)", head_lines(file))
    assert command, f"{file}: no `Use:` with a command"
    words = shlex.split(command.group(1))
    overrides = [word for word in words if "=" in word]
    if "-m" in words:
        overrides, swept = swept_keys(overrides)
        assert swept, f"{file}: -m without a value to sweep"

    assert any(override.lstrip("+").startswith(file.parent.name) for override in overrides)
    composed(*overrides)


def head_lines(file: Path) -> str:
    return "\n".join(line for line in file.read_text(encoding="utf-8").splitlines() if line.startswith("#"))


@pytest.mark.parametrize("file", FILES, ids=NAMES)
def test_each_number_has_its_unit(file: Path) -> None:
    """A number's unit stands in its name or in a comment beside it."""
    for line in file.read_text(encoding="utf-8").splitlines():
        if re.match(r" *\w+: *\[?-?[0-9.]+(e-?[0-9]+)?\b(?!\w)", line) and not re.match(r" *num_\w+:", line):
            assert "#" in line, f"{file.name}: {line}"


@pytest.mark.parametrize("file", FILES, ids=NAMES)
def test_no_interpolation_reaches_the_settings(file: Path) -> None:
    """`${…}` stands below `hydra:` only: DVC composes without Hydra's own node and would fail on it."""
    lines = file.read_text(encoding="utf-8").partition("\nhydra:")[0].splitlines()

    assert [line for line in lines if "${" in line] == []
