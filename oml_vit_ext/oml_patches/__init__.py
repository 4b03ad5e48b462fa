"""What we change in open-metric-learning (OML) itself, where it would lose what a user wrote or do what nobody meant.

Each change is one file, as narrow as it can be, and is logged when it is made.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from oml_vit_ext.oml_patches.embedding_loader import validate_on_embeddings
from oml_vit_ext.oml_patches.freezing import freeze_in_training
from oml_vit_ext.oml_patches.resume import resume_trainings
from oml_vit_ext.oml_patches.sampler_epochs import introduce_samplers
from oml_vit_ext.oml_patches.strict_arguments import build_losses_strictly, build_samplers_strictly


def apply(
    our_losses: Mapping[str, Any], our_samplers: Mapping[str, Any], our_postprocessors: Mapping[str, Any]
) -> None:
    """Make all changes; calling it again changes nothing."""
    build_losses_strictly(our_losses)
    build_samplers_strictly(our_samplers)
    freeze_in_training()
    introduce_samplers()
    validate_on_embeddings(our_postprocessors)
    resume_trainings()
