"""What the pixels of a binary mask say is the object: by value, by colour, by alpha."""

import numpy as np
import pytest
from PIL import Image
from test_tool_layouts import H, W, converted, image, save


def test_masks_with_shades_are_cut_at_half(tmp_path):
    mask = np.zeros((H, W), np.uint8)
    mask[2:6, 3:9] = 255
    image(tmp_path / "a.png")
    save(
        tmp_path / "a" / "cell_1.png",
        np.where(mask > 0, 250, 3).astype(np.uint8) + (mask > 0) * (np.arange(W) % 3 == 0),
    )
    lines: list[str] = []
    assert converted(f"masks {tmp_path} --output {tmp_path}/out", lines) == {"all": [[("cell", 24)]]}
    assert "mask with shades between two values" in "\n".join(lines)


def _palette(mask: np.ndarray, *colors: tuple[int, int, int]) -> Image.Image:
    picture = Image.fromarray(mask.astype(np.uint8), "P")
    picture.putpalette([value for color in colors for value in color])
    return picture


def _alpha(rgb: int, mask: np.ndarray) -> Image.Image:
    return Image.fromarray(np.dstack([np.full((H, W, 3), rgb, np.uint8), (mask * 255).astype(np.uint8)]), "RGBA")


@pytest.mark.parametrize(
    "picture",
    [
        lambda mask: _palette(mask == 0, (255, 255, 255), (0, 0, 0)),  # as `quantize` orders them
        lambda mask: _palette(mask, (0, 0, 0), (128, 0, 0)),
        lambda mask: _palette(mask, (255, 255, 255), (255, 0, 0)),
        lambda mask: _alpha(255, mask),
        lambda mask: _alpha(0, mask),
        lambda mask: Image.fromarray((mask * 255).astype(np.uint8)).convert("RGB"),
        lambda mask: Image.fromarray((mask * 255).astype(np.uint8)).convert("LA"),
        lambda mask: Image.fromarray((mask * 255).astype(np.uint8)).convert("RGBA"),
    ],
)
def test_masks_in_colours_and_in_alpha(tmp_path, picture):
    mask = np.zeros((H, W), bool)
    mask[2:6, 3:9] = True
    image(tmp_path / "a.png")
    (tmp_path / "a").mkdir()
    picture(mask).save(tmp_path / "a" / "cell_1.png")
    assert converted(f"masks {tmp_path} --output {tmp_path}/out", []) == {"all": [[("cell", 24)]]}


def test_a_mask_of_two_values_above_0_is_refused(tmp_path):
    image(tmp_path / "a.png")
    save(tmp_path / "a" / "cell_1.png", np.where(np.arange(W) < 3, 2, 1).astype(np.uint8).repeat(H).reshape(W, H).T)
    with pytest.raises(ValueError, match="has the values 1 and 2: 0 must be what is not the object"):
        converted(f"masks {tmp_path} --output {tmp_path}/out", [])
