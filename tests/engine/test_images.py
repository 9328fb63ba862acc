"""Which images a command line means, and what results are called."""

from pathlib import Path

import pytest

from panoptic_fpn_ext.engine.images import find_images
from panoptic_fpn_ext.unique_names import UniqueNames


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.JPG", "a.x.png", "notes.txt", "sub/c.jpeg", "sub/deep/d.webp", "out/b.png"):
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return tmp_path / "in"


def _found(folder: Path, *inputs: str, output: str | None = "out") -> list[str]:
    paths = find_images([str(folder / i) for i in inputs], str(folder / output) if output else None)
    return [str(Path(path).relative_to(folder)) for path in paths]


def test_folders_are_searched_with_their_subfolders_and_without_the_output(folder: Path):
    assert _found(folder, "") == ["a.x.png", "b.JPG", "sub/c.jpeg", "sub/deep/d.webp"]
    assert "out/b.png" in _found(folder, "", output=None)


def test_the_panoptic_pngs_of_a_conversion_are_no_input(folder: Path):
    """``--data`` writes them beside the images that they were made from."""
    for name in ("conversion.json", "images/a.x.png", "panoptic_train/a.x.png"):
        path = folder / "sub/panoptic_fpn_ext" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    (folder / "sub/panoptic_fpn_ext/images/b.JPG").symlink_to(folder / "b.JPG")
    expected = ["a.x.png", "b.JPG", "sub/c.jpeg", "sub/deep/d.webp", "sub/panoptic_fpn_ext/images/a.x.png"]
    assert _found(folder, "") == expected
    assert len(_found(folder, "sub/panoptic_fpn_ext")) == 2


def test_hidden_files_of_a_folder_are_no_input(folder: Path):
    (folder / "._a.jpg").write_bytes(b"what another system leaves beside a.jpg")
    assert not [path for path in find_images([str(folder)]) if "._" in path]
    assert find_images([str(folder / "._a.jpg")]) == [str(folder / "._a.jpg")]


def test_patterns(folder: Path):
    assert _found(folder, "*.*") == ["a.x.png", "b.JPG"]
    assert _found(folder, "s*") == ["sub/c.jpeg", "sub/deep/d.webp"]
    assert _found(folder, "**/*.webp") == ["sub/deep/d.webp"]


def test_files_are_taken_as_given_each_once_in_order(folder: Path):
    assert _found(folder, "sub/c.jpeg", "notes.txt", "sub", "sub/../b.JPG") == [
        "sub/c.jpeg",
        "notes.txt",
        "sub/deep/d.webp",
        "sub/../b.JPG",
    ]


def test_a_file_whose_name_looks_like_a_pattern(folder: Path):
    (folder / "[1].png").write_text("")
    assert _found(folder, "[1].png") == ["[1].png"]


@pytest.mark.parametrize("name", ["nowhere.png", "*.gif"])
def test_an_input_without_images_is_named(folder: Path, name: str):
    with pytest.raises(FileNotFoundError) as caught:
        find_images([str(folder / "b.JPG"), str(folder / name)])
    assert name in str(caught.value)


def test_inputs_in_the_output_folder_only(folder: Path):
    with pytest.raises(FileNotFoundError, match="output folder"):
        find_images([str(folder / "sub")], str(folder))


def test_names_are_stems_and_never_the_same():
    names = UniqueNames()
    paths = ["a/x.y.jpg", "b/x.y.png", "x.y_2.png", "X.Y.jpg", "c/z.jpg"]
    assert [names.take(path) for path in paths] == ["x.y", "x.y_2", "x.y_2_2", "X.Y_3", "z"]
