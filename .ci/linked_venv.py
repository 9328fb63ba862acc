"""A `.venv` that is a link: another checkout's or the user's own. It is used as it is; nothing behind it is changed."""

import os
import subprocess
import sys
from pathlib import Path

NEEDED = ("torch", "torchvision", "cv2", "detectron2", "pytest")
# Prints those of the names that are not there, and last where a package lies; imports none of them.
QUERY = """
import importlib.util, sys
*needed, package = sys.argv[1:]
print(", ".join(name for name in needed if importlib.util.find_spec(name) is None))
print(getattr(importlib.util.find_spec(package), "origin", None))
"""


def describe_linked_venv(venv: Path, root: Path, is_wanted: bool, has_unwanted_cuda: bool) -> str:
    """Says how the linked environment is used, or ends the set-up where it is not what was asked for.

    `is_wanted`: its Python works and has the version that was asked for. `has_unwanted_cuda`: its PyTorch has CUDA, and
    one without was asked for.
    """
    target = venv.resolve()
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [str(venv / "bin/python"), "-c", QUERY, *NEEDED, "panoptic_fpn_ext"]
    answer = subprocess.run(command, capture_output=True, text=True, cwd=target, env=environment)
    missing, package = [*answer.stdout.splitlines(), "", ""][:2]
    if answer.returncode or not is_wanted:
        lack = "no Python that works" if answer.returncode else "another Python than this"
    else:
        lack = "a PyTorch with CUDA" if has_unwanted_cuda else f"no {missing}" if missing else ""
    if lack:
        sys.exit(
            f"[setup] .venv is a link to {target}, which stays as it is, and has {lack}. Remove the link to let make "
            "set up an environment here, or mend what it points to."
        )
    text = f".venv is a link to {target}, which is used as it is"
    if Path(package).parent.parent == root:
        return text
    return f"{text}; outside of make, give PYTHONPATH={root} so that scripts run the code of this checkout"
