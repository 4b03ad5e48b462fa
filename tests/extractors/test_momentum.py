"""The moving average beside an extractor: its arithmetic, what the memory gets, and OML's pipelines."""

from __future__ import annotations

import copy
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from oml.datasets.images import ImageBaseDataset
from oml.inference import inference
from oml.registry.models import get_extractor_by_cfg
from oml.registry.transforms import get_transforms_by_cfg
from torch import Tensor

from helpers import ROOT, TINY_PLAIN
from oml_vit_ext.common.momentum_embeddings import find
from oml_vit_ext.extractors import ExtractorWithMomentum, IRTExtractor
from oml_vit_ext.losses import ContrastiveXBMLoss, IRTLoss

MOMENTUM = 0.9
LABELS = torch.tensor([0, 0, 1, 1])


def _model(**arguments) -> ExtractorWithMomentum:
    return ExtractorWithMomentum(IRTExtractor(None, **TINY_PLAIN), MOMENTUM, **arguments).train()


def _images() -> Tensor:
    return torch.rand(4, 3, 32, 32)


def _step(model: ExtractorWithMomentum, optimizer: torch.optim.Optimizer, criterion, images: Tensor) -> Tensor:
    features = model(images)
    optimizer.zero_grad()
    criterion(features, LABELS).backward()
    optimizer.step()
    return features


def _adamw(model: ExtractorWithMomentum, **arguments) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters(), lr=1e-2, **arguments)


def _weights(extractor: torch.nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in extractor.state_dict().items()}


def test_the_copy_is_the_moving_average_of_the_weights():
    model, criterion = _model(), IRTLoss()
    optimizer = _adamw(model)
    history = [_weights(model.extractor)]  # before each step
    for _ in range(4):
        _step(model, optimizer, criterion, _images())
        history.append(_weights(model.extractor))

    expected = dict(history[0])
    for weights in history[:-1]:  # the last weights have not been used by a training pass yet
        for name in expected:
            expected[name] = MOMENTUM * expected[name] + (1 - MOMENTUM) * weights[name]
    torch.testing.assert_close(_weights(model.momentum_extractor), expected, atol=1e-6, rtol=1e-5)
    qkv = "backbone.blocks.0.attn.qkv.weight"
    assert (expected[qkv] - history[0][qkv]).abs().max() > 1e-4, "nothing was trained"


def test_buffers_are_copied():
    model = _model()
    model.extractor.register_buffer("mean", torch.zeros(2))
    model.momentum_extractor.register_buffer("mean", torch.zeros(2))
    model.extractor.mean.fill_(3.0)
    model(_images())
    assert model.momentum_extractor.mean.tolist() == [3.0, 3.0]


def test_the_first_step_has_equal_embeddings_without_gradient():
    model = _model()
    features = model(_images())
    assert features.requires_grad and not find(features).requires_grad
    torch.testing.assert_close(find(features), features.detach())


def test_the_memory_holds_the_copys_embeddings():
    model, criterion = _model(), ContrastiveXBMLoss(memory_size=8)
    optimizer = _adamw(model)
    _step(model, optimizer, criterion, _images())
    images = _images()
    features = _step(model, optimizer, criterion, images)
    stored, labels = criterion.memory.entries(features)
    with torch.no_grad():
        theirs = F.normalize(model.momentum_extractor(images), dim=1)  # has not moved since
    torch.testing.assert_close(stored[4:], theirs)
    assert labels.tolist() == [*LABELS.tolist()] * 2
    assert (stored[4:] - features.detach()).abs().max() > 1e-3


@pytest.mark.parametrize("predict_with", ["extractor", "momentum"])
def test_evaluation_uses_the_one_that_was_chosen(predict_with: str):
    model = _model(predict_with=predict_with)
    optimizer = _adamw(model)
    for _ in range(2):
        _step(model, optimizer, IRTLoss(), _images())
    model.eval()
    images = _images()
    chosen = {"extractor": model.extractor, "momentum": model.momentum_extractor}[predict_with]
    with torch.no_grad():
        torch.testing.assert_close(model(images), chosen(images))
        torch.testing.assert_close(model.extract(images), chosen(images))
        assert not torch.allclose(model.extractor(images), model.momentum_extractor(images), atol=1e-3)
    assert find(model(images)) is None


def test_only_training_passes_with_gradients_move_the_copy():
    model = _model()
    with torch.no_grad():
        model.extractor.backbone.cls_token += 1.0
        before = _weights(model.momentum_extractor)
        model(_images())
    model.eval()(_images())
    model.train().extract(_images())
    torch.testing.assert_close(_weights(model.momentum_extractor), before, atol=0, rtol=0)
    model(_images())
    moved = model.momentum_extractor.backbone.cls_token - before["backbone.cls_token"]
    torch.testing.assert_close(moved, torch.full_like(moved, 1 - MOMENTUM))


def test_neither_weight_decay_nor_unfreezing_touches_the_copy():
    model = _model()
    optimizer = _adamw(model, weight_decay=0.5)
    model.freeze()
    assert not any(p.requires_grad for p in model.parameters())
    model.unfreeze()
    assert all(p.requires_grad for p in model.extractor.parameters())
    features = model(_images())
    before = _weights(model.momentum_extractor)
    IRTLoss()(features, LABELS).backward()
    optimizer.step()
    torch.testing.assert_close(_weights(model.momentum_extractor), before, atol=0, rtol=0)
    assert all(p.grad is None for p in model.momentum_extractor.parameters())


def test_the_copy_stays_in_evaluation_mode():
    model = ExtractorWithMomentum(IRTExtractor(None, arch="vit_tiny_patch16_224", timm_args={"proj_drop_rate": 0.5}))
    model.train()
    assert model.extractor.training and not any(m.training for m in model.momentum_extractor.modules())
    x = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(find(model(x)), find(model(x)))


def test_mixed_precision_keeps_the_copy_exact():
    model = _model()
    with torch.autocast("cpu", torch.bfloat16):
        features = model(_images())
    assert features.dtype == find(features).dtype == torch.float32
    with pytest.raises(TypeError, match=r"moving average is in torch\.bfloat16.*precision: bf16-mixed"):
        model.to(torch.bfloat16)(_images().bfloat16())


def test_a_resumed_run_goes_on_exactly():
    batches = [_images() for _ in range(4)]

    def run(model, optimizer, criterion, images):
        for batch in images:
            _step(model, optimizer, criterion, batch)
        return {**_weights(model), **_weights(criterion)}

    model, criterion = _model(), ContrastiveXBMLoss(memory_size=8)
    optimizer = _adamw(model)
    run(model, optimizer, criterion, batches[:2])
    parts = (model, optimizer, criterion)
    saved = copy.deepcopy([part.state_dict() for part in parts])  # they share their tensors
    expected = run(*parts, batches[2:])

    resumed = _model()
    parts = (resumed, _adamw(resumed), ContrastiveXBMLoss(memory_size=8))
    for part, state in zip(parts, saved, strict=True):
        part.load_state_dict(state)
    torch.testing.assert_close(run(*parts, batches[2:]), expected, atol=0, rtol=0)


@pytest.mark.parametrize("momentum", [1.0, -0.1, float("nan"), "0.9", True])
def test_a_momentum_out_of_range(momentum):
    with pytest.raises(ValueError, match=r"momentum is .*, expected a number from 0 to below 1"):
        ExtractorWithMomentum(IRTExtractor(None, **TINY_PLAIN), momentum)


def test_a_wrong_choice_names_the_right_ones():
    with pytest.raises(ValueError, match="Unknown predict_with 'momentun': did you mean 'momentum'"):
        _model(predict_with="momentun")


def test_the_oml_builds_it_from_yaml():
    inner = {"name": "irt", "args": {"weights": None, **TINY_PLAIN}}
    args = {"momentum": 0.99, "weights": None, "extractor": inner}
    model = get_extractor_by_cfg({"name": "extractor_with_momentum", "args": args})
    assert isinstance(model, ExtractorWithMomentum) and isinstance(model.extractor, IRTExtractor)
    assert (model.momentum, model.feat_dim) == (0.99, 192)


def test_the_oml_training_fills_the_memory_with_the_copys_embeddings(demo_slice: Path, tmp_path: Path):
    """Without augmentation and with a copy that hardly moves, every entry is the copy's of one of the pictures."""
    arguments = {"arch": "vit_tiny_r_s16_p8_224", "timm_args": {"img_size": 48, "patch_size": 2, "depth": 2}}
    small = "{weights: null, arch: vit_tiny_r_s16_p8_224, timm_args: {img_size: 48, patch_size: 2, depth: 2}}"
    overrides = [
        "extractor=extractor_with_momentum",
        "~extractor.args",  # the demo's own are those of the plain extractor
        f"+extractor.args={{momentum: 0.999999, extractor: {{name: irt, args: {small}}}}}",
        "transforms@transforms_train=norm_resize_irt",
        *("pretrained=null", "iterations=3", "optimizer.args.lr=1e-3", "memory_size=24"),
        *("sampler.args.n_labels=4", "sampler.args.n_instances=2"),
        *(f"dataset_root={demo_slice}", "hydra.run.dir=run"),
    ]
    script = str(ROOT / "examples" / "train_extractor.py")
    done = subprocess.run(
        [sys.executable, script, "--config-name", "irt/train_demo", *overrides],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]

    path = tmp_path / "run" / "checkpoints" / "best.ckpt"
    memory = torch.load(path, weights_only=False)["state_dict"]["criterion.memory.features"]
    model = ExtractorWithMomentum(IRTExtractor(None, **arguments), weights=path).eval()
    df = pd.read_csv(demo_slice / "df.csv")
    transform = get_transforms_by_cfg({"name": "norm_resize_irt", "args": {"im_size": 52, "crop_size": 48}})
    pictures = ImageBaseDataset([demo_slice / p for p in df[df.split == "train"].path], transform=transform)
    copys, trained = (
        inference(m, pictures, batch_size=64, verbose=False) for m in (model.momentum_extractor, model.extractor)
    )
    assert memory.shape == (24, 192)
    assert torch.cdist(memory, copys).amin(dim=1).max() < 1e-3
    assert torch.cdist(memory, trained).amin(dim=1).min() > 1e-2
    plain = IRTExtractor(path, **arguments).eval()
    torch.testing.assert_close(inference(plain, pictures, batch_size=64, verbose=False), trained)
