"""Reading YAML configs and ``KEY VALUE`` pairs; a wrong key or value is named with the file and with what was meant."""

import difflib
import os
import re
from collections.abc import Iterable, Sequence
from typing import Any

import yaml
from detectron2.config import CfgNode
from detectron2.utils.file_io import PathManager

from ...utf8 import as_text, utf8_configs

__all__ = ["all_keys", "as_lazy_config", "did_you_mean", "in_pairs", "is_lazy_config", "merge_file", "merge_pairs"]

_TYPES = {
    int: "an integer",
    float: "a number",
    bool: "True or False",
    str: "a string",
    tuple: "a tuple",
    list: "a list",
}
_LAZY = "_target_: "  # what a LazyConfig says of each of its objects
_KEY = re.compile(r"[Cc]onfig key: ([\w.]+)")


def merge_file(cfg: CfgNode, path: str) -> None:
    """Merge a config file and those it is based on.

    Raises:
        FileNotFoundError: one of them does not exist.
        ValueError: one is no YAML, has a key that there is not, or a value of another type; file and key are named.
    """
    _refuse_no_sections(path)
    try:
        with utf8_configs():
            cfg.merge_from_file(path, allow_unsafe=False)  # else YAML may call any function
    except (AssertionError, KeyError, ValueError, yaml.YAMLError) as error:
        found = _KEY.search(str(error))
        if found is None:
            raise ValueError(f"{path} is no config: {_first_line(error)}") from error
        key = found[1]
        where, value = _find(path, key)
        raise ValueError(f"{where}: {_complaint(cfg, key, value)}") from error


def merge_pairs(cfg: CfgNode, pairs: Sequence[Any]) -> None:
    """Merge ``KEY VALUE …`` of a command line.

    Raises:
        ValueError: a key that there is not, without a value, or with one of another type.
    """
    for key, value in in_pairs(pairs):
        if str(key).startswith("DATASETS.") and isinstance(value, str):
            value = as_text(value)
        if not _has(cfg, str(key)):
            raise ValueError(_complaint(cfg, str(key), value) + _hint(pairs))
        try:
            cfg.merge_from_list([key, _suited(value, _get(cfg, key))])
        except (AssertionError, KeyError, ValueError) as error:
            raise ValueError(_complaint(cfg, str(key), value)) from error


def in_pairs(words: Sequence[Any]) -> list[tuple[Any, Any]]:
    """``KEY VALUE …`` two by two; ``ValueError`` where the last one is alone."""
    if len(words) % 2:
        raise ValueError(f"Options are pairs, KEY VALUE …, but the last one is alone: {words[-1]}.{_hint(words)}")
    return list(zip(words[::2], words[1::2], strict=True))


def _suited(value: Any, former: Any) -> Any:
    """A word of the command line, so that yacs takes ``1`` for a float and ``2024`` for a name."""
    if isinstance(value, str) and isinstance(former, float) and value.lstrip("+-").isdigit():
        return f"{value}.0"
    if isinstance(value, str) and isinstance(former, str) and value.lstrip("+-").replace(".", "", 1).isdigit():
        return repr(value)
    return value


def did_you_mean(key: str, keys: Iterable[str]) -> str:
    """``" Did you mean …?"`` with the keys that are most like one, "" if none is.

    Args:
        key: with dots, upper or lower case.
        keys: all that there are, in full.
    """
    known = {full.upper(): full for full in keys}
    if key.upper() in known:
        return f" Did you mean {known[key.upper()]}?"
    near = difflib.get_close_matches(key.upper(), known, n=3, cutoff=0.75)
    if not near:  # the right name in the wrong place
        last = {full.rpartition(".")[2]: full for full in known}
        near = [last[name] for name in difflib.get_close_matches(key.upper().rpartition(".")[2], last, n=3, cutoff=0.8)]
    return f" Did you mean {' or '.join(known[name] for name in near)}?" if near else ""


def _complaint(cfg: CfgNode, key: str, value: Any) -> str:
    """What is wrong with a key and the value that it was given."""
    if not _has(cfg, key):
        return f"there is no config key {key}.{did_you_mean(key, all_keys(cfg))}"
    wanted = _get(cfg, key)
    if isinstance(wanted, CfgNode):
        return f"{key} is a section ({key}.{next(iter(wanted))}, …) and cannot be {value!r}."
    kind = _TYPES.get(type(wanted), type(wanted).__name__)
    example = ""
    if isinstance(wanted, tuple) and isinstance(value, str | int | float):
        holds_numbers = any(isinstance(one, int | float) for one in wanted)
        example = f'; write {key} "({value},)"' if holds_numbers else f"; write {key} \"('{value}',)\""
    return f"{key} must be {kind} (it is {wanted!r}), got {value!r}{example}."


def _hint(pairs: Sequence[Any]) -> str:
    words = [str(word) for word in pairs]
    if any(word.startswith("--") for word in words):
        return f" Options such as {next(w for w in words if w.startswith('--'))} go before the first KEY."
    if any("=" in word for word in words):
        return " Write KEY VALUE with a space between them."
    return ""


def is_lazy_config(name: str) -> bool:
    """Whether a name is that of a LazyConfig: a ``.py``, or the ``config.yaml`` that a run of one left."""
    if name.endswith(".py"):
        return True
    if not name.endswith((".yaml", ".yml")) or not PathManager.isfile(name):
        return False
    with PathManager.open(name, "r", encoding="utf-8-sig", errors="replace") as f:
        return _LAZY in f.read()


def as_lazy_config(path: str) -> str:
    """What to do with a LazyConfig, where it is named as if it were a yacs config."""
    return (
        f"{path} is a LazyConfig: lazyconfig_train_net.py trains and evaluates it, demo.py and PanopticPredictor "
        "predict with it where it is named itself, not its folder or a checkpoint, since it calls what it says. For "
        "anything else, take the YAML config of the same model and give its weights with MODEL.WEIGHTS."
    )


def _refuse_no_sections(path: str) -> None:
    """Follow a config to those it is based on: each must be a file with keys and values."""
    if not PathManager.isfile(path):
        raise FileNotFoundError(f"Config file {path} does not exist.")
    try:
        with PathManager.open(path, "r", encoding="utf-8-sig") as f:
            text = f.read()
        if _LAZY in text:
            raise ValueError(as_lazy_config(path))
        content = yaml.safe_load(text)
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"{path} is no config: {_first_line(error)}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} is no config: it should hold sections such as MODEL and SOLVER.")
    base = content.get("_BASE_")
    if isinstance(base, str):
        _refuse_no_sections(_beside(path, base))


def _beside(path: str, base: str) -> str:
    """Path of what ``_BASE_`` names, as fvcore finds it."""
    base = os.path.expanduser(base)
    return base if base.startswith("/") or "://" in base else os.path.join(os.path.dirname(path), base)


def _find(path: str, key: str) -> tuple[str, Any]:
    """The file that sets a key, of a config and those it is based on, and the value there."""
    content: Any
    with PathManager.open(path, "r", encoding="utf-8-sig") as f:
        content = yaml.safe_load(f) or {}
    value = content
    for part in key.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    base = content.get("_BASE_") if isinstance(content, dict) else None
    if value is not None or not isinstance(base, str):
        return path, value
    return _find(_beside(path, base), key)


def _has(cfg: CfgNode, key: str) -> bool:
    node: Any = cfg
    for part in key.split("."):
        if not isinstance(node, CfgNode) or part not in node:
            return cfg.key_is_deprecated(key) or cfg.key_is_renamed(key)
        node = node[part]
    return True


def _get(cfg: CfgNode, key: str) -> Any:
    node: Any = cfg
    for part in key.split("."):
        node = node[part]
    return node


def all_keys(cfg: CfgNode, prefix: str = "") -> list[str]:
    """All keys of a config, with dots, each behind ``prefix``."""
    keys: list[str] = []
    for name, value in cfg.items():
        keys += all_keys(value, f"{prefix}{name}.") if isinstance(value, CfgNode) else [prefix + name]
    return keys


def _first_line(error: Exception) -> str:
    """YAML's errors have the place in further lines."""
    return " ".join(str(error.args[0] if isinstance(error, KeyError) else error).split())
