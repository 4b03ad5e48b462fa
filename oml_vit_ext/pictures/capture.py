"""Reads the attention of timm's blocks while a model runs, and leaves the model as it was."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from timm.layers.attention import Attention, AttentionRope
from timm.models.eva import EvaAttention
from torch import Tensor, nn

# Those whose unfused code passes softmax(q k^T / sqrt(d)) through ``attn_drop``.
_READABLE = (Attention, AttentionRope, EvaAttention)


@contextmanager
def captured_attention(blocks: Iterable[nn.Module]) -> Iterator[list[Tensor]]:
    """Within the context, every run of a block adds its attention, ``(B, T, T)``, mean over the heads, to the list.

    Row t is what token t pays attention to, and sums to 1. The fused attention of torch never shows these values, so it
    is off within the context; it is on again afterwards, also after an error.

    Raises:
        ValueError: A block's attention is of a class that cannot be read.
    """
    layers = [_readable_attention(block) for block in blocks]
    fused = [layer.fused_attn for layer in layers]
    captured: list[Tensor] = []
    handles = []
    try:
        for layer in layers:
            layer.fused_attn = False
            handles.append(
                layer.attn_drop.register_forward_pre_hook(lambda _, args: captured.append(args[0].float().mean(dim=1)))
            )
        yield captured
    finally:
        for handle in handles:
            handle.remove()
        for layer, before in zip(layers, fused, strict=True):
            layer.fused_attn = before


def _readable_attention(block: nn.Module) -> Any:
    attention = getattr(block, "attn", None)
    if not isinstance(attention, _READABLE):
        found = type(block).__name__ if attention is None else type(attention).__name__
        raise ValueError(
            f"The attention of {found} cannot be read, expected blocks with one of timm's "
            f"{', '.join(known.__name__ for known in _READABLE)}, e.g. those of 'deit_small_patch16_224'."
        )
    return attention
