"""What a conversion does in any format: its options, parts, and what is not made a second time."""

import json
import shlex
from pathlib import Path

import pytest
from format_drawing import LAYERS, assert_drawn, converted, drawn, write_coco

from panoptic_fpn_ext.data.convert import convert_description, main, parse_description


def test_a_second_conversion_is_made_only_where_something_changed(tmp_path):
    path = write_coco(tmp_path)
    text = f"coco {path} {LAYERS} --output {tmp_path}/out"
    first, second, third = [], [], []
    converted(text, first)
    converted(text, second)
    assert second == [f"{tmp_path}/out is up to date."]
    path.write_text(path.read_text() + "\n")
    converted(text, third)
    assert third == first


def test_a_result_of_another_source_is_kept(tmp_path):
    path = write_coco(tmp_path)
    other = path.with_name("other.json")
    other.write_text(path.read_text())
    output = f"--output {tmp_path}/out"
    content, _ = converted(f"coco {path} {LAYERS} {output}")
    with pytest.raises(ValueError, match=f"holds what was converted from {path}. Name another folder by --output"):
        converted(f"coco {other} {LAYERS} {output}")
    assert converted(f"coco {path} {LAYERS} {output} --unlabelled wall")[0]["images"] == content["images"]  # its own
    path.rename(path.with_name("moved.json"))
    assert converted(f"coco {path.with_name('moved.json')} {LAYERS} {output}")[0] == content


def test_unlabelled_pixels_may_be_a_class(tmp_path):
    path = write_coco(tmp_path)
    content = json.loads(path.read_text())
    content["annotations"] = [row for row in content["annotations"] if row["category_id"] in (3, 4)]
    path.write_text(json.dumps(content))
    found, folder = converted(f"coco {path} --layers 'car < person' --unlabelled background --output {tmp_path}/out")
    expected = drawn()
    expected["background"] = [expected.pop("wall")[0] | expected.pop("road")[0]]
    assert_drawn(found, folder, expected)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("--things cars", "Did you mean 'car'?"),
        ("--things car --stuff car", "both name car"),
        ("--layers 'car < car'", "twice"),
        ("--things car --unlabelled car", "which is a thing"),
        ("--split 0.5/0.5", "without an image"),
        ("--group 'x(.*)' --split 0.5/0.5", "does not match"),
        ("--processes -3", "an integer of at least 0, not -3"),
    ],
)
def test_options_that_do_not_fit_are_one_line(options, says, tmp_path):
    with pytest.raises(ValueError, match=says.replace("?", r"\?")):
        converted(f"coco {write_coco(tmp_path)} {options}")


def test_a_folder_of_parts(tmp_path):
    for part in ("train", "valid"):
        write_coco(tmp_path / part)
    parts = convert_description(
        parse_description(f"coco {tmp_path} {LAYERS} --output {tmp_path}/out"), lambda line: None
    )
    assert {part: Path(path).name for part, path in parts.items()} == {
        "train": "panoptic_train.json",
        "val": "panoptic_val.json",
    }
    content = json.loads((tmp_path / "valid" / "_annotations.coco.json").read_text())
    content["categories"][1]["name"] = "street"
    (tmp_path / "valid" / "_annotations.coco.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match="categories of train and valid differ"):
        converted(f"coco {tmp_path} {LAYERS} --output {tmp_path}/out")


def test_the_words_to_register_name_parts_by_their_folder_or_their_split(tmp_path, capsys):
    """Two folders that were converted apart have two names."""
    path = write_coco(tmp_path)
    for folder in ("train", "val"):
        main(["coco", str(path), *shlex.split(LAYERS), "--output", str(tmp_path / folder)])
        words = shlex.split(capsys.readouterr().out.splitlines()[-1])
        at = tmp_path / folder
        assert words == ["--register", f"my_{folder}", *(f"{at}/{x}" for x in ("images", "panoptic", "panoptic.json"))]
