"""Draws what a re-ranker changed, and where it looks when it compares a query with a candidate.

  python examples/show_reranking.py --config-name stir/validate_reranker_demo checkpoint=FILE +n_queries=8

The pictures show queries whose first hit changed, evenly spread over them, for better or for worse; the curve shows
what a ``budget`` below 1 would give.
"""

from pathlib import Path

import hydra
from omegaconf import DictConfig, OmegaConf
from oml.const import HYDRA_BEHAVIOUR
from oml.registry.models import get_extractor_by_cfg
from oml.registry.postprocessors import get_postprocessor_by_cfg
from oml.retrieval.retrieval_results import RetrievalResults

from oml_vit_ext.commands.absolute_paths import with_absolute_paths
from oml_vit_ext.commands.reranker_config import check_checkpoints
from oml_vit_ext.commands.retrieved_images import RetrievedImages, device_of, right_ones, spread
from oml_vit_ext.oml_patches import read_all_upright
from oml_vit_ext.pictures import cross_attention, draw_budget_curve, draw_cross_attention, draw_strips
from oml_vit_ext.reranking import budget_curve


@hydra.main(config_path="../configs", config_name="stir/validate_reranker_demo", version_base=HYDRA_BEHAVIOUR)
def main(cfg: DictConfig) -> None:
    read_all_upright()
    check_checkpoints(cfg)
    show(with_absolute_paths(cfg))


def show(cfg: DictConfig) -> None:
    """Write ``strips.png``, ``cross_attention.png`` and ``budget.png`` into the current folder."""
    cfg.postprocessor.args.budget = None  # all queries: the curve tells what a budget would do
    images = RetrievedImages(cfg)
    device = device_of(cfg)
    extractor = get_extractor_by_cfg(cfg.extractor).to(device).eval()
    reranker = get_postprocessor_by_cfg(OmegaConf.to_container(cfg.postprocessor, resolve=True))
    model = reranker.model.to(device).eval()
    before = images.retrieve(extractor, reranker.top_n)
    after = reranker.process(before, images.dataset)

    changed = first_hit_changed(before, after)
    print(described(before, after, changed))
    with_candidates = [q for q, found in enumerate(before.retrieved_ids) if len(found)]
    queries = spread(changed or with_candidates, cfg.get("n_queries", 6))
    top = reranker.top_n
    old, new = ([images.strip(results, q, top) for q in queries] for results in (before, after))
    draw_strips(old, new, Path("strips.png"))

    pairs = []
    for q, strip in zip(queries, new, strict=True):
        query, candidate = (images.tensor(i).to(device) for i in images.ids(after, q, top=1))
        pairs.append((strip.query, strip.images[0], cross_attention(model, query, candidate), strip.right[0]))
    draw_cross_attention(pairs, Path("cross_attention.png"))
    draw_budget_curve(budget_curve(before, after, top), Path("budget.png"))
    print(f"strips.png, cross_attention.png and budget.png in {Path.cwd()}")


def first_hit_changed(before: RetrievalResults, after: RetrievalResults) -> list[int]:
    """The queries whose first hit is another one after re-ranking."""
    pairs = zip(before.retrieved_ids, after.retrieved_ids, strict=True)
    return [q for q, (old, new) in enumerate(pairs) if len(old) and old[0] != new[0]]


def described(before: RetrievalResults, after: RetrievalResults, changed: list[int]) -> str:
    """How many first hits changed, and how they changed, in one line."""
    was, became = ([bool(right_ones(results, q)[0]) for q in changed] for results in (before, after))
    better = sum(new and not old for old, new in zip(was, became, strict=True))
    worse = sum(old and not new for old, new in zip(was, became, strict=True))
    return (
        f"The first hit changed for {len(changed)} of {len(before.retrieved_ids)} queries: {better} became right, "
        f"{worse} became wrong, {len(changed) - better - worse} neither"
    )


if __name__ == "__main__":
    main()
