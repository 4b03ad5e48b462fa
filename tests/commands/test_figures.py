"""How well a model retrieves, and two models compared in words."""

from __future__ import annotations

from omegaconf import OmegaConf

from oml_vit_ext.commands.figures import ranks_of, table, verdict

WORSE = {"cmc": {1: 0.5, 10: 1.0}, "map": {5: 0.25}}
BETTER = {"cmc": {1: 0.75, 10: 1.0}, "map": {5: 0.5}}


def test_a_rank_beyond_the_photos_is_left_open_and_said():
    printed = table({"before": WORSE, "after": BETTER}, n_to_find=9)
    assert printed.splitlines()[0].split() == ["CMC@1", "CMC@10", "MAP@5"]
    assert printed.splitlines()[2].split() == ["after", "0.7500", "–", "0.5000"]
    assert "CMC@10: only 9 photos are there to be found" in printed
    assert "–" not in table({"after": BETTER}, n_to_find=11)


def test_a_model_that_became_worse_is_told():
    assert verdict(WORSE, BETTER) == "CMC@1 rose from 0.5000 to 0.7500."
    assert "The trained model is worse than the one that it started from" in verdict(BETTER, WORSE)
    assert "stayed at 0.5000" in verdict(WORSE, WORSE)


def test_the_ranks_are_those_of_the_config():
    cfg = OmegaConf.create({"metric_args": {"cmc_top_k": [1, 10], "map_top_k": [5], "precision_top_k": []}})
    assert ranks_of(cfg) == {"cmc": [1, 10], "map": [5]}
    assert ranks_of(OmegaConf.create({})) == {"cmc": [1]}
