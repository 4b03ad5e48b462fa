"""What is wrong with the data of a config: the dataframe, its photos, and batches that do not go with them."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import pandas as pd
from omegaconf import DictConfig, OmegaConf
from oml.const import BBOXES_COLUMNS, LABELS_COLUMN, PATHS_COLUMN, SPLIT_COLUMN

from oml_vit_ext.commands.frame_facts import FrameFacts, read_frame
from oml_vit_ext.commands.launching import to_absolute
from oml_vit_ext.commands.mistakes import Mistake
from oml_vit_ext.common.messages import counted, some
from oml_vit_ext.common.queries import lonely_queries
from oml_vit_ext.datasets.cleaning import shared_labels
from oml_vit_ext.datasets.frame import frame_mistakes
from oml_vit_ext.datasets.listing import TRAIN, VALIDATION
from oml_vit_ext.images.formats import why_not_read
from oml_vit_ext.transforms.size_groups import GROUP_SIZES

_MOST_LOOKED_AT = 50_000  # photos: more take longer than a look before a start should


def wrong_data(cfg: DictConfig) -> Iterator[Mistake]:
    """Mistakes in the dataframe, and between it and sampler, memory, criterion and metrics."""
    if "dataset_root" not in cfg or "dataframe_name" not in cfg or _is_open(cfg, "dataset_root", "dataframe_name"):
        return
    root = Path(to_absolute(str(cfg.dataset_root)))
    try:
        frame = read_frame(root, cfg.dataframe_name)
    except (FileNotFoundError, ValueError) as error:
        yield Mistake("dataset_root", str(error))
        return
    facts = FrameFacts.of(frame)
    training = "optimizer" in cfg
    for sentence in frame_mistakes(frame):
        yield Mistake("dataset_root", f"in {cfg.dataframe_name}, {sentence}")
    yield from _splits(facts, training)
    yield from _photos(root, frame)
    yield from _labels(frame, training, _name(cfg, "sampler"))
    if training:
        yield from _batches(cfg, frame, facts)
        yield from _memory(cfg, facts)
        yield from _classes(cfg, facts)
        yield from _shapes(cfg)
    yield from _ranks(cfg, facts)


def _splits(facts: FrameFacts, training: bool) -> Iterator[Mistake]:
    if training and not facts.train_photos:
        yield Mistake(
            "dataset_root",
            "the dataframe has no photos for training: oml-vit-ext convert folders FOLDER splits labels into training "
            "and validation.",
        )
    elif training and facts.train_labels < 2:
        yield Mistake("dataset_root", "the training part has one label, expected at least two to tell apart.")
    if not facts.validation_photos:
        yield Mistake("dataset_root", "the dataframe has no photos for validation, so no model can be chosen.")


def _photos(root: Path, frame: pd.DataFrame) -> Iterator[Mistake]:
    frame = frame[frame[PATHS_COLUMN].notna()]
    paths = frame[PATHS_COLUMN].astype(str)
    looked_at = [str(path) for path in paths.sample(min(len(paths), _MOST_LOOKED_AT), random_state=0).sort_index()]
    missing = [path for path in looked_at if not (root / path).is_file()]
    if missing:
        windows = all("\\" in path for path in missing)
        hint = " They are written as on Windows: put / in the place of each \\." if windows else ""
        of = f"of {len(looked_at):,} looked at" if len(looked_at) < len(paths) else f"of {len(paths):,}"
        are = "is" if len(missing) == 1 else "are"
        yield Mistake(
            "dataset_root",
            f"{counted(len(missing), 'photo')} {of} {are} not below {str(root)!r}: {some(missing)}.{hint}",
        )
    columns = [PATHS_COLUMN, SPLIT_COLUMN, *(column for column in BBOXES_COLUMNS if column in frame)]
    again = [str(path) for path in paths[frame.duplicated(columns)]]
    if again:
        told = f"{counted(len(again), 'row names', 'rows name')} a photo again in the same part: {some(again)}."
        yield Mistake("dataset_root", f"{told} In validation each finds its copy, so the figures are too high.", False)
    reasons = {path: why for path in looked_at if (why := why_not_read(path))}
    if reasons:
        first = next(iter(reasons))
        yield Mistake(
            "dataset_root", f"{counted(len(reasons), 'photo')} cannot be read, the first: {first} ({reasons[first]})."
        )


def _labels(frame: pd.DataFrame, training: bool, sampler: str | None) -> Iterator[Mistake]:
    train = frame[frame[SPLIT_COLUMN] == TRAIN]
    single = train[~train[LABELS_COLUMN].duplicated(keep=False)]
    if training and len(single):
        told = some([f"{_called(row)} ({row[PATHS_COLUMN]})" for _, row in single.iterrows()])
        refused = sampler in ("balance", "category_balance", "distinct_category_balance")
        yield Mistake(
            "sampler" if refused else "dataset_root",
            f"{counted(len(single), 'training label has', 'training labels have')} one photo{', which the sampler ' + repr(sampler) + ' refuses' if refused else ''}: "  # noqa: E501
            f"{told}. Drop them with oml-vit-ext convert ... --drop-single --overwrite.",
            is_error=refused,
        )
    validation = frame[frame[SPLIT_COLUMN] == VALIDATION]
    lonely = validation[lonely_queries(validation)] if len(validation) else validation
    if len(lonely):
        told = some([f"{_called(row)} ({row[PATHS_COLUMN]})" for _, row in lonely.iterrows()])
        yield Mistake(
            "dataset_root",
            f"{counted(len(lonely), 'query has', 'queries have')} nothing to be found: {told}. They count as misses.",
            False,
        )
    shared = shared_labels(frame)
    if shared:
        yield Mistake(
            "dataset_root",
            f"{counted(len(shared), 'label is', 'labels are')} in the training and in the validation part, so "
            f"validation does not measure "
            f"retrieval of what was never seen.",
            is_error=False,
        )


def _batches(cfg: DictConfig, frame: pd.DataFrame, facts: FrameFacts) -> Iterator[Mistake]:
    args = _args(cfg, "sampler")
    n_labels, n_instances = _number(args, "n_labels"), _number(args, "n_instances")
    if n_labels is not None and n_labels > facts.train_labels > 0:
        yield Mistake(
            "sampler.args.n_labels",
            f"sampler.args.n_labels is {n_labels}, but the training part has {counted(facts.train_labels, 'label')}: "
            f"say "
            f"sampler.args.n_labels={facts.train_labels} or less.",
        )
    if n_instances is not None and n_instances > facts.fewest_per_label > 0:
        counts = frame[frame[SPLIT_COLUMN] == TRAIN][LABELS_COLUMN].value_counts()
        few = counts[counts < n_instances]
        yield Mistake(
            "sampler.args.n_instances",
            f"sampler.args.n_instances is {n_instances}, but {len(few)} of "
            f"{counted(facts.train_labels, 'training label')} {'has' if len(few) == 1 else 'have'} fewer photos "
            f"(the fewest: {facts.fewest_per_label}): the same photo stands several times in a batch.",
            is_error=False,
        )
    size = _number(args, "batch_size")
    if size is not None and size > facts.train_photos > 0:
        yield Mistake(
            "sampler.args.batch_size",
            f"sampler.args.batch_size is {size}, expected at most {facts.train_photos}, the number of training photos.",
        )
    bs_train = cfg.get("bs_train")
    if "criterion" in cfg and not args:
        if not isinstance(bs_train, int) or isinstance(bs_train, bool):
            yield Mistake("bs_train", f"bs_train is {bs_train!r}, expected a whole number where there is no sampler.")
        elif bs_train > facts.train_photos > 0:
            yield Mistake(
                "bs_train",
                f"bs_train is {bs_train}, expected at most {facts.train_photos}, the number of training photos: no "
                f"batch would be full.",
            )


def _memory(cfg: DictConfig, facts: FrameFacts) -> Iterator[Mistake]:
    size = _number(_args(cfg, "criterion"), "memory_size")
    if size is not None and size > facts.train_photos > 0:
        yield Mistake(
            "criterion.args.memory_size",
            f"the memory of the criterion takes {counted(size, 'embedding')} of "
            f"{counted(facts.train_photos, 'training photo')}: it would hold several, ever older ones of each. "
            f"Say memory_size={facts.train_photos} or less.",
            is_error=False,
        )


def _classes(cfg: DictConfig, facts: FrameFacts) -> Iterator[Mistake]:
    classes = _number(_args(cfg, "criterion"), "num_classes")
    if classes is not None and classes < facts.classes:
        yield Mistake(
            "criterion.args.num_classes",
            f"criterion.args.num_classes is {classes}, but the largest training label is {facts.classes - 1}: say "
            f"num_classes={facts.classes}.",
        )


def _shapes(cfg: DictConfig) -> Iterator[Mistake]:
    """Photos of a batch of ``group_size`` have one size only if ``augs_dtop`` puts them into the same groups."""
    if _name(cfg, "sampler") != "group_size" or _name(cfg, "transforms_train") != "augs_dtop":
        return
    grouped, cropped = (_args(cfg, part).get("sizes", GROUP_SIZES) for part in ("sampler", "transforms_train"))
    try:
        shapes, cropped_shapes = ({Fraction(w, h) for w, h in sizes} for sizes in (grouped, cropped))
    except (TypeError, ValueError, ZeroDivisionError):  # no sizes: told with the arguments
        return
    if len(cropped_shapes) > 1 and shapes != cropped_shapes:
        yield Mistake(
            "sampler.args.sizes",
            f"sampler.args.sizes is {_listed(grouped)}, transforms_train.args.sizes is {_listed(cropped)}: a batch may "
            "get photos of several sizes, and the training would stop there. Give both the same sizes.",
            is_error=False,
        )


def _listed(sizes: Any) -> str:
    return ", ".join(f"{w} × {h}" for w, h in sizes)


def _ranks(cfg: DictConfig, facts: FrameFacts) -> Iterator[Mistake]:
    ranks = OmegaConf.select(cfg, "metric_args.cmc_top_k") or []
    large = [k for k in ranks if isinstance(k, int) and k >= facts.gallery_photos > 0]
    if large:
        yield Mistake(
            "metric_args.cmc_top_k",
            f"metric_args.cmc_top_k asks for {', '.join(map(str, large))} hits, but only "
            f"{counted(facts.gallery_photos - 1, 'photo is', 'photos are')} there to be found: that CMC is 1 for "
            f"any model.",
            is_error=False,
        )


def _called(row: Any) -> str:
    return f"{row['label_name']!r}" if "label_name" in row else f"label {row[LABELS_COLUMN]}"


def _is_open(cfg: DictConfig, *keys: str) -> bool:
    return any(OmegaConf.is_missing(cfg, key) for key in keys)


def _name(cfg: DictConfig, key: str) -> str | None:
    part = cfg.get(key)
    return None if part is None else part.get("name")


def _args(cfg: DictConfig, key: str) -> dict[str, Any]:
    part = cfg.get(key)
    args = None if part is None else part.get("args")
    return {} if args is None else {str(k): OmegaConf.select(args, str(k), throw_on_missing=False) for k in args}


def _number(args: dict[str, Any], key: str) -> int | None:
    value = args.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) else None
