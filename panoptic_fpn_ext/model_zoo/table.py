"""The table of published checkpoints, ``checkpoints/model_zoo.json``."""

import hashlib
import json
from pathlib import Path
from typing import TypedDict

__all__ = ["Entry", "config_key", "get_checkpoint", "published", "write_table"]

CHECKPOINTS = Path(__file__).resolve().parents[1] / "checkpoints"
"""Folder of the checkpoints that the package carries, and of the table."""


class Entry(TypedDict):
    """What the table says of a config's published weights."""

    file: str
    """Name of a file beside the table, or a URL that detectron2's ``PathManager`` resolves."""
    dataset: str
    metrics: dict[str, float]
    """On ``dataset``, in percent."""
    source: str
    """Who trained and measured."""
    command: str
    """What trained it."""
    training: str
    """How long that took, on what."""
    versions: dict[str, str]


def published(folder: Path | None = None) -> dict[str, Entry]:
    """Published checkpoints by config name, of the package or of another folder that has such a table."""
    path = (folder or CHECKPOINTS) / "model_zoo.json"
    if not path.is_file():
        return {}
    table: dict[str, Entry] = json.loads(path.read_text(encoding="utf-8"))
    return table


def write_table(table: dict[str, Entry], folder: Path) -> None:
    """Write a table, all of it or nothing."""
    part = folder / "model_zoo.json.part"
    part.write_text(json.dumps(table, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    part.replace(folder / "model_zoo.json")


def get_checkpoint(name: str) -> str:
    """Where the published weights of a config are: a path, or a URL for ``MODEL.WEIGHTS``.

    Raises:
        KeyError: the config has none; those that have are named.
        ValueError: the file is not the published one (its SHA-256 does not begin as its name says).
    """
    table = published()
    key = config_key(name)
    if key not in table:
        raise KeyError(f"{name} has no published weights. There are weights for: {', '.join(table) or 'none'}.")
    file = table[key]["file"]
    if "://" in file:
        return file
    path = CHECKPOINTS / file
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if not path.stem.endswith(digest[:6]):
        raise ValueError(
            f"{path} is damaged: its SHA-256 begins with {digest[:6]}, unlike its name. Install the package again."
        )
    return str(path)


def config_key(name: str) -> str:
    """Name of a config in the table: a YAML config and its lazy twin have the same weights."""
    return name.removesuffix(".yaml").removesuffix(".py")
