"""Settings that are chosen from a dataframe and a machine."""

from __future__ import annotations

import pytest
from omegaconf import OmegaConf

from helpers.configs import composed
from oml_vit_ext.commands.choices import Choice, Machine, choose, keys_of, table
from oml_vit_ext.commands.frame_facts import FrameFacts

SMALL = FrameFacts(106, 7, 12, 2, 15, 75, 75)
LARGE = FrameFacts(59_551, 11_318, 11_318, 2, 5, 60_502, 60_502)


def _values(facts: FrameFacts, machine: Machine, name: str = "irt/train_photos", given: tuple[str, ...] = ()) -> dict:
    return {c.key: c.value for c in choose(composed(name), facts, machine, given)}


def test_batches_and_memory_fit_a_small_frame():
    chosen = _values(SMALL, Machine(2))
    assert chosen["sampler.args.n_labels"] == 7 and chosen["memory_size"] == 106
    assert chosen["iterations"] == 60 and chosen["valid_iterations"] == 20
    assert chosen["metric_args.cmc_top_k"] == [1, 5, 10] and chosen["num_workers"] == 0


def test_a_large_frame_on_a_gpu_gets_large_photos_and_more_iterations():
    chosen = _values(LARGE, Machine(8, 24.0))
    assert chosen["images.crop"] == 224 and chosen["iterations"] == pytest.approx(25 * 59_551 / 64, abs=3)
    assert chosen["memory_size"] == 59_551 and chosen["num_workers"] == 7
    on_cpu = _values(LARGE, Machine(8))
    assert on_cpu["iterations"] == 600 and "images.crop" not in on_cpu  # the config's own are for a CPU


def test_what_is_given_is_not_chosen():
    assert "memory_size" not in _values(SMALL, Machine(2), given=("memory_size",))
    assert "sampler.args.n_labels" not in _values(SMALL, Machine(2), given=("sampler",))


@pytest.mark.parametrize("name", ["irt/validate_photos", "dtop/train_photos", "stir/validate_reranker_photos"])
def test_only_keys_of_the_config_are_set(name: str):
    for choice in choose(composed(name), SMALL, Machine(2)):
        composed(name, choice.override)  # an override of an unknown key is an error


def test_the_fusion_of_another_data_set_is_left_out():
    assert _values(SMALL, Machine(2), "stir/validate_reranker_photos")["fusion"] is None


def test_an_unknown_key_in_the_list_is_told():
    cfg = OmegaConf.create({"chosen_for_data": ["iteratoins"]})
    with pytest.raises(ValueError, match="chosen_for_data lists 'iteratoins'"):
        choose(cfg, SMALL, Machine(2))


def test_each_choice_is_printed_as_it_would_be_typed():
    assert Choice("a.b", [1, 5], "").override == "a.b=[1,5]" and Choice("a", None, "").override == "a=null"
    assert table([Choice("a", 1, "why")]) == "  a=1  why"
    assert keys_of(["a.b=1", "+c=2", "~d"]) == ["a.b", "c", "d"]
