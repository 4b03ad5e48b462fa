"""What we change in open-metric-learning (OML) itself, where it would lose what a user wrote or do what nobody meant.

Each change is one file, as narrow as it can be, is logged when it is made, and can be turned off: the environment
variable ``OML_VIT_EXT_WITHOUT`` names those that are not wanted, e.g. ``freezing,strict_arguments``, or ``all``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

from oml_vit_ext.common.messages import unknown_name
from oml_vit_ext.oml_patches.dead_workers import name_dead_workers
from oml_vit_ext.oml_patches.embedding_loader import validate_on_embeddings
from oml_vit_ext.oml_patches.freezing import freeze_in_training
from oml_vit_ext.oml_patches.image_reader import read_all_upright, read_upright_where_asked
from oml_vit_ext.oml_patches.lonely_queries import warn_of_lonely_queries
from oml_vit_ext.oml_patches.new_transforms import take_new_transforms
from oml_vit_ext.oml_patches.postprocessor_embeddings import hand_over_embeddings
from oml_vit_ext.oml_patches.resume import resume_trainings
from oml_vit_ext.oml_patches.sampler_epochs import introduce_samplers
from oml_vit_ext.oml_patches.search_from_config import search_as_configured
from oml_vit_ext.oml_patches.strict_arguments import build_losses_strictly, build_samplers_strictly
from oml_vit_ext.oml_patches.unknown_names import tell_unknown_names

WITHOUT = "OML_VIT_EXT_WITHOUT"

__all__ = ["apply", "read_all_upright"]


def apply(
    our_losses: Mapping[str, Any], our_samplers: Mapping[str, Any], our_postprocessors: Mapping[str, Any]
) -> None:
    """Make all changes that are wanted; calling it again changes nothing.

    Raises:
        ValueError: ``OML_VIT_EXT_WITHOUT`` names a change that there is not.
    """

    def strict_arguments() -> None:
        build_losses_strictly(our_losses)
        build_samplers_strictly(our_samplers)

    changes: dict[str, Callable[[], None]] = {
        "strict_arguments": strict_arguments,
        "freezing": freeze_in_training,
        "sampler_epochs": introduce_samplers,
        "image_reader": read_upright_where_asked,
        "lonely_queries": warn_of_lonely_queries,
        "new_transforms": take_new_transforms,
        "resume": resume_trainings,
        "embedding_loader": lambda: validate_on_embeddings(our_postprocessors),
        "postprocessor_embeddings": hand_over_embeddings,
        "search_from_config": search_as_configured,
        "dead_workers": name_dead_workers,
        "unknown_names": tell_unknown_names,
    }
    unwanted = {name.strip() for name in os.environ.get(WITHOUT, "").split(",")} - {""}
    for name in unwanted - {"all", *changes}:
        raise ValueError(unknown_name(f"name in {WITHOUT}:", name, ["all", *changes]))
    for name, change in changes.items():
        if not unwanted & {"all", name}:
            change()
