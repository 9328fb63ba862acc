"""Overrides of a LazyConfig: keys that it does not have, and values of another type."""

import math
import re
from collections.abc import Iterable
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from .config_keys import did_you_mean

__all__ = ["quoted", "refuse_unknown_keys"]


def refuse_unknown_keys(cfg: DictConfig, overrides: list[str]) -> None:
    """A mistyped key would be added and do nothing; ``+key=value`` adds one on purpose.

    Arguments of what is called may be left out of a config, and a call refuses those that it does not know.

    Args:
        cfg: a LazyConfig.
        overrides: ``key=value``, ``+key=value`` or ``~key``.

    Raises:
        KeyError: a key that the config does not have; the message names the one that may be meant.
        ValueError: no ``key=value``, or a value of another type.
    """
    for override in overrides:
        key, equals, value = (part.strip() for part in override.partition("="))
        if not equals and not key.startswith("~"):
            before = " Options such as --resume go before the first override." if key.startswith("--") else ""
            raise ValueError(f"Overrides of a LazyConfig are key=value, got {override!r}.{before}")
        parent, _, name = key.lstrip("~").rpartition(".")
        node = OmegaConf.select(cfg, parent) if parent else cfg
        if key.startswith("+"):
            continue
        if not OmegaConf.is_config(node) or name not in map(str, _names(node)):
            if isinstance(node, DictConfig) and "_target_" in node:
                continue
            raise KeyError(
                f"The config has no key {key!r}.{did_you_mean(key, _all_keys(cfg))} Write +{key}=… to add it."
            )
        _refuse_other_type(key, OmegaConf.select(node, name, throw_on_missing=False), value)


def quoted(cfg: DictConfig, overrides: list[str]) -> list[str]:
    """Overrides of texts, such as paths, in quotes: whatever characters they have, they are taken as they are.

    Args:
        cfg: a LazyConfig.
        overrides: as for :func:`refuse_unknown_keys`.
    """
    found = []
    for override in overrides:
        key, equals, value = (part.strip() for part in override.partition("="))
        is_other = value.startswith(("'", '"', "[", "{")) or "${" in value or value in ("null", "None")
        is_text = key[0] not in "+~" and isinstance(OmegaConf.select(cfg, key, throw_on_missing=False), str)
        if equals and is_text and not is_other:
            escaped = re.sub(r"(\\*)('|$)", lambda m: 2 * m[1] + ("\\'" if m[2] else ""), value)
            override = f"{key}='{escaped}'"
        found.append(override)
    return found


def _refuse_other_type(key: str, former: object, value: str) -> None:
    """A number stays a number, and true or false one of the two: any other word would count as true."""
    if not isinstance(former, (int, float)) or "${" in value or value in ("null", "None"):
        return
    kind = "true or false" if isinstance(former, bool) else "an integer" if isinstance(former, int) else "a number"
    if not _is_of_kind(value, type(former)):
        raise ValueError(f"{key} must be {kind} (it is {former!r}), got {value!r}.")


def _is_of_kind(value: str, kind: type) -> bool:
    if kind is bool:
        return value.lower() in ("true", "false")
    try:
        return math.isfinite(kind(value))
    except ValueError:
        return False


def _all_keys(cfg: Any, prefix: str = "") -> list[str]:
    """Keys with their dots; what an interpolation stands for is left out."""
    if not OmegaConf.is_config(cfg):
        return [prefix.rstrip(".")]
    names = [name for name in _names(cfg) if not OmegaConf.is_missing(cfg, name)]
    plain = [name for name in names if OmegaConf.is_interpolation(cfg, name)]
    return [
        key
        for name in names
        for key in ([f"{prefix}{name}"] if name in plain else _all_keys(cfg[name], f"{prefix}{name}."))
    ]


def _names(node: DictConfig | ListConfig) -> Iterable[Any]:
    return range(len(node)) if isinstance(node, ListConfig) else node.keys()
