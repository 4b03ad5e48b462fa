"""Names of parameters without the parts that wrappers of a whole model put into them."""

from __future__ import annotations

# torch.compile, DataParallel and DDP, FSDP, activation checkpoints, Lightning Fabric.
_WRAPPERS = {"_orig_mod", "module", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module"}


def plain_name(name: str) -> str:
    """The name that a parameter has in the model as it was written.

    Any part of a model may have been wrapped, so the wrappers' parts may stand anywhere in a name.

    >>> plain_name("model.module.backbone._orig_mod.cls_token")
    'model.backbone.cls_token'
    """
    *path, last = name.split(".")
    return ".".join([part for part in path if part not in _WRAPPERS] + [last])
