"""Damages a sound dataset at random, as a function of a seed."""

import copy
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bad_input_data import TinyDataset, truncate
from PIL import Image

VALUES = [None, -1, 0, 3, 2**40, 1.5, float("nan"), True, "", "x", "7", "../../x", [], {}, [1], {"a": 1}]
LABELS = {"category_id", "isthing", "iscrowd", "name"}
"""Fields whose value may be another one that is as right, which nobody can see."""


def damage(dataset: TinyDataset, seed: int) -> str:
    """Damage a dataset; gives what was done."""
    rng = random.Random(seed)
    kind = rng.choice([_value, _value, _value, _missing_key, _list, _text, _file, _file, _mode, _size, _exchange])
    return f"{kind.__name__}: {kind(dataset, rng)}"


def places(content: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths to all values of a JSON."""
    found = [path] if path else []
    items = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in items:
        found += places(value, (*path, key))
    return found


def parent(content: Any, path: tuple[Any, ...]) -> Any:
    """What holds the value at a path."""
    for key in path[:-1]:
        content = content[key]
    return content


def _value(dataset: TinyDataset, rng: random.Random) -> str:
    content = dataset.content = copy.deepcopy(dataset.content)
    path = rng.choice([p for p in places(content) if p[-1] not in LABELS])
    value = rng.choice(VALUES)
    parent(content, path)[path[-1]] = value
    dataset.save()
    return f"{path} is {value!r}"


def _missing_key(dataset: TinyDataset, rng: random.Random) -> str:
    content = dataset.content = copy.deepcopy(dataset.content)
    path = rng.choice([p for p in places(content) if isinstance(p[-1], str) and p[-1] not in ("iscrowd", "area")])
    del parent(content, path)[path[-1]]
    dataset.save()
    return f"no {path}"


def _list(dataset: TinyDataset, rng: random.Random) -> str:
    content = dataset.content = copy.deepcopy(dataset.content)
    path = rng.choice([p for p in places(content) if isinstance(p[-1], int) and isinstance(parent(content, p), list)])
    rows = parent(content, path)
    if rng.random() < 0.5:
        del rows[path[-1]]
    else:
        rows.append(copy.deepcopy(rows[path[-1]]))
    dataset.save()
    return f"{path}: a row more or less"


def _text(dataset: TinyDataset, rng: random.Random) -> str:
    text = json.dumps(dataset.content)
    at = rng.randrange(len(text))
    spoilt = rng.choice([text[:at], "", "null", "[]", "<html>", text[:at] + "\x00" + text[at:], text + text])
    dataset.json.write_text(spoilt)
    return f"JSON of {len(spoilt)} characters, at {at}"


def _file(dataset: TinyDataset, rng: random.Random) -> str:
    path = _some_file(dataset, rng)
    spoil: Callable[[Path], Any] = rng.choice(
        [
            Path.unlink,
            lambda p: truncate(p, rng.uniform(0, 0.95)),
            lambda p: p.write_bytes(b""),
            lambda p: p.write_text("version https://git-lfs.github.com/spec/v1\n"),
            lambda p: p.write_bytes(rng.randbytes(500)),
        ]
    )
    spoil(path)
    return f"{path.name} has {path.stat().st_size if path.exists() else 'no'} bytes"


def _mode(dataset: TinyDataset, rng: random.Random) -> str:
    path, mode = dataset.png(rng.randint(1, 3)), rng.choice(["L", "P", "RGBA", "I;16", "1", "BGR", "JPEG"])
    image = Image.open(path).convert("RGB")
    if mode == "BGR":
        Image.merge("RGB", image.split()[::-1]).save(path)
    elif mode == "JPEG":
        image.save(path, format="JPEG")
    elif mode == "I;16":
        image.convert("I").convert("I;16").save(path)
    else:
        image.convert(mode).save(path)
    return f"{path.name} is {mode}"


def _size(dataset: TinyDataset, rng: random.Random) -> str:
    path = _some_file(dataset, rng)
    image = Image.open(path)
    size = (rng.randint(1, 90), rng.randint(1, 90))
    image.resize(size, Image.Resampling.NEAREST).save(path)
    return f"{path.name} is {size}"


def _exchange(dataset: TinyDataset, rng: random.Random) -> str:
    """Panoptic maps of two images. That of images nobody can see."""
    one, other = rng.sample([1, 2, 3], 2)
    first, second = dataset.png(one).read_bytes(), dataset.png(other).read_bytes()
    dataset.png(one).write_bytes(second)
    dataset.png(other).write_bytes(first)
    return f"PNGs {one} and {other}"


def _some_file(dataset: TinyDataset, rng: random.Random) -> Path:
    return rng.choice([dataset.image, dataset.png])(rng.randint(1, 3))
