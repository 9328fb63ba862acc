"""Configs and released checkpoints by name, as detectron2's model zoo has them.

``python -m panoptic_fpn_ext.model_zoo`` lists the released checkpoints; with a name it prints the checkpoint's path.
"""

import argparse
import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.modeling import build_model
from tabulate import tabulate

from .config import add_panoptic_fpn_ext_config
from .engine.checkpoint import PanopticCheckpointer
from .engine.device import use_available_device

__all__ = ["get", "get_checkpoint", "get_config", "get_config_file", "publish", "published"]

_PACKAGE = Path(__file__).resolve().parent
_CHECKPOINTS = _PACKAGE / "checkpoints"
_TABLE = _CHECKPOINTS / "model_zoo.json"


def get_config_file(name: str) -> str:
    """Path of a config.

    Args:
        name: relative to ``configs/``, e.g.
            ``"SyntheticStreet-PanopticSegmentation/panoptic_fpn_R_18_narrow.yaml"``; the ending may be left out.

    Raises:
        KeyError: there is no such config; those that exist are named.
    """
    root = _config_root()
    for candidate in (name, f"{name}.yaml"):
        if (root / candidate).is_file():
            return str(root / candidate)
    known = sorted(str(path.relative_to(root)) for path in root.rglob("*.yaml") if not path.name.startswith("Base"))
    raise KeyError(f"There is no config {name!r}. There are: {', '.join(known)}.")


def get_config(name: str, trained: bool = False) -> CfgNode:
    """Config of a name with this package's keys, not frozen; with ``trained`` its ``MODEL.WEIGHTS`` is the released
    checkpoint.
    """
    cfg = get_cfg()
    add_panoptic_fpn_ext_config(cfg)
    cfg.merge_from_file(get_config_file(name))
    if trained:
        cfg.MODEL.WEIGHTS = get_checkpoint(name)
    return cfg


def get_checkpoint(name: str) -> str:
    """Path of the released checkpoint of a config.

    Raises:
        KeyError: none was released for it; the names that have one are given.
        ValueError: the file is not the released one (its SHA-256 does not begin as its name says).
    """
    table = published()
    key = _key(name)
    if key not in table:
        raise KeyError(
            f"No checkpoint was released for {name!r}. There are checkpoints for: {', '.join(table) or 'none'}."
        )
    path = _CHECKPOINTS / table[key]["file"]
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if not path.stem.endswith(digest[:6]):
        raise ValueError(
            f"{path} is damaged: its SHA-256 begins with {digest[:6]}, unlike its name. Install the package again."
        )
    return str(path)


def get(name: str, trained: bool = False, device: str | None = None) -> torch.nn.Module:
    """Model of a config, in training mode as detectron2's ``model_zoo.get`` gives it.

    Args:
        name: as for :func:`get_config_file`.
        trained: load the released checkpoint; otherwise what the config's ``MODEL.WEIGHTS`` says.
        device: where the model goes; by default the config's device, or the CPU where there is no GPU.
    """
    cfg = get_config(name, trained)
    if device is not None:
        cfg.MODEL.DEVICE = device
    use_available_device(cfg)
    model = build_model(cfg)
    PanopticCheckpointer(model, complete=trained).load(cfg.MODEL.WEIGHTS)
    return model


def published() -> dict[str, dict[str, Any]]:
    """Released checkpoints by config name: ``file``, ``metrics`` (percent), ``command``, ``training`` and
    ``versions``.
    """
    if not _TABLE.is_file():
        return {}
    table: dict[str, dict[str, Any]] = json.loads(_TABLE.read_text())
    return table


def publish(checkpoint: str, output_dir: str, name: str = "model_final") -> str:
    """Write the weights of a training checkpoint for release: without the optimiser, kernels in 16 bits, with the
    hash in the name.

    Args:
        checkpoint: what a trainer wrote.
        output_dir: folder of the result.
        name: first part of the file's name; the first six digits of its SHA-256 follow.

    Returns:
        Path of the result. Evaluate it before its row goes into the table: rounding to 16 bits may change the last
        digits.
    """
    weights = torch.load(checkpoint, map_location="cpu", weights_only=False)["model"]
    # Norms and biases stay as they are: small numbers, to which 16 bits are not kind, and few of them.
    rounded = {key: value.half() if value.ndim > 1 else value for key, value in weights.items()}
    temporary = Path(output_dir) / f"{name}.part"
    temporary.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"model": rounded, "__author__": "panoptic_fpn_ext", "matching_heuristics": False}, temporary)
    digest = hashlib.sha256(temporary.read_bytes()).hexdigest()
    return str(temporary.rename(temporary.with_name(f"{name}_{digest[:6]}.pth")))


def _config_root() -> Path:
    """``configs/`` inside the installed package or, in a checkout, beside it."""
    installed = _PACKAGE / "configs"
    return installed if installed.is_dir() else _PACKAGE.parent / "configs"


def _key(name: str) -> str:
    return name.removesuffix(".yaml")


def main() -> None:
    """Print the table of released checkpoints, or the path of one."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("name", nargs="?", help="config whose checkpoint's path to print")
    name = parser.parse_args().name
    if name:
        print(get_checkpoint(name))  # noqa: T201
        return
    rows = [
        [key, entry["file"], *(entry["metrics"][m] for m in ("PQ", "SQ", "RQ"))] for key, entry in published().items()
    ]
    print(tabulate(rows, headers=["config", "file", "PQ", "SQ", "RQ"], tablefmt="pipe"))  # noqa: T201


if __name__ == "__main__":
    main()
