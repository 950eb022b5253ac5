"""What `pipeline adopt` calls the experiment file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline.commands import adopt
from pipeline.commands.adopt import Winner
from pipeline.system.errors import ConfigError


@pytest.mark.parametrize("source", ["s2cf3fdcf249", "sweep units × seed", "units=64 seed=1"])
def test_the_file_is_called_after_an_id_however_the_sweep_is_named(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hydra takes no name with a space or a `=`."""
    chosen: Any = Winner(None, "the best", "s2cf3fdcf249")  # type: ignore[arg-type]
    monkeypatch.setattr(adopt, "winner", lambda *_: chosen)
    monkeypatch.setattr(adopt, "experiment_text", lambda *_: "new")
    (tmp_path / "conf/experiment").mkdir(parents=True)
    (tmp_path / "conf/experiment/sweep-s2cf3fdcf249.yaml").write_text("another")

    with pytest.raises(ConfigError, match=r"^conf/experiment/sweep-s2cf3fdcf249\.yaml is there already"):
        adopt.adopt(tmp_path, source, None, repro=False)
