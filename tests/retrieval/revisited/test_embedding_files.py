"""Embeddings on disk: what is written, what is refused, what comes back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from oml.registry.transforms import get_transforms
from PIL import Image

from helpers import TINY_PLAIN, miniature
from oml_vit_ext.datasets.revisited import distractor_paths
from oml_vit_ext.extractors import IRTExtractor
from oml_vit_ext.retrieval import Embedder, load_revisited, stored_chunks
from oml_vit_ext.retrieval.revisited import check_model, embed_into, n_stored
from oml_vit_ext.retrieval.revisited.embedding_files import store


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return miniature.revisited_with_distractors(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def embedder() -> Embedder:
    torch.manual_seed(0)
    return Embedder(IRTExtractor(None, **TINY_PLAIN), get_transforms("norm_resize_torch", im_size=32))


def embeddings_of(n: int = 300) -> np.ndarray:
    return np.random.default_rng(3).standard_normal((n, 6)).astype(np.float32)


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


def test_stored_embeddings_come_back_in_order(tmp_path: Path):
    rows = embeddings_of()
    store(rows[:200], tmp_path / "shards" / "000.npy")
    store(rows[200:].astype(np.float16), tmp_path / "shards" / "001.npy")
    chunks = list(stored_chunks(tmp_path / "shards", rows=64))
    assert max(map(len, chunks)) == 64 and n_stored(tmp_path / "shards") == 300
    np.testing.assert_allclose(np.concatenate(chunks), rows, rtol=1e-3, atol=1e-3)
    assert sorted(p.name for p in (tmp_path / "shards").iterdir()) == ["000.npy", "001.npy"]


def test_one_file_is_enough(tmp_path: Path):
    rows = embeddings_of()
    store(rows, tmp_path / "all.npy")
    np.testing.assert_array_equal(np.concatenate(list(stored_chunks(tmp_path / "all.npy", rows=7))), rows)


def test_bad_files_are_named(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"missing or holds no .npy"):
        list(stored_chunks(tmp_path))
    store(np.arange(10, dtype=np.float32), tmp_path / "flat.npy")
    with pytest.raises(ValueError, match="expected floats of shape"):
        list(stored_chunks(tmp_path / "flat.npy"))
    store(embeddings_of(), tmp_path / "cut.npy")
    (tmp_path / "cut.npy").write_bytes((tmp_path / "cut.npy").read_bytes()[:500])
    with pytest.raises(ValueError, match=r"cut.npy' cannot be read"):
        list(stored_chunks(tmp_path / "cut.npy"))


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"model": {}}', '{"model": {"probe": 3}, "images": 1}', "[" * 50_000]
)
def test_a_damaged_note_of_the_model_is_named(data: Path, embedder: Embedder, tmp_path: Path, text: str):
    (tmp_path / "model.json").write_text(text)
    with pytest.raises(ValueError, match=r"model\.json is damaged"):
        check_model(tmp_path, embedder.fingerprint)


def test_a_folder_with_arrays_of_somebody_else_is_refused(data: Path, embedder: Embedder, tmp_path: Path):
    """They would be taken for distractors."""
    np.save(tmp_path / "queries.npy", np.ones((3, 4), np.float32))
    paths = [data / "revisitop1m" / path for path in distractor_paths(data / "revisitop1m")]
    with pytest.raises(ValueError, match=r"holds queries\.npy, of which nobody knows the model: choose a new folder"):
        embed_into(tmp_path, embedder, paths)
    assert [path.name for path in tmp_path.iterdir()] == ["queries.npy"]


def test_rows_without_a_width_are_no_embeddings(tmp_path: Path):
    """A file of 128 bytes may announce any number of them."""
    np.save(tmp_path / "x.npy", np.ones((10**15, 0), np.float32))
    with pytest.raises(ValueError, match=r"expected floats of shape \(rows, dim\)"):
        next(stored_chunks(tmp_path / "x.npy"))
    np.save(tmp_path / "y.npy", np.ones((3, 2), np.float32))
    with pytest.raises(ValueError, match="rows is 0, expected a whole number of at least 1"):
        next(stored_chunks(tmp_path / "y.npy", 0))
