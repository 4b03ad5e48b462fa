"""The official folders, and the evaluation script on a miniature of them."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from oml.registry.transforms import get_transforms
from PIL import Image

from helpers import ROOT, TINY_PLAIN, miniature
from oml_vit_ext.datasets.revisited import distractor_paths
from oml_vit_ext.extractors import IRTExtractor
from oml_vit_ext.extractors.multi_scale import AtScales, at_scales
from oml_vit_ext.extractors.pca import ExtractorWithPCA
from oml_vit_ext.retrieval import Embedder, evaluate_revisited, load_revisited, stored_chunks
from oml_vit_ext.retrieval.revisited import check_model, embed_into

SIZES = ((40, 32), (32, 40), (48, 48))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    miniature.revisited(root, sizes=SIZES)
    for i in range(7):
        miniature.image(root / f"revisitop1m/jpg/{i % 2}/{i}.jpg", size=SIZES[i % 3])
    return root


@pytest.fixture(scope="module")
def embedder() -> Embedder:
    torch.manual_seed(0)
    return Embedder(IRTExtractor(None, **TINY_PLAIN), get_transforms("norm_resize_torch", im_size=32))


def test_the_official_layout_is_read(data: Path):
    read = load_revisited(data, "roxford5k")
    assert len(read.query_paths) == 3 and len(read.database_paths) == 12
    assert read.query_boxes[0] == (1, 1, 10, 7), "rounded, as Pillow does for the official code"
    assert read.ground_truth[1]["hard"].tolist() == [0, 2] and read.missing_files() == []
    assert load_revisited(data / "roxford5k", "roxford5k").root == read.root
    (data / "roxford5k/jpg/img_003.jpg").rename(data / "gone.jpg")
    assert read.missing_files() == [Path("jpg/img_003.jpg")]
    (data / "gone.jpg").rename(data / "roxford5k/jpg/img_003.jpg")


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


def test_boxes_are_what_is_embedded(data: Path, embedder: Embedder, tmp_path: Path):
    read = load_revisited(data, "roxford5k")
    file = read.root / read.query_paths[0]
    Image.open(file).crop(read.query_boxes[0]).save(tmp_path / "crop.png")
    boxed = embedder.embed_all([file], read.query_boxes[:1])
    np.testing.assert_allclose(boxed, embedder.embed_all([tmp_path / "crop.png"]), atol=1e-5)
    assert not np.allclose(boxed, embedder.embed_all([file]), atol=1e-3)


def test_an_interrupted_embedding_goes_on(data: Path, embedder: Embedder, tmp_path: Path):
    paths = [data / "revisitop1m" / path for path in distractor_paths(data / "revisitop1m")]
    embed_into(tmp_path / "d", embedder, paths, per_file=3)
    whole = np.concatenate(list(stored_chunks(tmp_path / "d")))
    np.testing.assert_allclose(whole, embedder.embed_all(paths), atol=1e-5)
    files = sorted((tmp_path / "d").glob("*.npy"))
    kept = files[0].stat().st_mtime_ns
    files[1].unlink()
    embed_into(tmp_path / "d", embedder, paths, per_file=3)
    np.testing.assert_array_equal(np.concatenate(list(stored_chunks(tmp_path / "d"))), whole)
    assert files[0].stat().st_mtime_ns == kept


def test_embeddings_of_another_model_or_of_other_images_are_refused(data: Path, embedder: Embedder, tmp_path: Path):
    paths = [data / "revisitop1m" / path for path in distractor_paths(data / "revisitop1m")]
    embed_into(tmp_path, embedder, paths)
    other = Embedder(IRTExtractor(None, **TINY_PLAIN), embedder.transform)
    with pytest.raises(ValueError, match="come from different models"):
        embed_into(tmp_path, other, paths)
    with pytest.raises(ValueError, match="embeddings of other images"):
        embed_into(tmp_path, embedder, paths[1:])
    (tmp_path / "model.json").unlink()
    with pytest.raises(ValueError, match="nobody knows which model"):
        check_model(tmp_path, embedder.fingerprint)


def test_broken_distractors_are_left_out_and_broken_database_images_are_not(
    data: Path, embedder: Embedder, tmp_path: Path
):
    (tmp_path / "broken.jpg").write_text("")
    paths = [data / "roxford5k/jpg/img_000.jpg", tmp_path / "broken.jpg"]
    assert embed_into(tmp_path / "d", embedder, paths) == 1
    assert sum(map(len, stored_chunks(tmp_path / "d"))) == 1
    with pytest.raises(ValueError, match=r"broken.jpg' cannot be used"):
        embedder.embed_all(paths)


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


def test_the_script_gives_the_figures_of_the_full_ranking(data: Path):
    folder = data.parent
    extractor = IRTExtractor(None, arch="vit_tiny_patch16_224", timm_args={"depth": 1}).eval()
    torch.save(extractor.state_dict(), folder / "model.pth")
    done = subprocess.run(
        [
            *(sys.executable, str(ROOT / "examples/evaluate_revisited.py"), f"dataset_root={data.name}"),
            *("checkpoint=model.pth", "arch=vit_tiny_patch16_224", "+timm_args.depth=1", "side=32"),
            *("average_over_scales=[0.7071,1]", "num_workers=0", "accelerator=cpu", "hydra.run.dir=run"),
            *(f"distractors={data.name}/revisitop1m", "distractor_descriptors=described"),
        ],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    scores = json.loads((folder / "run/revisited.json").read_text())
    assert "roxford5k: 3 queries, 19 images, 192 dimensions" in done.stdout
    row = next(line for line in done.stdout.splitlines() if line.startswith("medium"))
    assert f"{100 * scores['medium']['map']:.2f}" in row and "mP@10" in done.stdout
    assert sum(map(len, stored_chunks(folder / "described"))) == 7

    read = load_revisited(data, "roxford5k")
    transform = get_transforms("norm_resize_torch", im_size=32)
    embedder = Embedder(AtScales(extractor, [0.7071, 1]), transform)
    queries = embedder.embed_all([read.root / p for p in read.query_paths], read.query_boxes)
    images = [read.root / p for p in read.database_paths]
    images += [data / "revisitop1m" / p for p in distractor_paths(data / "revisitop1m")]
    rankings = np.argsort(-queries @ embedder.embed_all(images).T, axis=1)
    expected = evaluate_revisited(rankings, read.ground_truth)
    for level, values in expected.items():
        assert scores[level] == pytest.approx(values)
