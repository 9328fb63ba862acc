"""Parses commands as their programs do, and does nothing else: one JSON list of what is wrong, on standard output.

Run as a program, so that neither its imports nor what it replaces reach other tests. Its input is a JSON list of lists
of words.
"""

import argparse
import contextlib
import importlib.util
import io
import json
import os
import re
import runpy
import sys
from pathlib import Path
from typing import Any, NoReturn

import panoptic_fpn_ext.command
from panoptic_fpn_ext import model_zoo
from panoptic_fpn_ext.engine.setup import read_config

PLACE = re.compile(r"^[A-Z][A-Z0-9_]*(\.json)?$|^\$|^output/|^exported|^D=")
"""What stands for something of the reader's own, or is written by an earlier command."""


WRITTEN = {"predict.py": "panoptic_fpn_ext/export/predict.py"}
"""Programs that a command writes, and where they come from."""


class _Parsed(BaseException):
    """The command was parsed."""


def _stop_when_parsed(kind: Any) -> None:
    parse = kind.parse_known_args

    def parse_and_stop(self: Any, args: Any = None, namespace: Any = None) -> NoReturn:
        found, more = parse(self, args, namespace)
        if more:
            self.error(f"unrecognized arguments: {' '.join(more)}")
        raise _Parsed(found)

    def parse_args(self: Any, args: Any = None, namespace: Any = None) -> NoReturn:
        kind.parse_known_args = parse  # of subcommands' parsers too
        try:
            parse_and_stop(self, args, namespace)
        finally:
            kind.parse_known_args = parse_and_stop

    kind.parse_known_args, kind.parse_args = parse_and_stop, parse_args


def problem(words: list[str]) -> str:
    """What is wrong with a command; "" for nothing."""
    words = [WRITTEN.get(words[0], words[0]), *words[1:]]
    missing = [w for w in words if w.startswith(("configs/", "projects/", "tests/")) and not Path(w).exists()]
    if missing:
        return f"{missing} do not exist"
    if words[0] == "-m" and importlib.util.find_spec(words[1]) is None:
        return f"there is no module {words[1]}"
    if words[0].startswith("tests/") or (words[0] == "-m" and not words[1].startswith("panoptic_fpn_ext")):
        return ""
    said = io.StringIO()
    before, folder = sys.argv, sys.path[0]
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
            if words[0] == "-m":
                sys.argv = words[1:]
                runpy.run_module(words[1], run_name="__main__", alter_sys=True)
            else:
                sys.argv, sys.path[0] = words, str(Path(words[0]).parent)
                runpy.run_path(words[0], run_name="__main__")
    except _Parsed as parsed:
        return _config_problem(parsed.args[0])
    except SystemExit as end:
        return "" if not end.code else said.getvalue().strip().splitlines()[-1]
    except ImportError as error:
        return "" if "pip install" in str(error) or error.name in ("panopticapi", "hotcoco") else repr(error)
    finally:
        sys.argv, sys.path[0] = before, folder
    return "it parses nothing"


def _config_problem(found: argparse.Namespace) -> str:
    """A config that is not there, or options that it does not have."""
    name = getattr(found, "config_file", None) or getattr(found, "config", None)
    if not isinstance(name, str) or PLACE.match(name) or name.endswith(".py"):
        return ""
    try:
        path = name if os.path.isfile(name) else model_zoo.get_config_file(name)
        opts = [word for word in getattr(found, "opts", None) or [] if word != "--opts"]
        read_config(path, opts, trained=True)
    except (KeyError, ValueError, OSError, AssertionError) as error:
        return f"config {name}: {error}"
    return ""


if __name__ == "__main__":
    panoptic_fpn_ext.command.run_command = lambda main: main()  # type: ignore[assignment, return-value]
    _stop_when_parsed(argparse.ArgumentParser)
    found = [[" ".join(words), text] for words in json.load(sys.stdin) if (text := problem(words))]
    sys.stdout.write("\n" + json.dumps(found) + "\n")
