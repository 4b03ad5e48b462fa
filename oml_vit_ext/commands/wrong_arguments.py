"""What is wrong with names and arguments in a config: of all objects that OML's registries build, ours and OML's."""

from __future__ import annotations

import inspect
import re
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf

from oml_vit_ext.commands.mistakes import Mistake
from oml_vit_ext.common.messages import unknown_name

# What OML's pipelines pass to constructors themselves.
_PASSED = {
    "criterion": {"label2category", "miner"},
    "optimizer": {"params"},
    "sampler": {"labels", "label2category"},
    "scheduler": {"optimizer"},
}
# Top-level keys that OML's pipelines, this package or Hydra read; others are read only where a value refers to them.
_READ = {
    *("seed", "extractor", "criterion", "optimizer", "sampler", "scheduling", "transforms_train", "transforms_val"),
    *("transforms_predict", "transforms_extraction", "postprocessor", "logger", "dataset_root", "dataframe_name"),
    *("cache_size", "show_dataset_warnings", "bs_train", "bs_val", "bs", "num_workers", "max_epochs", "valid_period"),
    *("metric_args", "log_images", "metric_for_checkpointing", "mode_for_checkpointing", "precision", "accelerator"),
    *("devices", "lightning_trainer_extra_args", "freeze_n_epochs", "postfix", "tags", "data_dir", "save_dir"),
    *("hard_pairs_mining", "batch_size_inference", "embeddings_cache_dir", "resume", "save_iterations", "checkpoint"),
    *("variant", "first_stage", "chosen_for_data", "first_stage_checkpoint", "pretrained", "benchmark", "boxes"),
    *("average_over_scales", "kappas", "distractors", "distractor_descriptors", "pca", "pca_images", "criterion_lr"),
    *("scores_file", "fusion", "budget", "join_layer", "strategy", "iterations", "valid_iterations", "memory_size"),
    *("memory_start", "arch", "timm_args", "images", "embed_dim", "dilations", "scales", "pca_dim", "multi_layer"),
    *("branches", "n_layers", "enhanced_locality", "num_classes", "hybrid", "plain", "use_tta", "top_n", "memory_mb"),
}
_SIMPLE = {int, float, bool, str, type(None)}


def wrong_arguments(cfg: DictConfig) -> Iterator[Mistake]:
    """Unknown names, unknown or missing arguments and values of the wrong type, each with the nearest valid name."""
    yield from _missing(cfg)
    yield from _never_read(cfg)
    for key, kind, part in named_parts(cfg):
        yield from _of_part(key, kind, part)
    yield from _of_metrics(cfg)
    yield from _of_trainer(cfg)


def _missing(cfg: DictConfig) -> Iterator[Mistake]:
    referred = _referred(cfg)
    for key in sorted(_open_keys(OmegaConf.to_container(cfg, resolve=False))):
        if key in referred or not key.endswith("checkpoint"):  # a training has keys that only its validation needs
            yield Mistake(key, f"{key} is not set: say {key}=VALUE.")


def _open_keys(part: Any, prefix: str = "") -> Iterator[str]:
    """Keys that are ``???`` themselves, not those that only refer to one."""
    for key, value in part.items() if isinstance(part, dict) else ():
        if value == "???":
            yield f"{prefix}{key}"
        yield from _open_keys(value, f"{prefix}{key}.")


def _referred(cfg: DictConfig) -> set[str]:
    """Top-level keys that other values refer to."""
    return {match.split(".")[0] for match in re.findall(r"\$\{([\w.]+)[},]", OmegaConf.to_yaml(cfg))}


def _never_read(cfg: DictConfig) -> Iterator[Mistake]:
    """A key that nothing reads is a misspelt one if it is near another."""
    from difflib import get_close_matches

    referred = _referred(cfg)
    for key in map(str, cfg):
        near = get_close_matches(key, _READ | referred, n=1, cutoff=0.8)
        if key not in _READ | referred and near:
            yield Mistake(key, f"{key} is read by nothing: did you mean {near[0]!r}?")


def named_parts(cfg: DictConfig) -> Iterator[tuple[str, str, Any]]:
    """Where in the config an object is described, what it is, and its description ``{name, args}``."""
    for key in map(str, cfg):
        if OmegaConf.is_missing(cfg, key):
            continue
        if key in ("extractor", "criterion", "optimizer", "sampler", "postprocessor", "logger"):
            yield from _with_inner(key, key, _plain(cfg, key))
        elif key.startswith("transforms_"):
            yield from _with_inner(key, "transforms", _plain(cfg, key))
        elif key == "scheduling" and isinstance(cfg[key], DictConfig):
            yield from _with_inner("scheduling.scheduler", "scheduler", _plain(cfg[key], "scheduler"))


def _with_inner(key: str, kind: str, part: Any) -> Iterator[tuple[str, str, Any]]:
    if part is None:
        return
    yield key, kind, part
    args = part.get("args") if isinstance(part, dict) else None
    inner = {"extractor": "extractor", "pairwise_model": "pairwise_model"}
    inner |= {"miner": "miner"} if kind in ("criterion", "miner") and not _is_ours("criterion", part) else {}
    for name, inner_kind in inner.items():
        if isinstance(args, dict) and isinstance(args.get(name), dict):
            yield from _with_inner(f"{key}.args.{name}", inner_kind, args[name])


def _of_part(key: str, kind: str, part: Any) -> Iterator[Mistake]:
    registry = _registries()[kind]
    if not isinstance(part, dict) or "name" not in part:
        yield Mistake(key, f"{key} is {part!r}, expected a name and args.")
        return
    if part["name"] not in registry:
        yield Mistake(f"{key}.name", f"{key}.name: {unknown_name(kind.replace('_', ' '), part['name'], registry)}")
        return
    args = part.get("args") or {}
    if not isinstance(args, dict):
        yield Mistake(f"{key}.args", f"{key}.args is {args!r}, expected arguments by name.")
        return
    yield from _of_call(f"{key}.args", f"{kind.replace('_', ' ')} {part['name']!r}", registry[part["name"]], args,
                        passed=_PASSED.get(kind, set()) | {"extractor", "pairwise_model"} & set(args))  # fmt: skip


def _of_call(key: str, what: str, constructor: Any, args: Mapping[str, Any], passed: set[str]) -> Iterator[Mistake]:
    """What is wrong with calling ``constructor(**args)``."""
    parameters = inspect.signature(constructor).parameters
    named = {n: p for n, p in parameters.items() if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)}
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    hints = _hints(constructor)
    for name, value in args.items():
        if name not in named and name not in passed and not takes_any:
            valid = set(named) - {"self", *passed} | ({"miner"} & passed & set(named))
            yield Mistake(f"{key}.{name}", f"{key}.{name}: {unknown_name(f'argument of {what}:', name, valid)}")
        elif name in hints and not _fits(value, hints[name]):
            yield Mistake(f"{key}.{name}", f"{key}.{name} is {value!r}, expected {_in_words(hints[name])}.")
    for name, parameter in named.items():
        if parameter.default is parameter.empty and name not in args and name not in passed:
            yield Mistake(f"{key}.{name}", f"{key}.{name} is not given, and {what} needs it.")


def _of_metrics(cfg: DictConfig) -> Iterator[Mistake]:
    """The arguments of the metrics, and the one by which checkpoints are kept."""
    from oml.metrics.embeddings import EmbeddingMetrics

    given = _plain(cfg, "metric_args") or {}
    if isinstance(given, dict):
        yield from _of_call("metric_args", "OML's metrics", EmbeddingMetrics, given, {"dataset", "postprocessor"})
    if "metric_for_checkpointing" not in cfg or not isinstance(given, dict):
        return
    ranks = {name: given.get(f"{name}_top_k", default) or () for name, default in _DEFAULT_RANKS.items()}
    names = [f"OVERALL/{name}/{k}" for name, ks in ranks.items() for k in ks]
    names += [f"OVERALL/pcf/{v}" for v in given.get("pcf_variance", (0.5,)) or ()]
    wanted = str(cfg.metric_for_checkpointing)
    if wanted.startswith("OVERALL/") and wanted not in names:
        rank = wanted.rsplit("/", 1)[-1]
        kind = wanted.split("/")[1]
        add = f" Add {rank} to metric_args.{kind}_top_k, or choose one of these." if kind in ranks else ""
        yield Mistake(
            "metric_for_checkpointing",
            f"metric_for_checkpointing: {unknown_name('metric of metric_args', wanted, names)}{add}",
        )


_DEFAULT_RANKS = {"cmc": (5,), "precision": (5,), "map": (5,)}


def _of_trainer(cfg: DictConfig) -> Iterator[Mistake]:
    given = _plain(cfg, "lightning_trainer_extra_args")
    if isinstance(given, dict):
        from pytorch_lightning import Trainer

        yield from _of_call("lightning_trainer_extra_args", "Lightning's Trainer", Trainer.__init__, given, {"self"})


def _plain(cfg: DictConfig, key: str) -> Any:
    """The value of a key without interpolations; of what cannot be resolved, as it stands."""
    if key not in cfg or OmegaConf.is_missing(cfg, key):
        return None
    return _resolved(cfg, key)


def _resolved(parent: Any, key: Any) -> Any:
    try:
        value = parent[key]
    except Exception:  # it refers to a value that is missing, which is told where that stands
        return "???"
    if OmegaConf.is_dict(value):
        return {str(name): _resolved(value, name) for name in value}
    if OmegaConf.is_list(value):
        return [_resolved(value, i) for i in range(len(value))]
    return value


def _registries() -> dict[str, Mapping[str, Any]]:
    from oml_vit_ext.commands.registered import registries

    return registries()


def _is_ours(kind: str, part: Any) -> bool:
    entry = _registries()[kind].get(str(part.get("name"))) if isinstance(part, dict) else None
    return str(getattr(entry, "__module__", "")).startswith("oml_vit_ext.")


def _hints(constructor: Any) -> dict[str, Any]:
    try:
        return typing.get_type_hints(constructor.__init__ if inspect.isclass(constructor) else constructor)
    except Exception:  # names that exist for type checkers only
        return {}


def _members(hint: Any) -> set[Any]:
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        return set().union(*map(_members, typing.get_args(hint)))
    if origin is typing.Annotated:
        return _members(typing.get_args(hint)[0])
    if origin is typing.Literal:
        return {type(value) for value in typing.get_args(hint)}
    return {origin or hint}


def _fits(value: Any, hint: Any) -> bool:
    """Whether a plain value may be what is asked for; anything that is not known to be wrong is."""
    members = _members(hint)
    if "${" in str(value) or value == "???" or not members & _SIMPLE:
        return True
    if value is None or isinstance(value, bool | str):
        kind = type(value)
        foreign = members - _SIMPLE
        readable = any(not (isinstance(m, type) and _is_number_like(m)) for m in foreign)
        return kind in members or readable
    if isinstance(value, int):
        return bool({int, float} & members) or bool(members - _SIMPLE)
    if isinstance(value, float):
        return float in members or bool(members - _SIMPLE) or (int in members and value.is_integer())
    return bool(members - _SIMPLE)


def _is_number_like(member: type) -> bool:
    return member.__name__ == "Tensor"  # optimizers take lr as a tensor as well: no text


def _in_words(hint: Any) -> str:
    words = {int: "a whole number", float: "a number", bool: "True or False", str: "text", type(None): "null"}
    members = _members(hint)
    if float in members:
        members = members - {int}
    return " or ".join([word for kind, word in words.items() if kind in members])
