"""A first stage and its re-ranker, small and untrained, as files that the demo's configs take."""

from __future__ import annotations

import torch

from oml_vit_ext.extractors import IRTExtractor
from oml_vit_ext.reranking import STIRSiamese

TIMM_ARGS = {"img_size": 48, "patch_size": 2, "depth": 2}


def small_reranker() -> tuple[str, ...]:
    """Write both files into the working folder. -> overrides of ``stir/validate_reranker_demo``"""
    first = IRTExtractor(None, "vit_tiny_r_s16_p8_224", timm_args=TIMM_ARGS)
    torch.save(first.state_dict(), "first.pth")
    torch.save(STIRSiamese(first, (16,), join_layer=1).state_dict(), "stir.pth")
    return (
        "first_stage_checkpoint=first.pth",
        "checkpoint=stir.pth",
        "extractor.args.timm_args.depth=2",
        "postprocessor.args.pairwise_model.args.mlp_hidden_dims=[16]",
        "postprocessor.args.verbose=False",
        "join_layer=1",
        "top_n=3",
    )
