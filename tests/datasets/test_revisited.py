"""The official folders of Revisited Oxford and Paris."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from helpers import TINY_PLAIN, miniature
from oml_vit_ext.datasets.revisited import distractor_paths
from oml_vit_ext.extractors import IRTExtractor
from oml_vit_ext.extractors.multi_scale import AtScales, at_scales
from oml_vit_ext.extractors.pca import ExtractorWithPCA
from oml_vit_ext.retrieval import load_revisited


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return miniature.revisited_with_distractors(tmp_path_factory.mktemp("data"))


def test_the_official_layout_is_read(data: Path):
    read = load_revisited(data, "roxford5k")
    assert len(read.query_paths) == 3 and len(read.database_paths) == 12
    assert read.query_boxes[0] == (1, 1, 10, 7), "rounded, as Pillow does for the official code"
    assert read.ground_truth[1]["hard"].tolist() == [0, 2] and read.missing_files() == []
    assert load_revisited(data / "roxford5k", "roxford5k").root == read.root
    (data / "roxford5k/jpg/img_003.jpg").rename(data / "gone.jpg")
    assert read.missing_files() == [Path("jpg/img_003.jpg")]
    (data / "gone.jpg").rename(data / "roxford5k/jpg/img_003.jpg")


@pytest.mark.parametrize("where", ["x", "data/test", "x/roxford5k"])
def test_it_may_lie_deeper(tmp_path: Path, where: str):
    miniature.revisited(tmp_path / where)
    assert load_revisited(tmp_path, "roxford5k").root == tmp_path / where / "roxford5k"


@pytest.mark.parametrize("place", ["jpg/{}.JPG", "jpg/oxbuild_images/{}.jpg", "images/jpg/{}.jpeg"])
@pytest.mark.parametrize("ending", ["", ".jpg"])
def test_images_may_lie_elsewhere_and_lists_may_have_the_ending(tmp_path: Path, place: str, ending: str):
    content = miniature.revisited(tmp_path)
    for file in list((tmp_path / "roxford5k/jpg").iterdir()):
        moved = tmp_path / "roxford5k" / place.format(file.stem)
        moved.parent.mkdir(parents=True, exist_ok=True)
        file.rename(moved)
    content["imlist"] = [f"{name}{ending}" for name in content["imlist"]]
    (tmp_path / "roxford5k/gnd_roxford5k.pkl").write_bytes(pickle.dumps(content))
    data = load_revisited(tmp_path, "roxford5k")
    assert data.missing_files() == [] and data.query_paths[0] == Path(place.format("all_souls_000001"))


def test_bad_ground_truths_are_named(tmp_path: Path):
    with pytest.raises(ValueError, match="did you mean 'roxford5k'"):
        load_revisited(tmp_path, "oxford5k")
    with pytest.raises(FileNotFoundError, match=r"gnd_roxford5k.pkl is missing"):
        load_revisited(tmp_path, "roxford5k")
    content = miniature.revisited(tmp_path)
    changes = {
        "expected a dict with imlist": lambda c: c.pop("imlist"),
        "3 queries but ground truth for 2": lambda c: c["gnd"].pop(),
        "query 0 has no 'hard'": lambda c: c["gnd"][0].pop("hard"),
        "junk of query 0 holds 12, expected 0 to 11": lambda c: c["gnd"][0].update(junk=[12]),
        "expected a name below jpg": lambda c: c["imlist"].__setitem__(0, "../../x"),
        "expected left < right": lambda c: c["gnd"][0].update(bbx=[5, 0, 4, 8]),
        "expected four numbers": lambda c: c["gnd"][0].update(bbx=[5]),
    }
    for message, change in changes.items():
        broken = pickle.loads(pickle.dumps(content))
        change(broken)
        (tmp_path / "roxford5k/gnd_roxford5k.pkl").write_bytes(pickle.dumps(broken))
        with pytest.raises(ValueError, match=message):
            load_revisited(tmp_path, "roxford5k")
    (tmp_path / "roxford5k/gnd_roxford5k.pkl").write_bytes(b"cos\nsystem\n(S'touch harm'\ntR.")
    with pytest.raises(ValueError, match=r"asks for os.system"):
        load_revisited(tmp_path, "roxford5k")


def test_distractors_are_listed(data: Path, tmp_path: Path):
    assert [p.name for p in distractor_paths(data / "revisitop1m")] == [f"{i}.jpg" for i in (0, 2, 4, 6, 1, 3, 5)]
    (tmp_path / "revisitop1m.txt").write_text("1/b.jpg\n0/a.jpg\n")
    assert distractor_paths(tmp_path) == [Path("jpg/1/b.jpg"), Path("jpg/0/a.jpg")]
    with pytest.raises(FileNotFoundError, match="expected the folder of"):
        distractor_paths(tmp_path / "nowhere")


def test_scales_are_averaged_and_pca_comes_after():
    inner = IRTExtractor(None, **TINY_PLAIN).eval()
    images = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(AtScales(inner, [1]).eval()(images), inner(images))
    wrapped = at_scales(inner, [0.5, 1])
    halves = torch.nn.functional.interpolate(images, scale_factor=0.5, mode="bilinear")
    expected = torch.nn.functional.normalize(inner(images) + inner(halves), dim=1)
    torch.testing.assert_close(wrapped(images), expected)
    compact = at_scales(ExtractorWithPCA(inner, None, 4), [0.5, 1])
    assert isinstance(compact, ExtractorWithPCA) and isinstance(compact.extractor, AtScales) and compact.feat_dim == 4


@pytest.mark.parametrize("name", ["../../../etc/passwd", "/etc/hostname", "a/../../b.jpg", "a\0.jpg"])
def test_distractors_outside_of_the_folder_are_refused(tmp_path: Path, name: str):
    (tmp_path / "revisitop1m.txt").write_text(f"0/a.jpg\n{name}\n")
    with pytest.raises(ValueError, match=r"revisitop1m.txt lists the image .*, expected a name below jpg"):
        distractor_paths(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        *({"easy": None}, {"easy": [[0, 1]]}, {"hard": "text"}, {"junk": [1.7]}, {"junk": np.ones(3, bool)}),
        *({"easy": [-1]}, {"easy": [2**70]}, {"bbx": [0, 0, float("inf"), 3]}, {"bbx": None}),
        {"bbx": [0, 0, float("nan"), 1]},
    ],
)
def test_odd_ground_truth_is_refused_with_the_name_of_the_file(tmp_path: Path, change: dict):
    content = miniature.revisited(tmp_path)
    content["gnd"][1].update(change)
    (tmp_path / "roxford5k/gnd_roxford5k.pkl").write_bytes(pickle.dumps(content))
    with pytest.raises(ValueError, match=r"gnd_roxford5k\.pkl: .*of query 1 "):
        load_revisited(tmp_path, "roxford5k")
