"""Every command of the documentation is one that its program takes: options, values, files, config keys, targets."""

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from places import REPOSITORY

PAGES = [
    REPOSITORY / "README.md",
    *sorted(REPOSITORY.glob("docs/*.md")),
    *sorted(REPOSITORY.glob("projects/*/README.md")),
]
PAGES.append(REPOSITORY / "configs" / "README.md")
FENCES = re.compile(r"^ *```([^\n]*)\n(.*?)^ *```", re.M | re.S)
INLINE = re.compile(r"`((?:python|make) [^`]+)`")
ELISION = re.compile(r"…|^\[|\bFORMAT\b|PATTERN")
"""The reader has to fill in."""


def _lines(page: Path) -> Iterator[tuple[str, bool]]:
    """Commands of a page, and whether each stands in a block of its own."""
    text = page.read_text(encoding="utf-8")
    for language, block in FENCES.findall(text):
        if language not in ("", "bash", "sh", "console"):
            continue
        yield from ((line.strip(), True) for line in re.sub(r"\\\n\s*", " ", block).splitlines())
    yield from ((line, False) for line in INLINE.findall(re.sub(r"\n", " ", re.sub(FENCES, "", text))))


def _commands() -> Iterator[tuple[str, list[str]]]:
    """Page and words of each, from ``python`` or ``make`` on."""
    for page in PAGES:
        for line, is_block in _lines(page):
            for words in _simple_commands(_expanded(line)) if re.search(r"\b(python|make)\b", line) else ():
                first = next((i for i, word in enumerate(words) if word in ("python", "make")), len(words))
                prefix, found = words[:first], words[first:]
                needed = (
                    2 if is_block or found[:1] == ["make"] else 4 if found[1:2] == ["-m"] else 3
                )  # else it is a name
                plain = all("=" in word for word in prefix) or prefix[:1] == ["srun"]
                if plain and len(found) >= needed and not any(ELISION.search(word) for word in found):
                    yield str(page.relative_to(REPOSITORY)), found


def _simple_commands(line: str) -> Iterator[list[str]]:
    lexer = shlex.shlex(line, posix=True, punctuation_chars=";|&")
    lexer.whitespace_split = True
    words: list[str] = []
    for word in [*lexer, ";"]:
        if set(word) <= set(";|&"):
            yield words
            words = []
        else:
            words.append(word)


def _expanded(text: str) -> str:
    """Braces as the shell expands them."""
    found = re.search(r"(\S*)\{([^{}$]*,[^{}]*)\}(\S*)", text)
    if not found or "'" in text:
        return text
    parts = " ".join(f"{found[1]}{part}{found[3]}" for part in found[2].split(","))
    return text[: found.start()] + parts + text[found.end() :]


def test_commands_of_the_documentation_are_understood():
    commands = list(_commands())
    assert len(commands) > 50
    targets = set(re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(), re.M))
    unknown = [(page, words) for page, words in commands if words[0] == "make" and not set(words[1:]) <= targets]
    assert not unknown
    programs = [words[1:] for _, words in commands if words[0] == "python"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")])}
    result = subprocess.run(
        [sys.executable, str(REPOSITORY / "tests" / "documented_commands.py")],
        input=json.dumps(programs), cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-2000:]
    assert json.loads(result.stdout.splitlines()[-1]) == []
