"""The config that an index keeps of its model builds it again, and runs no code of a stranger."""

from __future__ import annotations

import json
import pickle
from argparse import Namespace
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from helpers import TINY_PLAIN
from helpers.embedders import make_embedder
from oml_vit_ext.retrieval import Embedder, SearchIndex
from oml_vit_ext.retrieval.index.model_config import part, plain, with_absolute_files

TRANSFORMS = {"name": "norm_resize_irt", "args": {"im_size": 32, "crop_size": 32}}
RESNET = {"arch": "resnet18", "gem_p": None, "remove_fc": True, "normalise_features": False}


class _Touches:
    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple:
        return Path.touch, (self.file,)


@pytest.fixture()
def evil(tmp_path: Path) -> Path:
    """Weights that make a file ``touched`` when they are unpickled."""
    file = tmp_path / "evil.pth"
    torch.save({"state_dict": _Touches(tmp_path / "touched")}, file)
    return file


@pytest.mark.parametrize("kind", ["ours", "ours, behind another", "of OML"])
def test_a_stored_config_does_not_run_code_unless_trusted(evil: Path, tmp_path: Path, kind: str) -> None:
    ours = {"name": "irt", "args": {"weights": str(evil), "allow_pickle": True, **TINY_PLAIN}}
    extractor = {
        "ours": ours,
        "ours, behind another": {"name": "extractor_with_momentum", "args": {"extractor": ours}},
        "of OML": {
            "name": "resnet",
            "args": {
                "weights": str(evil),
                "arch": "resnet18",
                "gem_p": None,
                "remove_fc": True,
                "normalise_features": False,
            },
        },
    }[kind]
    index = SearchIndex(
        tmp_path, make_embedder().fingerprint, config={"extractor": extractor, "transforms": TRANSFORMS}
    )
    with pytest.raises(ValueError, match=r"such a file can run any code.*pass trust_weights=True"):
        index.embedder(device="cpu")
    assert not (tmp_path / "touched").exists()
    with pytest.raises((ValueError, RuntimeError, AttributeError, TypeError, KeyError, pickle.UnpicklingError)):
        index.embedder(device="cpu", trust_weights=True)
    assert (tmp_path / "touched").exists()  # the file was read


def test_extractors_of_oml_without_files_need_no_trust(tmp_path: Path) -> None:
    config = {"extractor": {"name": "resnet", "args": {"weights": None, **RESNET}}, "transforms": TRANSFORMS}
    index = SearchIndex(tmp_path, make_embedder().fingerprint, config=config)
    with pytest.raises(ValueError, match="what its stored config builds today come from different models"):
        index.embedder(device="cpu")


def test_files_that_exist_get_absolute_names(in_tmp_path: Path) -> None:
    (in_tmp_path / "weights.pth").touch()
    config = {"args": {"weights": "weights.pth", "arch": "weights.txt", "n": 3}}
    assert with_absolute_files(config) == {
        "args": {"weights": str(in_tmp_path / "weights.pth"), "arch": "weights.txt", "n": 3}
    }


@dataclass
class _Args:
    img_size: tuple[int, int] = (32, 24)
    weights: Path = Path("a.pth")


@pytest.mark.parametrize(
    "config",
    [
        OmegaConf.create({"img_size": [32, "${short}"], "weights": "a.pth", "short": 24}),
        OmegaConf.structured(_Args),
        _Args(),
        Namespace(img_size=(32, 24), weights=Path("a.pth")),
        OrderedDict(img_size=np.array([32, 24]), weights="a.pth"),
        {"img_size": OmegaConf.create([32, 24]), "weights": np.str_("a.pth")},
    ],
    ids=lambda config: type(config).__name__,
)
def test_whatever_holds_a_config_it_becomes_plain(config: object) -> None:
    got = json.loads(json.dumps(plain(config)))
    assert got["img_size"] == [32, 24] and got["weights"] == "a.pth"


def test_a_config_that_no_file_can_keep_is_told_before_the_work() -> None:
    embedder = make_embedder()
    with pytest.raises(ValueError, match="of type module, expected text, numbers, lists and dictionaries"):
        Embedder(embedder.extractor, embedder.transform, config={"extractor": {"args": [torch]}})


def test_an_index_made_with_a_config_of_hydra_is_saved(photos: Path, tmp_path: Path) -> None:
    cfg = OmegaConf.create({"extractor": {"name": "irt", "args": {"weights": None, **TINY_PLAIN}}, "to": TRANSFORMS})
    cfg.extractor.args.timm_args.img_size = [32, 32]
    index, _ = SearchIndex.build(photos, Embedder.from_config(cfg.extractor, cfg.to, device="cpu"))
    index.save(tmp_path / "index")
    stored = SearchIndex.load(tmp_path / "index").config
    assert stored is not None and stored["extractor"]["args"]["timm_args"]["img_size"] == [32, 32]


@pytest.mark.parametrize("given", [{"name": "irt"}, {"name": "irt", "args": None}, OmegaConf.create({"name": "irt"})])
def test_arguments_may_be_left_out(given: Any) -> None:
    assert part("extractor", given) == {"name": "irt", "args": {}}


@pytest.mark.parametrize("given", ["irt", {"args": {}}, {"name": 3}, {"name": "irt", "arch": "vit"}, None, []])
def test_a_part_of_another_form_is_told(given: Any) -> None:
    with pytest.raises(ValueError, match=r"^The config of the extractor is .*, expected the form \{name: \.\.\., args"):
        part("extractor", given)
    with pytest.raises(ValueError, match=r"^args of the extractor 'irt' is 'vit', expected names and values"):
        part("extractor", {"name": "irt", "args": "vit"})
