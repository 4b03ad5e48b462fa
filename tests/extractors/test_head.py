"""A head behind an extractor: what it computes, its file, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from oml.registry.models import get_extractor_by_cfg
from safetensors.torch import save_file
from torch import Tensor, nn

from helpers import TINY_PLAIN
from oml_vit_ext.common.hashing import hash_state
from oml_vit_ext.common.momentum_embeddings import attach, find
from oml_vit_ext.extractors import ExtractorWithHead, IRTExtractor, load_head, save_head
from oml_vit_ext.extractors.head import make_head


@pytest.fixture(scope="module")
def irt() -> IRTExtractor:
    torch.manual_seed(0)
    return IRTExtractor(None, **TINY_PLAIN).eval()


@pytest.fixture()
def fitted(irt: IRTExtractor, tmp_path: Path) -> tuple[nn.Sequential, Path]:
    head = make_head(192, [16, 8])
    save_head(head, tmp_path / "head.safetensors", extractor_hash=hash_state(irt.state_dict()))
    return head, tmp_path / "head.safetensors"


def test_it_computes_the_layers_of_the_file(irt: IRTExtractor, fitted: tuple[nn.Sequential, Path]):
    head, file = fitted
    images = torch.rand(3, 3, 32, 40)
    x = irt(images)
    hidden = x @ head[0].weight.T + head[0].bias
    hidden = 0.5 * hidden * (1 + torch.erf(hidden / 2**0.5))  # GELU
    expected = hidden @ head[2].weight.T + head[2].bias
    raw = ExtractorWithHead(irt, file, normalise_features=False)
    torch.testing.assert_close(raw(images), expected)
    unit = ExtractorWithHead(irt, file)
    torch.testing.assert_close(unit.extract(images), nn.functional.normalize(expected))
    assert unit.feat_dim == 8 and sum(isinstance(m, nn.Linear) for m in unit.head) == 2


def test_from_yaml_and_through_a_checkpoint(irt: IRTExtractor, fitted: tuple[nn.Sequential, Path]):
    inner = {"name": "irt", "args": {"weights": None, **TINY_PLAIN}}
    args = {"extractor": inner, "weights": None, "dims": [16, 8]}
    built = get_extractor_by_cfg({"name": "extractor_with_head", "args": args})
    trained = ExtractorWithHead(irt, fitted[1])
    built.load_state_dict(trained.state_dict())
    images = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(built.eval()(images), trained(images))


def test_the_head_stays_free_when_the_extractor_is_frozen(irt: IRTExtractor):
    model = ExtractorWithHead(IRTExtractor(None, **TINY_PLAIN), None, dims=[8])
    model.freeze()
    model(torch.rand(2, 3, 32, 32)).sum().backward()
    assert all(p.grad is None for p in model.extractor.parameters())
    assert all(p.grad is not None for p in model.head.parameters())


def test_momentum_embeddings_go_through_the_head():
    class Inner(IRTExtractor):
        def forward(self, x: Tensor) -> Tensor:
            return attach(super().forward(x), momentum)

    momentum = torch.randn(2, 192)
    model = ExtractorWithHead(Inner(None, **TINY_PLAIN), None, dims=[8])
    found = find(model(torch.rand(2, 3, 32, 32)))
    assert found is not None
    torch.testing.assert_close(found, model.project(momentum))


def test_under_autocast_it_computes_in_float32(irt: IRTExtractor):
    model = ExtractorWithHead(irt, None, dims=[8])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert model.project(torch.rand(2, 192).bfloat16()).dtype == torch.float32


def test_another_extractor_is_refused(fitted: tuple[nn.Sequential, Path], tmp_path: Path):
    torch.manual_seed(1)
    other = IRTExtractor(None, **TINY_PLAIN)
    with pytest.raises(ValueError, match="was fitted on embeddings of other weights than those of IRTExtractor"):
        ExtractorWithHead(other, fitted[1])
    with pytest.raises(ValueError, match=r"dims is \[8\], expected \[16, 8\] as in the head"):
        ExtractorWithHead(other, fitted[1], dims=[8])
    save_head(make_head(100, [8]), tmp_path / "narrow.safetensors")
    with pytest.raises(ValueError, match="for embeddings of width 100, but IRTExtractor has width 192"):
        ExtractorWithHead(other, tmp_path / "narrow.safetensors")
    with pytest.raises(ValueError, match=r"dims is \(\), expected a list of the layers' widths"):
        ExtractorWithHead(other, None)


@pytest.mark.parametrize(
    "state",
    [
        {},
        {"0.weight": torch.ones(2, 3)},
        {"0.weight": torch.ones(2, 3), "0.bias": torch.ones(3)},
        {"0.weight": torch.ones(2, 3).half(), "0.bias": torch.ones(2).half()},
        {"0.weight": torch.full((2, 3), torch.nan), "0.bias": torch.ones(2)},
        {"0.weight": torch.ones(2, 3), "0.bias": torch.ones(2), "2.weight": torch.ones(2, 3), "2.bias": torch.ones(2)},
        {"mean": torch.ones(2), "components": torch.ones(2, 3)},
    ],
    ids=["empty", "no bias", "bias", "half", "nan", "widths", "pca"],
)
def test_other_files_are_refused(state: dict[str, Tensor], tmp_path: Path):
    save_file(state, tmp_path / "odd.safetensors")
    with pytest.raises(RuntimeError, match=r"odd\.safetensors' holds .*expected weights and biases of linear layers"):
        load_head(tmp_path / "odd.safetensors")
