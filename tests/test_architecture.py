"""The dependency rule: who imports whom inside the package."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import panoptic_fpn_ext

PACKAGE = Path(panoptic_fpn_ext.__file__).parent
PROJECTS = PACKAGE.parent / "projects"
ROOMS = {"data", "modeling", "evaluation"}
FOUNDATIONS = {
    "structures",
    "categories",
    "category_comparison",
    "panoptic_png",
    "panoptic_map",
    "index_masks",
    "opencv",
    "cityscapes_labels",
    "coco_fields",
    "coco_json",
    "coco_records",
    "unique_names",
}
CALLS = {"accelerate_training", "optimize_for_inference"}
PURE = {
    "data/targets.py",
    "modeling/combiner/bilateral_grid.py",
    "modeling/combiner/dense_crf.py",
    "modeling/combiner/din.py",
    "modeling/combiner/din_unary.py",
    "modeling/combiner/heuristic.py",
    "modeling/combiner/segments.py",
    "modeling/graph_capture.py",
    "modeling/losses.py",
    "modeling/postprocessing/instances.py",
    "modeling/postprocessing/labels.py",
    "modeling/postprocessing/masks.py",
    "modeling/postprocessing/memory.py",
    "modeling/postprocessing/resize.py",
    "evaluation/panoptic_quality.py",
    *(
        f"evaluation/errors/{name}.py"
        for name in ("causes", "costs", "measured", "shapes", "image", "strata", "bootstrap")
    ),
    *(f"{name}.py" for name in FOUNDATIONS),
}


def _imports(path: Path) -> set[str]:
    """Full names of the modules that a file imports, relative ones resolved."""
    package = ["panoptic_fpn_ext", *path.relative_to(PACKAGE).parts[:-1]]
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            names |= {module, *(f"{module}.{alias.name}" for alias in node.names)}
    return names


def _room(module: str) -> str:
    parts = module.split(".")
    return parts[1] if parts[0] == "panoptic_fpn_ext" and len(parts) > 1 else ""


def _files() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def test_data_modeling_and_evaluation_never_import_one_another():
    wrong = [
        (str(path.relative_to(PACKAGE)), name)
        for path in _files()
        if (room := path.relative_to(PACKAGE).parts[0]) in ROOMS
        for name in _imports(path)
        if _room(name) in ROOMS - {room} or _room(name) in {"engine", "model_zoo", "visualization", "report"}
    ]
    # A command joins what it needs.
    assert not [(path, name) for path, name in wrong if (path, _room(name)) != ("data/check/__main__.py", "report")]


def test_pure_modules_know_no_catalogs_and_no_upper_rooms():
    for name in PURE:
        imported = _imports(PACKAGE / name)
        assert not any("Catalog" in module for module in imported), name
        assert not any(
            _room(module) in {"config", "engine", "model_zoo", "visualization", "report"} for module in imported
        ), name


def test_acceleration_stands_below_the_meta_architectures_and_knows_no_config():
    meta_architectures = {"panoptic_fpn", "separate_networks", "sem_seg_head", "combiner", "losses", "postprocessing"}
    for path in (PACKAGE / "modeling" / "acceleration").glob("*.py"):
        imported = _imports(path)
        assert not any("config" in name or "Catalog" in name for name in imported), path.name
        assert not any(_below(name, "panoptic_fpn_ext.modeling") in meta_architectures for name in imported), path.name
        assert "cfg" not in path.read_text(), path.name
    for path in (PACKAGE / "modeling").glob("*.py"):  # one call, whatever stands behind it
        parts = {name for name in _imports(path) if name.startswith("panoptic_fpn_ext.modeling.acceleration.")}
        assert parts <= {f"panoptic_fpn_ext.modeling.acceleration.{name}" for name in CALLS}, path.name


def test_the_folders_of_the_engine_know_only_those_below():
    below = {
        "processes": set(),
        "settings": set(),
        "checkpoints": {"settings"},
        "training": {"settings", "checkpoints"},
        "evaluating": {"settings", "checkpoints"},
    }
    engine = PACKAGE / "engine"
    assert below.keys() == {path.parent.name for path in engine.glob("*/__init__.py")}
    for folder, allowed in below.items():
        for path in (engine / folder).glob("*.py"):
            parts = {name for module in _imports(path) if (name := _below(module, "panoptic_fpn_ext.engine"))}
            assert parts <= {folder, *allowed}, path.name


def test_nothing_is_imported_from_a_conftest():
    """Which of several is found depends on the order in which pytest collects."""
    for path in Path(__file__).parent.rglob("*.py"):
        assert not re.search(r"^\s*(from|import) conftest\b", path.read_text(encoding="utf-8"), re.M), path


def test_files_are_of_a_size_that_one_reads():
    files = [*_files(), *(PACKAGE.parent / "projects").rglob("*.py")]
    assert not [path for path in files if len(path.read_text(encoding="utf-8").splitlines()) > 300]


def _below(module: str, package: str) -> str:
    """Name of what a module is or stands in, directly below a package."""
    return module.removeprefix(f"{package}.").split(".")[0] if module.startswith(f"{package}.") else ""


def test_importing_registers_classes_and_no_datasets():
    """In a process of its own, which no other test has touched."""
    program = """
import warnings
warnings.simplefilter("error")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what the dependencies say among themselves
    import torch, cv2, detectron2.modeling, detectron2.evaluation
    from detectron2.data import DatasetCatalog
    before = set(DatasetCatalog)
import panoptic_fpn_ext
from detectron2.modeling import META_ARCH_REGISTRY, SEM_SEG_HEADS_REGISTRY
from panoptic_fpn_ext.modeling import PANOPTIC_COMBINER_REGISTRY
assert "PanopticFPNExt" in META_ARCH_REGISTRY
assert "PanopticFPNSemSegHead" in SEM_SEG_HEADS_REGISTRY
assert "HeuristicCombiner" in PANOPTIC_COMBINER_REGISTRY
assert set(DatasetCatalog) == before
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_numbers_of_command_lines_have_a_range():
    """``whole`` and ``real`` of ``command`` refuse a count of 0, a size of -1 and nan where they are typed."""
    for path in sorted([*PACKAGE.rglob("*.py"), *PROJECTS.glob("*/*.py")]):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "add_argument":
                types = [ast.unparse(keyword.value) for keyword in node.keywords if keyword.arg == "type"]
                assert not {"int", "float"}.intersection(types), f"{path}: {ast.unparse(node)}"


def test_scripts_end_as_commands_do():
    """A wrong path is one line and exit status 2, not a traceback."""
    for path in PROJECTS.glob("*/*.py"):
        _, is_script, end = path.read_text().partition('\nif __name__ == "__main__":\n')
        assert not is_script or "run_command(" in end, path
