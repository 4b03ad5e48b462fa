"""``oml-vit-ext fit-fusion``, small: it writes the file that a re-ranker takes, and prints the curve behind it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from helpers.configs import composed
from helpers.small_reranker import small_reranker
from oml_vit_ext.commands.fit_fusion import fit_fusion_of
from oml_vit_ext.reranking import Fusion
from oml_vit_ext.reranking.fusion import fusion_of


def test_fit_fusion_writes_what_a_reranker_takes(demo_slice: Path, in_tmp_path: Path, capsys: pytest.CaptureFixture):
    cfg = composed("stir/validate_reranker_demo", f"dataset_root={demo_slice}", *small_reranker())
    cfg = OmegaConf.create(OmegaConf.to_container(cfg, resolve=True))  # as written by hand: no keys but those in use
    for name in ("budget", "fusion", "scores_file"):
        del cfg.postprocessor.args[name]
    del cfg["join_layer"]
    OmegaConf.set_struct(cfg, True)
    fit_fusion_of(cfg)
    printed = capsys.readouterr().out
    fusion, content = fusion_of("fusion.json"), json.loads(Path("fusion.json").read_text())
    assert isinstance(fusion, Fusion)
    assert f"first_stage_weight {fusion.first_stage_weight:g}, temperature {fusion.temperature:g}" in printed
    fitted_on = content["fitted_on"]
    assert f"{fitted_on['queries']} queries" in printed and fitted_on["top_n"] == 3
    assert fitted_on["join_layer"] == 1
    assert f"1.00   {fitted_on['cmc1_first_stage']:.4f}  the first stage alone" in printed
    assert fitted_on["cmc1_fused"] >= max(fitted_on["cmc1_first_stage"], fitted_on["cmc1_pair_model"])
