"""Text in any script as pixels: looks for a font that has the characters, and says once which to install if none has.

The characters that matplotlib's own font lacks (Chinese, Devanagari, Thai …) come from the fonts of the system. These
are looked through only when a text needs them, once a process.
"""

import logging
import os
import unicodedata
from collections.abc import Iterator
from functools import cache
from typing import Final

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from fontTools.ttLib import TTFont
from matplotlib import font_manager
from PIL import Image, ImageDraw, ImageFont

__all__ = ["text_mask"]

_TRIAL_SIZE: Final = 20  # px
# Names of fonts that are thin, slanted and so on come after the plain ones.
_LATER: Final = ("bold", "black", "light", "thin", "medium", "italic", "oblique", "condensed", "mono", "serif", "color")
_WITHOUT_SHAPES: Final = ("lastresort", "adobeblank")  # fonts that claim to have every character
# Marks, joiners and spaces are drawn by the font of what they follow.
_FOLLOWING: Final = ("Mn", "Mc", "Me", "Cf", "Zs", "Sk")
_CJK: Final = ("CJK", "HANGUL", "HIRAGANA", "KATAKANA", "IDEOGRAPHIC", "FULLWIDTH", "BOPOMOFO")

logger = logging.getLogger(__name__)


def text_mask(text: str, size: int) -> npt.NDArray[np.uint8]:
    """Opacity of a line of text.

    Characters that no font has are boxes; a warning names their script and a font to install, once for each script.

    Args:
        text: any Unicode; line breaks become spaces.
        size: of the font, in px.

    Returns:
        uint8 (h, w), 255 where the text is; ``h`` is about ``size`` and holds the tallest letters.
    """
    runs = [(_load(path, size), run) for path, run in _runs(" ".join(text.split()))]
    width = sum(max(font.getlength(run), font.getbbox(run)[2]) for font, run in runs)
    baseline = 2 * size  # room for marks above and below
    image = Image.new("L", (int(width) + 2, 3 * size))
    draw, x = ImageDraw.Draw(image), 1.0
    for font, run in runs:
        draw.text((x, baseline), run, fill=255, font=font, anchor="ls")
        x += font.getlength(run)
    ink = image.getbbox() or (0, baseline, 1, baseline)
    top, bottom = min(ink[1], baseline - round(0.76 * size)), max(ink[3], baseline + round(0.24 * size))
    return np.asarray(image)[top:bottom]


def _runs(text: str) -> Iterator[tuple[str, str]]:
    """Fonts' paths and the parts of a text that each draws, in order."""
    path, run = _default_font(), ""
    for character in text:
        wanted = path if unicodedata.category(character) in _FOLLOWING else _font_with(character)
        if wanted != path and run:
            yield path, run
            run = ""
        path, run = wanted, run + character
    if run:
        yield path, run


@cache
def _default_font() -> str:
    """DejaVu Sans, which matplotlib brings along: Latin, Greek, Cyrillic, Arabic, Hebrew."""
    return os.path.join(mpl.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")


@cache
def _font_with(character: str) -> str:
    """Path of the first font that draws a character: the default one where none does."""
    for path in (_default_font(), *_system_fonts()):
        if ord(character) in _characters(path) and _draws(path, character):
            return path
    _say_what_is_missing(_script(character), character)
    return _default_font()


@cache
def _system_fonts() -> tuple[str, ...]:
    """Paths, plain fonts first."""

    def later(path: str) -> tuple[int, str]:
        name = os.path.basename(path).lower()
        return sum(word in name for word in _LATER), path

    paths = (str(path) for path in font_manager.findSystemFonts())
    return tuple(sorted((p for p in paths if not os.path.basename(p).lower().startswith(_WITHOUT_SHAPES)), key=later))


class _Characters:
    """The characters of a font, in a few kB: systems have hundreds of fonts."""

    def __init__(self, codes: npt.NDArray[np.uint32]) -> None:
        self._codes = codes

    def __contains__(self, code: int) -> bool:
        position = int(np.searchsorted(self._codes, code))
        return position < len(self._codes) and int(self._codes[position]) == code


@cache
def _characters(path: str) -> _Characters:
    try:
        with open(path, "rb") as f, TTFont(f, fontNumber=0, lazy=True) as font:
            codes = sorted(font.getBestCmap() or ())
    except Exception:  # no font, or a broken one, at which fontTools fails in many ways
        codes = []
    return _Characters(np.asarray(codes, dtype=np.uint32))


def _draws(path: str, character: str) -> bool:
    """Whether Pillow sees a shape; it does not in fonts of coloured bitmaps."""
    try:
        return _load(path, _TRIAL_SIZE).getmask(character).getbbox() is not None
    except OSError:
        return False


@cache
def _load(path: str, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(path, size)


def _script(character: str) -> str:
    """First word of the character's name, as CJK, THAI or HANGUL."""
    return unicodedata.name(character, "UNKNOWN").split()[0]


@cache
def _said() -> set[str]:
    return set()


def _say_what_is_missing(script: str, character: str) -> None:
    kind = "CJK" if script in _CJK else "emoji" if unicodedata.category(character) == "So" else script
    if kind in _said():
        return
    _said().add(kind)
    fonts = {
        "CJK": ("Noto Sans CJK", "fonts-noto-cjk"),
        "emoji": ("Symbola or the uncoloured Noto Emoji", "fonts-symbola"),
    }
    name, package = fonts.get(kind, (f"Noto Sans {script.title()}", "fonts-noto-core"))
    logger.warning(
        f"No font here has {character!r} ({kind}), so labels show boxes. Install {name}, on Debian and Ubuntu "
        f"`apt-get install {package}`, or put a font file into ~/.local/share/fonts."
    )
