"""Stage 2: arrays that can be memory-mapped, checked and split, and a card that says what they hold."""

from __future__ import annotations

from pathlib import Path

from pipeline.config.schema import DeformConfig, PreprocessConfig, PreprocessData
from pipeline.data.augmentation import expand, expanded_facts
from pipeline.data.card import DataCard, suspicions
from pipeline.data.idx import source_from_idx
from pipeline.data.source import RawNote, Source
from pipeline.data.splits import assign_splits, require_room, scaling_of, write_splits
from pipeline.data.user_data import recheck_user_data
from pipeline.runtime.places import Places
from pipeline.system.errors import DataContractError
from pipeline.system.files import atomic_folder


def preprocess(raw: Path, out: Path, cfg: PreprocessConfig) -> DataCard:
    """Turn what download left into arrays, split, checked and, where cfg.expand says so, expanded.

    Reads   raw/source.json and the files it names
    Writes  out/{train,validation,test}/images.npy    uint8 (N, H, W), (N, H, W, 3) or (N, F); float32 (N, F)
            out/{train,validation,test}/labels.npy    int64 (N,), 0..C-1
            out/data_card.json                        see `DataCard`

    There is no validation folder with data.validation_fraction=0. Values stay as they are: scaling is the model's
    first step, so a served model cannot forget it. Memory does not grow with the images, only with the labels.

    Raises:
        DataContractError: the data cannot be trained on. Nothing is written in that case.
        PipelineError: the disk has no room for it. Nothing is written either.
    """
    note = RawNote.read(raw)
    if note.name != cfg.data.name:
        raise DataContractError(
            f"{raw} holds {note.name}, but data.name={cfg.data.name}. Run: dvc repro, or with data={note.name}"
        )
    return write_processed(open_source(raw, note, cfg.data), note.name, note.kind, out, cfg)


def write_processed(source: Source, name: str, kind: str, out: Path, cfg: PreprocessConfig) -> DataCard:
    """The same from samples that are open already."""
    deform = cfg.expand if isinstance(cfg.expand, DeformConfig) else None
    assignment = assign_splits(source, cfg.data)
    require_room(out, source, assignment, deform.copies if deform else 0)
    with atomic_folder(out) as new:
        splits, duplicates = write_splits(new, source, assignment)
        oddities = suspicions(splits, duplicates)
        expansion = None
        if deform:
            expansion = expand(new / "train", deform)
            splits["train"] = expanded_facts(splits["train"], new / "train", expansion)
        card = DataCard(
            name=name,
            kind=kind,
            classes=list(source.classes),
            image_shape=list(source.shape),
            dtype=source.dtype,
            scaling=scaling_of(new / "train" / "images.npy"),
            features=list(source.features) if source.features else None,
            splits=splits,
            expansion=expansion,
            duplicates=duplicates,
            made_with=cfg.model_dump(mode="json"),
            suspicions=oddities,
        )
        card.write(new / "data_card.json")
    print(summary(card))
    return card


def open_source(raw: Path, note: RawNote, cfg: PreprocessData) -> Source:
    """The reader for what lies in raw; Pillow and pyarrow are imported only where they are needed."""
    if note.format == "image_folder":
        from pipeline.data.images import source_from_images

        return source_from_images(raw, note, cfg)
    if note.format == "table":
        from pipeline.data.tables import source_from_table

        return source_from_table(raw, note, cfg)
    return source_from_idx(raw, note, cfg)


def summary(card: DataCard) -> str:
    """A line about what was written, and one for each suspicion."""
    counts = ", ".join(f"{facts['count']:,} {split}" for split, facts in card.splits.items())
    if card.features:
        what = f"rows of {len(card.features)} features"
    else:
        what = "images " + " x ".join(str(size) for size in card.image_shape)
    lines = [f"preprocess: {counts} {what}, {len(card.classes)} classes"]
    if card.expansion:
        originals, factor = card.expansion["originals"], card.expansion["factor"]
        lines.append(
            f"preprocess: train is {originals:,} images, each of them {factor:,} times: once as it is, then deformed"
        )
    return "\n".join(lines + [f"preprocess: suspicious: {suspicion}" for suspicion in card.suspicions])


def main(cfg: PreprocessConfig, places: Places) -> None:
    """`dvc repro preprocess`, or by hand `pipeline preprocess data.validation_fraction=0.2`."""
    print(f"preprocess: reading {cfg.data.name}", flush=True)
    try:
        preprocess(places.inputs / "data/raw", places.out / "data/processed", cfg)
    except DataContractError:
        recheck_user_data(places.root)  # at what its owner will have repaired
        raise


if __name__ == "__main__":
    from pipeline.cli import main as command_line

    command_line("preprocess")
