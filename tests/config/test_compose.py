"""conf/ composed: the same bytes as DVC's, and a word about keys that Hydra does not find."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from hydra.errors import ConfigCompositionException

from config.config_makers import CONF, ROOT
from pipeline.config.compose import compose_yaml, parse
from pipeline.system.errors import ConfigError

COMPOSED = (
    (),
    ("experiment=book", "seed=0"),
    ("optimizer=adamw", "optimizer.lr=1e-3", "model.units=[512,256]", "data=emnist_balanced"),
    ("scheduler=cosine", "trainer.early_stopping={patience_epochs: 3, min_delta: 0.0}"),
    ("tracking.run_name='größer, schneller'",),
    ("hydra/sweeper=optuna", "hydra.sweeper.sampler_options.multivariate=true"),
)
# As `dvc exp run -S` does it, in a process in which nothing of ours is imported: DVC loads what .dvc/config names.
BY_DVC = """
import json, sys
from pathlib import Path
from dvc.repo import Repo
from dvc.utils.hydra import compose_and_dump
plugins = Path(sys.argv[1], Repo(sys.argv[1]).config["hydra"]["plugins_path"])
texts = []
for overrides in json.load(sys.stdin):
    compose_and_dump(sys.argv[2], f"{sys.argv[1]}/conf", None, "config", str(plugins), overrides)
    texts.append(Path(sys.argv[2]).read_text(encoding="utf-8"))
print(json.dumps(texts))
"""


def by_dvc(folder: Path, overrides: Sequence[Sequence[str]]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", BY_DVC, str(ROOT), str(folder / "params.yaml")]
    return subprocess.run(command, input=json.dumps(overrides), capture_output=True, text=True, check=False)


def test_our_composition_has_the_bytes_of_dvcs(tmp_path: Path) -> None:
    """`dvc exp run -S …` and `configure` write the same params.yaml, or each would undo the other's."""
    done = by_dvc(tmp_path, COMPOSED)

    assert done.stderr == ""
    assert json.loads(done.stdout) == [compose_yaml(CONF, overrides) for overrides in COMPOSED]


@pytest.mark.parametrize("text", ["1e-3", "1.0e-3", "0.001", "1E-3"])
def test_numbers_are_read_as_omegaconf_writes_them(text: str) -> None:
    """Plain YAML 1.1 reads 1e-3 as text."""
    assert parse(f"lr: {text}") == {"lr": 0.001}


def test_a_composition_survives_being_written_and_read() -> None:
    """parse is the inverse: what a stage reads from params.yaml is what was composed."""
    text = compose_yaml(CONF, ["tracking.run_name='1e-3'", "data.classes=['0','1','null']"])
    values = parse(text)

    assert values["tracking"]["run_name"] == "1e-3"
    assert values["data"]["classes"] == ["0", "1", "null"]


def test_a_file_that_is_no_mapping_is_refused() -> None:
    """A list at the top of params.yaml is told, not walked into."""
    with pytest.raises(ConfigError, match="expected a mapping of keys to values, found list"):
        parse("[1, 2]")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("trainer.num_epoch=3", "trainer.num_epoch: there is no such key. Did you mean trainer.num_epochs?"),
        ("lr=0.1", "lr: there is no such key. Did you mean optimizer.lr?"),
        ("model.xyzzy=1", "There is: model.activation, model.dropout, model.initialization, model.name"),
    ],
)
def test_hydras_message_names_the_nearest_key(override: str, message: str) -> None:
    """It is added wherever this project composes."""
    with pytest.raises(ConfigCompositionException) as caught:
        compose_yaml(CONF, [override])

    assert message in str(caught.value)


def test_dvcs_own_composing_names_the_nearest_key(tmp_path: Path) -> None:
    """DVC loads the plug-in from `hydra.plugins_path`, so `dvc exp run -S` explains itself as well."""
    done = by_dvc(tmp_path, [["trainer.num_epoch=3"]])

    assert done.returncode == 1
    assert "Did you mean trainer.num_epochs?" in done.stderr


def test_hydras_other_messages_stay_its_own() -> None:
    """A choice that a group does not have is listed by Hydra."""
    with pytest.raises(Exception, match="rmsprop") as caught:
        compose_yaml(CONF, ["optimizer=rmsprob"])

    assert "Could not find 'optimizer/rmsprob'" in str(caught.value)
