"""Text in any script: fonts are found where there are any, and named where there are none."""

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib import font_manager

from panoptic_fpn_ext.visualization import text
from panoptic_fpn_ext.visualization.text import text_mask


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No font but the default one, and nothing remembered."""
    monkeypatch.setattr(font_manager, "findSystemFonts", list)
    _forget()
    yield
    _forget()


def _forget() -> None:
    for function in (text._font_with, text._system_fonts, text._characters, text._said):
        function.cache_clear()


def _font(path: Path, characters: str, filled: bool = True) -> str:
    """A font whose characters are full squares, or empty."""
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder([".notdef", "square"])
    builder.setupCharacterMap({ord(c): "square" for c in characters})
    pen = TTGlyphPen(None)
    if filled:
        pen.moveTo((0, 0))
        for point in ((0, 900), (900, 900), (900, 0)):
            pen.lineTo(point)
        pen.closePath()
    square = pen.glyph()
    builder.setupGlyf({".notdef": TTGlyphPen(None).glyph(), "square": square})
    builder.setupHorizontalMetrics({".notdef": (1000, 0), "square": (1000, 0)})
    builder.setupHorizontalHeader(ascent=900, descent=-100)
    builder.setupNameTable({"familyName": "Squares", "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    builder.save(path)
    return str(path)


@pytest.mark.parametrize("label", ["person 98%", "машина", "αυτοκίνητο", "سيارة", "מכונית", "Tür|crowd"])
def test_scripts_that_need_no_other_font(label: str, caplog: pytest.LogCaptureFixture):
    mask = text_mask(label, 16)
    assert mask.dtype == np.uint8
    assert 16 <= mask.shape[0] <= 32
    assert mask.max() > 200
    assert not caplog.records


def test_a_font_of_the_system_is_taken_for_what_the_default_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    (tmp_path / "broken.ttf").write_bytes(b"no font")
    paths = [
        str(tmp_path / "broken.ttf"),
        _font(tmp_path / "AdobeBlank.ttf", "汉"),
        _font(tmp_path / "empty.ttf", "汉", filled=False),
        _font(tmp_path / "squares-Bold.ttf", "汉"),
        _font(tmp_path / "squares.ttf", "汉कe"),
    ]
    monkeypatch.setattr(font_manager, "findSystemFonts", lambda: paths)
    assert (text_mask("汉", 100)[5:85, 10:80] == 255).all()
    assert text._font_with("汉") == paths[-1]
    assert text._font_with("e") == text._default_font()
    assert text_mask("a汉a", 100).shape[1] > text_mask("aa", 100).shape[1] + 80
    assert list(text._runs("a क ai")) == [
        (text._default_font(), "a "),
        (paths[-1], "क "),
        (text._default_font(), "ai"),
    ]
    assert not caplog.records


def test_what_to_install_is_said_once_for_each_script(caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.WARNING):
        for label in ("汽车 98%", "自転車", "자동차", "गाड़ी", "รถ", "🐶", "汉"):
            assert text_mask(label, 16).max() > 200  # boxes
    said = [record.getMessage() for record in caplog.records]
    assert [("fonts-noto-cjk" in m, "Devanagari" in m, "Thai" in m, "fonts-symbola" in m) for m in said] == [
        (True, False, False, False),
        (False, True, False, False),
        (False, False, True, False),
        (False, False, False, True),
    ]


@pytest.mark.parametrize("label", ["", " ", "a\nb", "\u200d", "x" * 500, "\u0e33", "\x00", "\ud800"])
def test_odd_text_is_drawn_somehow(label: str):
    mask = text_mask(label, 12)
    assert mask.shape[0] >= 12
    assert mask.shape[1] >= 1
