"""``oml-vit-ext check``"""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers.command_line import fails, succeeds


def test_a_good_config_has_no_errors_and_its_memory_is_told(tiny: list[str]):
    printed = succeeds("check", "irt/train_photos", *tiny, "--show")
    assert "0 errors" in printed and "Expected memory: about" in printed and "name: augs_irt" in printed


def test_all_mistakes_are_in_one_list_and_nothing_is_written(
    tiny: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())
    printed = fails("check", "irt/train_photos", *tiny, "optimizer.args.lr=abc", "sampler.args.n_labels=7")
    assert "optimizer.args.lr is 'abc', expected a number." in printed
    assert "sampler.args.n_labels is 7, but the training part has 6 labels" in printed
    assert "2 errors" in printed and sorted(tmp_path.iterdir()) == before


def test_a_misspelt_key_and_config_get_the_nearest_name(tiny: list[str]):
    assert "did you mean 'iterations'" in fails("check", "irt/train_photos", "iteratoins=4")
    assert "did you mean 'irt/train_photos'" in fails("check", "irt/train_photo")


def test_a_file_of_ones_own_may_build_on_ours(tiny: list[str], tmp_path: Path):
    (tmp_path / "mine.yaml").write_text(
        "defaults: [/irt/train_photos, _self_]\nmetric_for_checkpointing: OVERALL/cmc/7\n"
    )
    printed = fails("check", str(tmp_path / "mine.yaml"), *tiny)
    assert "Unknown metric of metric_args 'OVERALL/cmc/7'" in printed and "1 error, " in printed
