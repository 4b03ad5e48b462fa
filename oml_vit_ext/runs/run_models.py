"""The models and the validation images of a run, built from its own config."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

from oml.const import PATHS_COLUMN
from oml.datasets.images import get_retrieval_images_datasets
from oml.interfaces.datasets import IQueryGalleryLabeledDataset
from oml.interfaces.models import IExtractor
from oml.interfaces.retrieval import IRetrievalPostprocessor
from oml.registry.models import get_extractor_by_cfg
from oml.registry.postprocessors import POSTPROCESSORS_REGISTRY, get_postprocessor_by_cfg
from oml.registry.transforms import get_transforms_by_cfg

from oml_vit_ext.common.messages import counted, some, unknown_name
from oml_vit_ext.datasets.frame import read_frame
from oml_vit_ext.extractors.checkpoints import read_state_dict
from oml_vit_ext.extractors.matching import load_all, under_prefix
from oml_vit_ext.runs.run_folder import RunFolder
from oml_vit_ext.transforms.upright import reader_for

_MODEL = "model."  # what OML's Lightning modules call the model that they train
_IF_MOVED = "If the photos have moved, say where they are now: --root FOLDER, in Python root=FOLDER."
_NEEDS_WEIGHTS = "extractor_with_pca"  # its own weights are no start, but what it is


def run_extractor(run: RunFolder) -> IExtractor:
    """The extractor of a run, in evaluation: with its checkpoint, or of a re-ranker's run, the first stage.

    Raises:
        ValueError: The run's config has no extractor.
        RuntimeError: The checkpoint does not fit the config.
    """
    config = _part(run, "extractor")
    if run.checkpoint is None or run.has_reranker:
        return get_extractor_by_cfg(config).eval()
    extractor = get_extractor_by_cfg(without_weights(config))
    state = under_prefix(read_state_dict(run.checkpoint), _MODEL, run.checkpoint, "the extractor")
    load_all(extractor, state, run.checkpoint, f"the extractor {config['name']!r} of the run's config")
    return extractor.eval()


def model_config(run: RunFolder) -> tuple[dict[str, Any], dict[str, Any]]:
    """How to build the model that a training left: extractor and transforms, each ``{name, args}``.

    Raises:
        ValueError: The run is none of an extractor.
    """
    if run.has_reranker or run.config.get("transforms_extraction"):
        raise ValueError(f"run is {str(run.path)!r}, that of a re-ranker, expected that of an extractor.")
    extractor = _part(run, "extractor")
    return extractor if run.checkpoint is None else with_weights(extractor, run.checkpoint), _transforms(run)


def run_reranker(run: RunFolder, **settings: Any) -> tuple[IRetrievalPostprocessor, Any]:
    """The re-ranker of a run, in evaluation, and the transforms of its images.

    Args:
        run: Of ``train_reranker`` or ``validate_reranker``.
        settings: Arguments of the postprocessor that are to be others than in the run, e.g. ``top_n=20``; ``verbose``
            only where it is known.

    Raises:
        ValueError: The run's config has no re-ranker.
        RuntimeError: The checkpoint does not fit the config.
    """
    config = deepcopy(_part(run, "postprocessor"))
    known = POSTPROCESSORS_REGISTRY.get(config["name"])
    if known is not None and "verbose" not in inspect.signature(known).parameters:
        settings.pop("verbose", None)
    config["args"].update(settings)
    if run.checkpoint is not None and "pairwise_model" in config["args"]:
        config["args"]["pairwise_model"] = with_weights(config["args"]["pairwise_model"], run.checkpoint)
    reranker = get_postprocessor_by_cfg(config)
    if hasattr(reranker, "model"):
        reranker.model.eval()
    return reranker, get_transforms_by_cfg(_transforms(run))


def validation_images(run: RunFolder, transform: Any = None) -> IQueryGalleryLabeledDataset:
    """Queries and gallery of the run's data set.

    Args:
        run: Whose data set.
        transform: Other transforms than those of the run.

    Raises:
        FileNotFoundError: The dataframe, or an image, is not there.
    """
    transform = get_transforms_by_cfg(_transforms(run)) if transform is None else transform
    root, name = Path(run.config["dataset_root"]), run.config["dataframe_name"]
    if not (root / name).is_file():
        raise FileNotFoundError(f"The data set of the run has gone: there is no {str(root / name)!r}. {_IF_MOVED}")
    missing = [path for path in read_frame(root / name)[PATHS_COLUMN].map(str) if not (root / path).is_file()]
    if missing:
        raise FileNotFoundError(
            f"{counted(len(missing), 'photo')} of the run's {name} {'is' if len(missing) == 1 else 'are'} not below "
            f"{str(root)!r}: {some(missing)}. {_IF_MOVED}"
        )
    _, images = get_retrieval_images_datasets(
        root, None, transform, f_imread_val=reader_for(transform), dataframe_name=name, verbose=False
    )
    return images


def without_weights(config: Mapping[str, Any]) -> dict[str, Any]:
    """The same ``{name, args}`` without the weights that it started from, in all models inside it."""
    args = dict(config.get("args", {}))
    for key, value in args.items():
        if key == "weights" and config["name"] != _NEEDS_WEIGHTS:
            args[key] = None
        elif isinstance(value, Mapping) and "name" in value:
            args[key] = without_weights(value)
    return {"name": config["name"], "args": args}


def with_weights(config: Mapping[str, Any], file: Path | str) -> dict[str, Any]:
    """The same ``{name, args}``, which takes all its weights from one file."""
    bare = without_weights(config)
    return {**bare, "args": {**bare["args"], "weights": str(file)}}


def _transforms(run: RunFolder) -> dict[str, Any]:
    """Of images that are embedded or compared: trainings of re-rankers have another name for them."""
    return _part(run, "transforms_val" if run.config.get("transforms_val") else "transforms_extraction")


def _part(run: RunFolder, key: str) -> dict[str, Any]:
    if not run.config.get(key):
        raise ValueError(f"{unknown_name('part of a config', key, run.config)} The run is {str(run.path)!r}.")
    return run.config[key]
