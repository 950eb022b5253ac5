"""Settings: what they may say (schema), composed from conf/ and overrides, checked, mistakes explained.

Also what Hydra may call by its name (allowed_targets), and the options of our launcher and sweepers (compose).
"""

from pathlib import Path


def choices(group: Path) -> list[str]:
    """What a folder of conf/ has to choose from: its files, but for what others are built on."""
    return sorted({file.stem for file in group.glob("*.yaml")} - {"base"})
