"""Any feature extractor of `timm` (PyTorch Image Models) whose maps halve from one to the next, as a backbone.

`timm` is optional, and imported here only.

Shapes: N images, C channels, h, w size of the network input.
"""

import logging
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, FPN, Backbone
from detectron2.modeling.backbone.fpn import LastLevelMaxPool

__all__ = ["TimmBackbone", "TimmWeights", "build_timm_fpn_backbone", "timm_weights"]

NORMS = ("", "FrozenBN")

logger = logging.getLogger(__name__)


class TimmWeights(NamedTuple):
    """What belongs to the pretrained weights of an extractor.

    Attributes:
        name: of the extractor, with the tag of its weights: ``"resnet18.a1_in1k"``.
        pixel_mean, pixel_std: of RGB pixels 0…255, for ``MODEL.PIXEL_MEAN`` and ``MODEL.PIXEL_STD``.
    """

    name: str
    pixel_mean: list[float]
    pixel_std: list[float]


def _timm() -> Any:
    try:
        import timm
    except ImportError as error:
        raise ImportError("build_timm_fpn_backbone needs the package timm: pip install timm") from error
    return timm


def timm_weights(name: str) -> TimmWeights:
    """The default weights of an extractor, or those that its name's tag says.

    Raises:
        ImportError: `timm` is not installed.
        ValueError: it has no extractor of this name, or no weights with this tag.
    """
    config = _check_name(name)
    tag = f".{config.tag}" if config.tag else ""
    mean, std = ([round(255 * value, 3) for value in values] for values in (config.mean, config.std))
    return TimmWeights(name.partition(".")[0] + tag, mean, std)


def _check_name(name: str) -> Any:
    """`timm`'s description of the weights of that name."""
    timm = _timm()
    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        near = timm.list_models(f"*{architecture}*")[:5] if architecture else []
        hint = f"; near are {', '.join(near)}" if near else ""
        raise ValueError(f"MODEL.TIMM.NAME is {name!r}: timm {timm.__version__} has no model of this name{hint}.")
    try:
        config = timm.models.get_pretrained_cfg(name)
    except RuntimeError as error:
        known = sorted(one.partition(".")[2] for one in timm.list_pretrained(f"{architecture}.*"))
        raise ValueError(
            f"MODEL.TIMM.NAME is {name!r}: timm {timm.__version__} has no weights {tag!r} of this model, but "
            f"{', '.join(known) or 'none at all'}."
        ) from error
    if config is None:
        raise ValueError(f"MODEL.TIMM.NAME is {name!r}, which timm {timm.__version__} does not describe.")
    return config


class TimmBackbone(Backbone):
    """A feature extractor of `timm`. Its maps are named by stride as a ResNet's: ``res2`` at 4 to ``res5`` at 32."""

    def __init__(
        self,
        name: str,
        *,
        out_features: Sequence[str] = ("res2", "res3", "res4", "res5"),
        pretrained: bool = False,
        norm: str = "",
        in_channels: int = 3,
    ) -> None:
        """
        Args:
            name: as `timm.create_model` takes it, with a tag for certain weights.
            out_features: ``res{n}`` is the last map at stride 2ⁿ; layers behind the last one are left out.
            pretrained: whether `timm` loads its weights, which it downloads if need be.
            norm: ``""`` for norms as they are, ``"FrozenBN"`` for constant batch norms.
            in_channels: of the image; pretrained weights of the first layer are adapted.

        Raises:
            ImportError: `timm` is not installed.
            ConnectionError: weights could not be loaded.
            ValueError: an unknown name, maps that the extractor does not have, one that takes images of one size
                only, or another ``norm``.
        """
        super().__init__()
        _check_name(name)
        if norm not in NORMS:
            raise ValueError(f"MODEL.TIMM.NORM must be one of {', '.join(map(repr, NORMS))}, got {norm!r}.")
        create = _create_pretrained if pretrained else _create
        self.features = create(name, in_chans=in_channels, out_indices=_indices(name, out_features))
        if norm == "FrozenBN":
            self.features = _timm().layers.freeze_batch_norm_2d(self.features)
        info = self.features.feature_info
        # What the parent's `output_shape` reads.
        self._out_features = list(out_features)
        self._out_feature_channels = dict(zip(out_features, info.channels(), strict=True))
        self._out_feature_strides = dict(zip(out_features, info.reduction(), strict=True))
        self._channels_last = str(getattr(self.features, "output_fmt", "")).endswith("NHWC")
        _check_sizes(self, name, in_channels)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """Normalised images, float (N, 3, h, w), to float (N, C, ⌈h / stride⌉, ⌈w / stride⌉) by name."""
        maps = self.features(x)
        if self._channels_last:
            maps = [one.permute(0, 3, 1, 2).contiguous() for one in maps]
        return dict(zip(self._out_features, maps, strict=True))


def _create(name: str, **options: Any) -> Any:
    """An extractor that takes images of any size, where it can."""
    create = _timm().create_model
    try:
        return create(name, features_only=True, strict_img_size=False, **options)
    except TypeError:  # most have no such argument, because they take any size
        return create(name, features_only=True, **options)


def _create_pretrained(name: str, **options: Any) -> Any:
    try:
        return _create(name, pretrained=True, **options)
    except Exception as error:  # of the network, of its client libraries
        reason = str(error).strip().split("\n")[0]
        raise ConnectionError(
            f"timm could not load the weights of {name} ({reason}). Run once where the network allows it, or set "
            "MODEL.TIMM.PRETRAINED to False, or MODEL.WEIGHTS to a checkpoint."
        ) from error


def _indices(name: str, out_features: Sequence[str]) -> tuple[int, ...]:
    """Which of an extractor's maps have the names."""
    try:
        with torch.device("meta"):  # no memory, no time
            strides = _create(name).feature_info.reduction()
    except Exception as error:  # each family of models has its own reason
        reason = str(error).strip().split("\n")[0]
        raise ValueError(f"MODEL.TIMM.NAME is {name!r}, which gives no feature maps: {reason}") from error
    last = {f"res{stride.bit_length() - 1}": index for index, stride in enumerate(strides)}
    if not set(out_features).issubset(last):
        raise ValueError(
            f"MODEL.TIMM.NAME is {name!r}, whose feature maps have strides {strides}, that is "
            f"{', '.join(sorted(last))}; MODEL.FPN.IN_FEATURES asks for {', '.join(out_features)}."
        )
    return tuple(last[one] for one in out_features)


@torch.no_grad()
def _check_sizes(backbone: TimmBackbone, name: str, in_channels: int) -> None:
    """Images of 64×96 px stand for any size that a pyramid pads to."""
    mode = backbone.training
    try:
        found = backbone.eval()(next(backbone.parameters()).new_zeros(1, in_channels, 64, 96))
    except Exception as error:  # each family of models has its own
        reason = str(error).strip().split("\n")[0]
        raise ValueError(f"MODEL.TIMM.NAME is {name!r}, which does not take images of any size: {reason}") from error
    finally:
        backbone.train(mode)
    for level, shape in backbone.output_shape().items():
        expected = (shape.channels, 64 // (shape.stride or 1), 96 // (shape.stride or 1))
        if tuple(found[level].shape[1:]) != expected:
            raise ValueError(
                f"MODEL.TIMM.NAME is {name!r}, whose map {level} of 64×96 px has shape {tuple(found[level].shape[1:])} "
                f"instead of {expected}: it cannot stand below a pyramid."
            )


@BACKBONE_REGISTRY.register()
def build_timm_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> FPN:
    """FPN over :class:`TimmBackbone`, with a coarser level for the RPN.

    It reads ``MODEL.TIMM``, ``MODEL.BACKBONE.FREEZE_AT`` (which must be 0) and ``MODEL.FPN``. Pretrained weights are
    loaded where ``MODEL.WEIGHTS`` is empty.
    """
    options, pretrained = cfg.MODEL.TIMM, cfg.MODEL.TIMM.PRETRAINED and not cfg.MODEL.WEIGHTS
    if cfg.MODEL.BACKBONE.FREEZE_AT:
        raise ValueError(
            f"MODEL.BACKBONE.FREEZE_AT is {cfg.MODEL.BACKBONE.FREEZE_AT}, and build_timm_fpn_backbone freezes nothing: "
            "set it to 0."
        )
    bottom_up = TimmBackbone(
        options.NAME,
        out_features=cfg.MODEL.FPN.IN_FEATURES,
        pretrained=pretrained,
        norm=options.NORM,
        in_channels=input_shape.channels or 3,
    )
    if pretrained:
        _warn_of_pixels(cfg)
    return FPN(
        bottom_up=bottom_up,
        in_features=cfg.MODEL.FPN.IN_FEATURES,
        out_channels=cfg.MODEL.FPN.OUT_CHANNELS,
        norm=cfg.MODEL.FPN.NORM,
        top_block=LastLevelMaxPool(),
        fuse_type=cfg.MODEL.FPN.FUSE_TYPE,
    )


def _warn_of_pixels(cfg: CfgNode) -> None:
    """Weights that see other pixels than those that they were trained with are worth little."""
    weights = timm_weights(cfg.MODEL.TIMM.NAME)
    expected = {"MODEL.PIXEL_MEAN": weights.pixel_mean, "MODEL.PIXEL_STD": weights.pixel_std}
    wrong = [f"{key} {value}" for key, value in expected.items() if list(cfg.MODEL[key.split(".")[1]]) != value]
    wrong += [] if cfg.INPUT.FORMAT == "RGB" else ["INPUT.FORMAT RGB"]
    if wrong:
        logger.warning(f"The weights of {weights.name} were trained with other pixels: set {', '.join(wrong)}.")
