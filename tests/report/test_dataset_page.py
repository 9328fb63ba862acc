"""The page of a dataset: one file that needs no network, and no name of the data becomes markup."""

import re
from html.parser import HTMLParser
from pathlib import Path

from bad_input_data import TinyDataset, truncate

from panoptic_fpn_ext.data.check.__main__ import main

EVIL = "<script>alert(1)</script>\"'&"


class _Tags(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text += data


def _page(dataset: TinyDataset, *paths: Path) -> tuple[str, _Tags]:
    page = dataset.json.parent / "page.html"
    main([str(dataset.json), str(dataset.panoptic), *map(str, paths), "--html", str(page), "--processes", "1"])
    text = page.read_text(encoding="utf-8")
    return text, _Tags(text)


def test_a_page_stands_alone_and_shows_everything(tmp_path: Path):
    dataset = TinyDataset(tmp_path / "data", num=3)
    text, tags = _page(dataset, dataset.images)
    assert tags.tags.count("img") == 3
    assert tags.tags.count("svg") == 5
    assert "script" not in tags.tags
    assert all("url(" not in (value or "") for _, value in tags.attributes)
    sources = [value for key, value in tags.attributes if key in ("src", "href")]
    assert all(value is not None and value.startswith("data:image/") for value in sources)
    assert re.search(r"ball.*thing", text)
    assert "48.0" not in text


def test_names_are_text(tmp_path: Path):
    dataset = TinyDataset(tmp_path / "data", num=2)
    dataset.content["categories"] = [
        {**dataset.content["categories"][0], "name": EVIL},
        *dataset.content["categories"][1:],
    ]
    dataset.content["annotations"][0]["segments_info"][0]["category_id"] = 999
    dataset.content["images"][1]["file_name"] = "<img src=x onerror=alert(1)>.jpg"
    dataset.save()
    _, tags = _page(dataset, dataset.images)
    assert "script" not in tags.tags
    assert not any(key.startswith("on") for key, _ in tags.attributes)
    assert EVIL in tags.text


def test_a_broken_dataset_has_a_page_too(tmp_path: Path):
    dataset = TinyDataset(tmp_path / "data", num=2)
    truncate(dataset.png(1))
    dataset.image(2).unlink()
    assert "Images that do not exist: 1" in _page(dataset, dataset.images)[1].text
    assert _page(dataset)[1].tags.count("img") == 1  # on grey
    dataset.json.write_text("{")
    assert "The JSON cannot be read" in _page(dataset)[1].text
