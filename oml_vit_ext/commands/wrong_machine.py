"""What a config asks of the machine and of files: weights, packages, devices, image sizes, memory."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from oml_vit_ext.commands.launching import to_absolute
from oml_vit_ext.commands.mistakes import Mistake
from oml_vit_ext.common.messages import counted
from oml_vit_ext.extractors.backbone import check_arch, total_stride
from oml_vit_ext.extractors.weights import resolve_weights

_LOGGERS = {"wandb": "wandb", "neptune": "neptune", "mlflow": "mlflow", "clearml": "clearml"}
_GB = 1e9


def wrong_machine(cfg: DictConfig) -> Iterator[Mistake]:
    """Mistakes in weights, architectures, sizes, devices, and packages that are missing."""
    for key, args in _our_extractors(cfg):
        yield from _architecture(key, args)
    yield from _patches(cfg)
    yield from _device(cfg)
    yield from _packages(cfg)


def expected_memory(cfg: DictConfig) -> str | None:
    """One sentence on the memory that training takes, from the size of the model and of the batch."""
    args = _args_of_extractor(cfg)
    model = None if args is None else _empty_model(args)
    images = _images_in_batch(cfg)
    side = _crop(cfg)
    if model is None or images is None or side is None or "optimizer" not in cfg:
        return None
    parameters = sum(p.numel() for p in model.parameters())
    stride = total_stride(model)
    tokens = -(-side // stride[0]) * -(-side // stride[1])
    width, depth = int(model.embed_dim), len(model.blocks)
    half = "16" in str(cfg.get("precision", 32))
    # Per token and block some 34 half-precision numbers' bytes times the width are kept for the backward pass
    # (Korthikanti et al., 2205.05198, section 4.1, without attention scores, which timm's attention does not keep).
    activations = 34 * (1 if half else 2) * width * tokens * depth * images
    fixed = 16 * parameters  # weights, gradients and AdamW's two averages in float32
    return (
        f"Expected memory: about {(activations + fixed) / _GB:.1f} GB for a batch of {counted(images, 'photo')} "
        f"of {side} px ({parameters / 1e6:.0f} million parameters)."
    )


def _our_extractors(cfg: DictConfig) -> Iterator[tuple[str, dict[str, Any]]]:
    """Where an extractor with ``arch`` stands, and its arguments without interpolations."""
    from oml_vit_ext.commands.wrong_arguments import named_parts

    for key, kind, part in named_parts(cfg):
        args = part.get("args") if kind == "extractor" and isinstance(part, dict) else None
        if isinstance(args, dict) and args.get("arch", "???") != "???" and part["name"] in ("irt", "hybrid_vit"):
            yield f"{key}.args", args


def _architecture(key: str, args: dict[str, Any]) -> Iterator[Mistake]:
    try:
        check_arch(args["arch"])
    except ValueError as error:
        yield Mistake(f"{key}.arch", f"{key}.arch: {error}")
        return
    weights = args.get("weights")
    if not isinstance(weights, str) or weights == "???" or "${" in weights:
        return
    try:
        local = to_absolute(weights)
        resolve_weights(local if Path(local).is_file() else weights, args["arch"])
    except (ValueError, OSError, RuntimeError) as error:
        yield Mistake(f"{key}.weights", f"{key}.weights: {error}")


def _patches(cfg: DictConfig) -> Iterator[Mistake]:
    args, side = _args_of_extractor(cfg), _crop(cfg)
    if args is None or side is None:
        return
    model = _empty_model(args)
    if model is None:
        return
    stride = total_stride(model)[0]
    if side % stride:
        fitting = max(stride, round(side / stride) * stride)
        yield Mistake(
            "images",
            f"photos of {side} px are no whole number of patches of {stride} px: each is enlarged to "
            f"{-(-side // stride) * stride} px. Sizes that fit: {fitting} px and other multiples of {stride}.",
            is_error=False,
        )


def _device(cfg: DictConfig) -> Iterator[Mistake]:
    import torch

    if cfg.get("accelerator") in ("gpu", "cuda") and not torch.cuda.is_available():
        yield Mistake("accelerator", "accelerator is gpu, but torch finds none here: say accelerator=cpu, or null.")
    half = str(cfg.get("precision", 32)) in ("16", "16-mixed", "16-true")
    if half and (cfg.get("accelerator") == "cpu" or not torch.cuda.is_available()):
        yield Mistake("precision", f"precision is {cfg.precision} on a CPU, which is slower than 32 there.", False)
    devices = cfg.get("devices")
    if isinstance(devices, int) and torch.cuda.is_available() and cfg.get("accelerator") != "cpu":
        there = torch.cuda.device_count()
        if devices > there:
            yield Mistake(
                "devices", f"devices is {devices}, but there {'is' if there == 1 else 'are'} {counted(there, 'GPU')}."
            )


def _packages(cfg: DictConfig) -> Iterator[Mistake]:
    logger = cfg.get("logger")
    package = None if logger is None or not OmegaConf.is_config(logger) else _LOGGERS.get(str(logger.get("name")))
    if package and find_spec(package) is None:
        yield Mistake("logger", f"logger is {package}, which is not installed: pip install {package}.")
    if "optimizer" in cfg and find_spec("tensorboard") is None and find_spec("tensorboardX") is None and logger is None:
        yield Mistake("logger", "tensorboard is not installed, and logger is null: pip install tensorboard.")


def _args_of_extractor(cfg: DictConfig) -> dict[str, Any] | None:
    return next((args for _, args in _our_extractors(cfg)), None)


def _empty_model(args: dict[str, Any]) -> Any:
    """The architecture without memory for its weights, or ``None`` if timm cannot build it."""
    import timm
    import torch

    try:
        check_arch(args["arch"])
        with torch.device("meta"):
            timm_args = args.get("timm_args") or {}
            return timm.create_model(args["arch"], pretrained=False, num_classes=0, dynamic_img_size=True, **timm_args)
    except Exception:  # told where it stands in the config, or when it is built
        return None


def _crop(cfg: DictConfig) -> int | None:
    """Side in px of the photos that the extractor gets in training, or in validation."""
    for key in ("transforms_train", "transforms_val", "transforms_predict"):
        for name in ("crop_size", "im_size"):
            value = OmegaConf.select(cfg, f"{key}.args.{name}", throw_on_missing=False)
            if isinstance(value, int):
                return value
        sizes = OmegaConf.select(cfg, f"{key}.args.sizes", throw_on_missing=False)
        if sizes:
            return int(max(max(size) for size in sizes))
    return None


def _images_in_batch(cfg: DictConfig) -> int | None:
    args = OmegaConf.select(cfg, "sampler.args")
    if args:
        get = {k: OmegaConf.select(args, k) for k in ("n_labels", "n_instances", "batch_size")}
        if get["batch_size"]:
            return int(get["batch_size"])
        if get["n_labels"] and get["n_instances"]:
            return int(get["n_labels"]) * int(get["n_instances"])
    return cfg.get("bs_train")
