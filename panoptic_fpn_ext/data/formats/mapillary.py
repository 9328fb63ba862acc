"""Mapillary Vistas."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from ...coco_json import load_json
from .id_maps import MapRegions, paired, split_folders
from .regions import Region, Source, SourceImage

__all__ = ["read_mapillary"]

_VERSIONS = ("v2.0", "v1.2")


def read_mapillary(root: str, version: str | None = None) -> Source:
    """Mapillary Vistas 1.2 and 2.0, as downloaded.

    Labels come from ``config_VERSION.json`` (or ``config.json``), ground truth from the 16-bit ``instances`` PNGs;
    labels that are not evaluated are void.

    Args:
        root: folder of ``training`` and ``validation``.
        version: "v1.2" or "v2.0"; the newest that is there if not given.

    Raises:
        ValueError: the folders are not there.
    """
    there = [v for v in _VERSIONS if os.path.isfile(f"{root}/config_{v}.json")]
    version = f"v{version.removeprefix('v')}" if version else (there or _VERSIONS)[0]
    config = os.path.join(root, f"config_{version}.json")
    if not os.path.isfile(config):
        config = os.path.join(root, "config.json")
    if not os.path.isfile(config):
        raise ValueError(f"There is neither config_{version}.json nor config.json in {root}: is it the dataset's root?")
    content = load_json(config)
    labels = content.get("labels") if isinstance(content, Mapping) else None
    if not isinstance(labels, list):
        raise ValueError(f"{config} is no configuration of Mapillary Vistas: it has no labels.")
    rows = [
        {"id": i + 1, "name": row.get("readable") or row["name"], "isthing": int(bool(row.get("instances")))}
        | ({"color": row["color"]} if row.get("color") else {})
        for i, row in enumerate(labels)
        if row.get("evaluate", True)
    ]
    known = {row["id"] - 1: row["id"] for row in rows}
    void = set(range(len(labels))) - known.keys()
    images: list[SourceImage] = []
    for split, folder in split_folders(root, {"train": "training", "val": "validation"}, "").items():
        base = os.path.join(root, folder)
        maps = next((m for m in (f"{base}/{version}/instances", f"{base}/instances") if os.path.isdir(m)), None)
        if maps is None:
            raise ValueError(f"There is neither {base}/{version}/instances nor {base}/instances.")
        regions = partial(MapRegions, encoding="value/256", known=known, void=void)
        images += paired(os.path.join(base, "images"), maps, "", "", split, regions)
    left_out = [row["name"] for row in labels if not row.get("evaluate", True)]
    notes = [f"labels that are not evaluated in {config} are void: {', '.join(left_out)}"] if left_out else []
    return Source(rows, _numbered_instances(images), [config], notes=notes)


def _numbered_instances(images: list[SourceImage]) -> list[SourceImage]:
    """Mapillary counts instances from 0, so every one is an instance of its own, none a crowd."""
    return [_without_crowds(image) for image in images]


def _without_crowds(image: SourceImage) -> SourceImage:
    return image if image.regions is None else replace(image, regions=partial(_no_crowds, image.regions))


def _no_crowds(regions: Callable[..., Any], size: tuple[int, int]) -> tuple[list[Region], Mapping[str, int]]:
    found, dropped = regions(size)
    return [Region(r.category, r.mask, z=r.z, group=r.group) for r in found], dropped
