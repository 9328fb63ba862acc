"""The table of accelerations: every row is proved by a test, is used, and changes nothing but cost."""

import ast
import copy
import pickle
from pathlib import Path

import pytest
import torch
from small_models import built, tiny_batch, tiny_cfg, training_step

from panoptic_fpn_ext import optimize_for_inference
from panoptic_fpn_ext.modeling.acceleration import ACCELERATIONS
from panoptic_fpn_ext.modeling.acceleration.replace import Place, When, replace_modules, take_over


def _name(faster: object) -> str:
    return getattr(faster, "__qualname__", str(faster))


@pytest.mark.parametrize("row", ACCELERATIONS, ids=lambda row: _name(row.faster))
def test_every_row_names_a_test_that_exists(row):
    file, function = row.test.split("::")
    path = Path(__file__).parent / file
    assert function in {node.name for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef)}
    assert _name(row.faster).split(".")[0] in path.read_text()


def test_every_row_finds_modules_in_common_models():
    used = set()
    for backbone in ("build_resnet_fpn_backbone", "build_efficientnet_lite0_fpn_backbone"):
        cfg = tiny_cfg("PanopticFPN")
        cfg.MODEL.BACKBONE.NAME = backbone
        model = built(cfg)
        for row in ACCELERATIONS:
            before = copy.deepcopy(model)
            changed = replace_modules(model, [row])
            kinds = [[(type(module), str(module)) for module in one.modules()] for one in (before, changed)]
            layouts = [[(p.stride(), p.dtype) for p in one.parameters()] for one in (before, changed)]
            if kinds[0] != kinds[1] or layouts[0] != layouts[1] or _activations(before) != _activations(changed):
                used.add(row)
    assert [_name(row.faster) for row in ACCELERATIONS if row not in used] == []


def _activations(model: torch.nn.Module) -> list[object]:
    return [vars(module).get("activation") for module in model.modules()]


@pytest.mark.parametrize("architecture", ["PanopticFPNExt", "SeparatePanopticNetworks"])
def test_our_models_are_built_with_every_row_for_training(architecture):
    model = built(tiny_cfg(architecture))
    kinds = [type(module) for module in model.modules()]
    replace_modules(model, [row for row in ACCELERATIONS if When.TRAINING in row.when])
    assert [type(module) for module in model.modules()] == kinds  # nothing was left to do
    assert {row.faster for row in ACCELERATIONS if When.TRAINING in row.when} <= set(kinds)


def test_parameters_names_hooks_and_references_stay():
    plain = built(tiny_cfg("PanopticFPN"))
    state, parameters = plain.state_dict(), dict(plain.named_parameters())
    called = []
    for name, module in plain.named_modules():
        module.register_forward_hook(lambda *_, name=name: called.append(name))
    training_step(plain, tiny_batch(compact=False))
    expected, called[:] = sorted(set(called)), []
    faster = replace_modules(plain, ACCELERATIONS[:3])
    training_step(faster, tiny_batch(compact=False))
    assert sorted(set(called)) == expected
    assert list(faster.state_dict()) == list(state)
    assert all(parameter is parameters[name] for name, parameter in faster.named_parameters())


def test_lists_of_layers_follow():
    """detectron2's FPN and heads keep their layers in plain lists too."""
    optimized = optimize_for_inference(built(tiny_cfg()).eval())
    modules = set(optimized.modules())
    for parent in modules:
        for value in vars(parent).values():
            if isinstance(value, list):
                assert all(layer in modules for layer in value if isinstance(layer, torch.nn.Module)), type(parent)


def test_a_module_with_a_forward_of_its_own_stays():
    model = torch.nn.Sequential(torch.nn.ReLU())
    model[0].forward = lambda x: x
    (row,) = (row for row in ACCELERATIONS if row.module == (torch.nn.ReLU, torch.nn.ReLU6))
    assert not row._replace(fits=lambda _: True).applies_to(Place(model[0]))


def test_what_is_taken_over_is_shared_and_pickles():
    linear = torch.nn.Linear(3, 4)
    twin = take_over(torch.nn.Linear, linear)
    assert twin is not linear and twin.weight is linear.weight
    x = torch.randn(2, 3)
    assert torch.equal(pickle.loads(pickle.dumps(twin))(x), linear(x))
    assert torch.equal(copy.deepcopy(twin)(x), linear(x))
