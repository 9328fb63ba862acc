"""The files of the model zoo: configs by name, and the table of published weights, ``checkpoints/model_zoo.json``."""

import ast
import difflib
import hashlib
import json
from pathlib import Path
from typing import TypedDict

__all__ = [
    "CHECKPOINTS",
    "Entry",
    "config_key",
    "config_names",
    "config_root",
    "did_you_mean",
    "get_checkpoint",
    "get_config_file",
    "measured_on",
    "published",
    "write_table",
]

_PACKAGE = Path(__file__).resolve().parent

CHECKPOINTS = _PACKAGE / "checkpoints"
"""Folder of the checkpoints that the package carries, and of the table."""


class _OwnEntry(TypedDict, total=False):
    """What it says of weights that this package's commands trained."""

    recipe: dict[str, str]
    """Options of the config that trained them, by key, where they differ from the defaults."""


class Entry(_OwnEntry):
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


def measured_on(entry: Entry) -> str:
    """The dataset that a row's metrics are of, in Markdown, with a word where the weights were trained on it."""
    trained_on = ast.literal_eval(entry.get("recipe", {}).get("DATASETS.TRAIN", "()"))
    return f"`{entry['dataset']}`" + (" (learnt)" if entry["dataset"] in trained_on else "")


def get_checkpoint(name: str) -> str:
    """Where the published weights of a config are: a path, or a URL for ``MODEL.WEIGHTS``.

    Raises:
        KeyError: there is no such config, or it has no weights; those that have are named.
        FileNotFoundError: the file is gone.
        ValueError: the file is not the published one (its SHA-256 does not begin as its name says).
    """
    get_config_file(name)
    table = published()
    key = config_key(name)
    if key not in table:
        raise KeyError(f"{name} has no published weights. There are weights for: {', '.join(table) or 'none'}.")
    file = table[key]["file"]
    if "://" in file:
        return file
    path = CHECKPOINTS / file
    if not path.is_file():
        raise FileNotFoundError(f"{path}, the weights of {name}, is missing. Install the package again.")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if not path.stem.endswith(digest[:6]):
        raise ValueError(
            f"{path} is damaged: its SHA-256 begins with {digest[:6]}, unlike its name. Install the package again."
        )
    return str(path)


def config_key(name: str) -> str:
    """Name of a config in the table: a YAML config and its lazy twin have the same weights."""
    return name.removesuffix(".yaml").removesuffix(".py")


def config_names() -> list[str]:
    """Names of all configs, relative to ``configs/``: ``.yaml`` files and their lazy twins, ``.py``."""
    root = config_root()
    names = [path.relative_to(root) for path in root.rglob("*.*") if path.suffix in (".yaml", ".py")]
    return sorted(str(name) for name in names if name.parts[0] != "common" and not name.name.startswith("Base"))


def get_config_file(name: str) -> str:
    """Path of a config.

    Args:
        name: relative to ``configs/``, e.g. ``"COCO-PanopticSegmentation/panoptic_fpn_R_50_1x.yaml"``, or with ``.py``
            its lazy twin; without an ending it is the YAML file.

    Raises:
        KeyError: there is no such config; those that exist are named.
    """
    root = config_root()
    for candidate in (name, f"{name}.yaml"):
        path = root / candidate
        is_config = path.suffix in (".yaml", ".py") and path.is_file()
        if is_config and path.resolve().is_relative_to(root.resolve()):
            return str(path)
    raise KeyError(f"There is no config {name!r}.{did_you_mean(name)} There are: {', '.join(config_names())}.")


def did_you_mean(name: str) -> str:
    """A question, with a space before it, after configs whose names are like one that does not exist; or ""."""
    key = config_key(name)
    keys = sorted(set(map(config_key, config_names())))
    of_that_file = [known for known in keys if Path(known).name == Path(key).name]
    near = of_that_file or difflib.get_close_matches(key, keys, n=1)
    return f" Did you mean {' or '.join(near)}?" if near else ""


def config_root() -> Path:
    """Folder of the configs: ``configs/`` inside the installed package or, in a checkout, beside it."""
    installed = _PACKAGE / "configs"
    return installed if installed.is_dir() else _PACKAGE.parent / "configs"
