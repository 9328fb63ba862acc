"""Modules of a built model replaced by faster ones that take over their parameters, names and hooks."""

import enum
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from torch import nn

__all__ = ["Acceleration", "Place", "When", "anywhere", "replace_modules", "take_over"]


class When(enum.Flag):
    """What a faster module is for. It also works in the other case, no faster than the module that it replaces."""

    TRAINING = enum.auto()
    INFERENCE = enum.auto()
    BFLOAT16 = enum.auto()
    """Inference in bfloat16."""


class Place(NamedTuple):
    """Where a module stands in a model.

    Attributes:
        module: the module itself.
        parents: the modules that hold it, nearest first.
        previous: the child before it of the same parent.
    """

    module: Any
    parents: tuple[Any, ...] = ()
    previous: Any = None

    @property
    def parent(self) -> Any:
        """The module that holds it, None for a whole model."""
        return self.parents[0] if self.parents else None


def anywhere(place: Place) -> bool:
    """Whatever stands around it."""
    return True


class Acceleration(NamedTuple):
    """One row of the table: a module and what takes its place.

    Attributes:
        module: classes that are replaced. Classes derived from them may compute something else, so they stay, except
            where ``with_subclasses`` is set.
        faster: a class that takes over all that the module has, by its ``from_place`` where it has one; or a function
            that changes the module and returns it.
        when: for training, for inference or for both.
        test: shows that results stay the same; a path below ``tests/`` and a function.
        fits: what must also hold where the module stands.
        with_subclasses: whether derived classes are replaced, too.
    """

    module: tuple[type[nn.Module], ...]
    faster: Any
    when: When
    test: str
    fits: Callable[[Place], bool] = anywhere
    with_subclasses: bool = False

    def applies_to(self, place: Place) -> bool:
        """Whether the module in a place is to be replaced."""
        module = place.module
        is_meant = isinstance(module, self.module) if self.with_subclasses else type(module) in self.module
        return is_meant and _computes_as_its_class(module) and self.fits(place)

    def make(self, place: Place) -> nn.Module:
        """What takes the place."""
        if not isinstance(self.faster, type):
            return self.faster(place)
        from_place = getattr(self.faster, "from_place", None)
        new: nn.Module = from_place(place) if from_place else take_over(self.faster, place.module)
        return new


def replace_modules(model: nn.Module, rows: Sequence[Acceleration]) -> Any:
    """Replace the modules of a model that rows of the table name, one row after the other.

    A module that stands in several places is replaced where all of them fit, and stays one module.

    Args:
        model: it is changed.
        rows: in the order in which they are applied.

    Returns:
        The model, or what takes its place if it is such a module itself.
    """
    for row in rows:
        places: dict[nn.Module, list[Place]] = {}
        for place in _places(Place(model)):
            places.setdefault(place.module, []).append(place)
        faster = {
            module: row.make(where[0])
            for module, where in places.items()
            if all(row.applies_to(place) for place in where)
        }
        _put(model, faster)
        model = faster.get(model, model)
    return model


def take_over(new_class: type[nn.Module], module: nn.Module) -> Any:
    """A module of another class with the state of a given one: the same parameters, buffers, children and hooks.

    The given one stays usable: whoever still holds it computes the same with the same parameters.
    """
    new = new_class.__new__(new_class)
    new.__dict__.update(vars(module))
    return new


def _computes_as_its_class(module: nn.Module) -> bool:
    """Someone may have given one module a ``forward`` of its own, or compiled it: that stays."""
    return "forward" not in vars(module) and getattr(module, "_compiled_call_impl", None) is None


def _places(place: Place) -> Iterator[Place]:
    yield place
    above = (place.module, *place.parents)
    previous = None
    for child in place.module.children():
        if not any(child is module for module in above):
            yield from _places(Place(child, above, previous))
        previous = child


def _put(model: nn.Module, new: dict[nn.Module, nn.Module]) -> None:
    """Put new modules where the old ones stand; detectron2 keeps some of them in plain lists, too."""
    for parent in model.modules():
        for name, child in parent._modules.items():
            if child is not None and child in new:
                setattr(parent, name, new[child])
        for value in vars(parent).values():
            if isinstance(value, list):
                value[:] = [new.get(x, x) if isinstance(x, nn.Module) else x for x in value]
