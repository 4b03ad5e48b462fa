"""STIRSiamese: equality with OML at k = 0, blocked attention below k, freezing, bad input."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from oml.models.meta.siamese import ConcatSiamese
from oml.models.vit_dino.extractor import ViTExtractor
from torch import Tensor, nn

from helpers import TINY_HYBRID
from helpers.photos import ARGS, DEPTH, SIZE, livelier, small_model
from oml_vit_ext.extractors import ExtractorWithMomentum, IRTExtractor
from oml_vit_ext.reranking import STIRSiamese, joint

ALL_K = range(DEPTH)


def pair(n: int = 3, height: int = SIZE, width: int = SIZE) -> tuple[Tensor, Tensor]:
    x1, x2 = torch.randn(2, n, 3, height, width).unbind(0)
    return x1, x2


@pytest.mark.parametrize("dino, arch", [("vits16", "vit_small_patch16_224"), ("vits14", "vit_small_patch14_dinov2")])
def test_k_0_equals_the_oml_model_at_several_sizes(tmp_path, dino: str, arch: str):
    oml_extractor = ViTExtractor(None, dino, normalise_features=False)
    oml_extractor.model.blocks = oml_extractor.model.blocks[:2]  # as good as twelve, for less time
    oml = livelier(ConcatSiamese(oml_extractor, [24], use_tta=True))
    torch.save({"state_dict": {f"model.{k}": v for k, v in oml.state_dict().items()}}, tmp_path / "oml.ckpt")

    # Whatever the extractor's own flag says, the head reads the token as it is: OML's recipe.
    extractor = IRTExtractor(None, arch, normalise_features=True, timm_args={"depth": 2})
    ours = STIRSiamese(extractor, [24], use_tta=True, weights=tmp_path / "oml.ckpt").eval()
    patch = int(dino[-2:])
    for rows, columns in [(14, 14), (7, 14), (4, 4), (6, 3), (5, 8)]:
        x1, x2 = pair(2, rows * patch, columns * patch)
        with torch.no_grad():
            torch.testing.assert_close(ours(x1, x2), oml(x1, x2), atol=1e-4, rtol=0)
            torch.testing.assert_close(ours.predict(x1, x2), oml.predict(x1, x2), atol=1e-5, rtol=0)
    assert oml(x1, x2).std() > 0.01  # not a comparison of constants


def test_timms_resampling_would_not_pass_for_the_oml():
    positions = torch.randn(1, 14, 14, 8)
    theirs = joint.resample_like_dino(positions, (28, 14))
    timms = joint._resample_like_timm(positions, (28, 14))
    assert theirs.shape == timms.shape == (1, 28, 14, 8)
    assert (theirs - timms).abs().max() > 0.05


@pytest.mark.parametrize("k", range(1, DEPTH))
def test_attention_across_images_is_blocked_below_k(k: int):
    model = small_model(join_layer=k)
    seen: dict[int, Tensor] = {}
    for i, block in enumerate(model.extractor.backbone.blocks[:-1]):
        block.register_forward_hook(lambda _m, _in, out, i=i: seen.update({i: out.detach().clone()}))
    x1, x2 = pair(1)
    n = 1 + (SIZE // 8) ** 2

    def tokens_of_image_1(second: Tensor) -> dict[int, Tensor]:
        seen.clear()
        with torch.no_grad():
            model(x1, second)
        return {i: out[:1, :n] for i, out in seen.items()}

    before, after = tokens_of_image_1(x2), tokens_of_image_1(x2 + torch.randn_like(x2))
    assert sorted(before) == list(range(DEPTH - 1))
    for i in before:
        assert torch.equal(before[i], after[i]) == (i < k), f"block {i}"


@pytest.mark.parametrize("k", ALL_K)
def test_forward_is_the_score_of_what_is_encoded_once(k: int):
    model = small_model(join_layer=k)
    images = torch.randn(4, 3, SIZE, SIZE)
    first, second = torch.tensor([0, 0, 1, 2, 3]), torch.tensor([1, 2, 3, 3, 0])
    with torch.no_grad():
        encoded = model.encode(images)
        torch.testing.assert_close(model.score(encoded[first], encoded[second]), model(images[first], images[second]))
        torch.testing.assert_close(
            model.distance(encoded[first], encoded[second]), model.predict(images[first], images[second])
        )


@pytest.mark.parametrize("k", ALL_K)
def test_plain_computation(k: int):
    """The definition, with timm's own blocks on all tokens."""
    model = small_model(join_layer=k)
    vit = model.extractor.backbone
    x1, x2 = pair(2)
    with torch.no_grad():
        if k == 0:
            maps = [vit.patch_embed(x).flatten(1, 2) for x in (x1, x2)]
            grid = vit.pos_embed[:, 1:].reshape(1, 4, 4, -1).permute(0, 3, 1, 2)
            positions = F.interpolate(grid, scale_factor=(8.1 / 4, 4.1 / 4), mode="bicubic").flatten(2).transpose(1, 2)
            cls = (vit.cls_token + vit.pos_embed[:, :1]).expand(2, -1, -1)
            tokens = torch.cat([cls, torch.cat(maps, dim=1) + positions], dim=1)
            expected = vit.norm(vit.blocks(tokens))[:, 0]
        else:
            alone = [vit.blocks[:k](vit._pos_embed(vit.patch_embed(x))) for x in (x1, x2)]
            both = vit.norm(vit.blocks[k:](torch.cat(alone, dim=1)))
            expected = (both[:, 0] - both[:, alone[0].shape[1]]).abs()
        torch.testing.assert_close(model(x1, x2), model.head(expected).flatten())


@pytest.mark.parametrize("k", ALL_K)
def test_order_of_the_images(k: int):
    model = small_model(join_layer=k)
    x1, x2 = pair()
    with torch.no_grad():
        differs = (model.predict(x1, x2) - model.predict(x2, x1)).abs().max().item()
    assert (differs < 1e-5) == model.symmetric == (k > 0)


def test_use_tta_averages_both_orders():
    model = small_model()
    x1, x2 = pair()
    with torch.no_grad():
        expected = (model(x1, x2).sigmoid() + model(x2, x1).sigmoid()) / 2
        model.use_tta = True
        torch.testing.assert_close(model.predict(x1, x2), expected)
        torch.testing.assert_close(model.predict(x1, x2), model.predict(x2, x1))


@pytest.mark.parametrize(
    "args",
    [
        {"arch": "deit_tiny_distilled_patch16_224", "timm_args": {"img_size": 32, "patch_size": 8, "depth": 3}},
        {"arch": "vit_small_patch14_reg4_dinov2", "timm_args": {"img_size": 28, "depth": 3, "embed_dim": 48}},
        {"arch": "vit_tiny_patch16_224", "pooling": "avg", "timm_args": {"img_size": 32, "depth": 3}},
        {
            "arch": "vit_tiny_patch16_224",
            "timm_args": {"img_size": 32, "depth": 3, "qk_norm": True, "init_values": 0.1, "drop_path_rate": 0.2},
        },
        TINY_HYBRID,
    ],
    ids=["distilled", "registers", "avg", "qk norm and layer scale", "hybrid"],
)
@pytest.mark.parametrize("k", [0, 1])
def test_other_transformers_train_end_to_end(args: dict, k: int):
    model = STIRSiamese(IRTExtractor(None, **args), join_layer=k).train()
    x1, x2 = pair(2, 45, 30)  # not whole patches
    model(x1, x2).sum().backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()] == []


def test_frozen_backbone_stays_and_head_learns():
    model = small_model(join_layer=2).train()
    before = copy.deepcopy(model.state_dict())
    model.freeze()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.1)
    x1, x2 = pair()
    for _ in range(2):
        optimizer.zero_grad()
        model(x1, x2).square().sum().backward()
        optimizer.step()
    changed = {k.split(".")[0] for k, v in model.state_dict().items() if not torch.equal(v, before[k])}
    assert changed == {"head"}

    model.train()
    assert not any(m.training for m in model.extractor.modules()) and model.head.training
    model.unfreeze()
    assert all(m.training for m in model.extractor.modules())
    model(x1, x2).sum().backward()
    assert all(p.grad is not None for p in model.extractor.parameters())


def test_repeated_images_of_a_batch_are_encoded_once_with_the_same_gradient():
    model = small_model(join_layer=2)
    images = torch.randn(3, 3, SIZE, SIZE)
    first, second = torch.tensor([0, 0, 1]), torch.tensor([1, 2, 2])
    encoded_images: list[int] = []
    encode = model.encode
    model.encode = lambda x: (encoded_images.append(len(x)), encode(x))[1]  # type: ignore[method-assign]
    model(images[first], images[second]).sum().backward()
    assert encoded_images == [3]
    ours = {n: p.grad.clone() for n, p in model.named_parameters()}
    model.zero_grad()
    model.score(encode(images[first]), encode(images[second])).sum().backward()
    for name, p in model.named_parameters():
        torch.testing.assert_close(ours[name], p.grad, msg=name)


def test_momentum_extractor_gives_the_part_it_predicts_with():
    pair_of_extractors = ExtractorWithMomentum(IRTExtractor(None, **ARGS), predict_with="momentum")
    model = STIRSiamese(pair_of_extractors)
    assert model.extractor is pair_of_extractors.momentum_extractor
    assert all(p.requires_grad for p in model.extractor.parameters())
    assert STIRSiamese(ExtractorWithMomentum(inner := IRTExtractor(None, **ARGS))).extractor is inner


def test_any_other_extractor_takes_the_stacked_images():
    vit = ViTExtractor(None, "vits16", normalise_features=True)
    vit.model.blocks = vit.model.blocks[:1]
    oml = livelier(ConcatSiamese(vit, [8]))
    ours = STIRSiamese(vit, [8]).eval()
    ours.head.load_state_dict(oml.head.state_dict())
    x1, x2 = pair(2, 64, 48)
    with torch.no_grad():
        torch.testing.assert_close(ours(x1, x2), oml(x1, x2))
    with pytest.raises(ValueError, match=r"join_layer is 3, but 'vits16' has no blocks.*IRTExtractor"):
        STIRSiamese(vit, join_layer=3)


@pytest.mark.parametrize("k", [-1, DEPTH, DEPTH + 5, True, 1.0])
def test_join_layer_out_of_range(k: object):
    with pytest.raises(ValueError, match="join_layer"):
        STIRSiamese(IRTExtractor(None, **ARGS), join_layer=k)


def test_a_transformer_with_rotary_positions_cannot_be_split():
    extractor = IRTExtractor(None, "eva02_tiny_patch14_224", timm_args={"depth": 2})
    STIRSiamese(extractor)(*pair(1, 28, 28))
    with pytest.raises(ValueError, match="eva02_tiny_patch14_224"):
        STIRSiamese(extractor, join_layer=1)


def test_bad_input():
    with pytest.raises(TypeError, match="Linear, expected an IExtractor"):
        STIRSiamese(nn.Linear(3, 3))
    model = small_model()
    with pytest.raises(ValueError, match=r"x2 has the shape \(1, 3, 32, 40\), expected \(1, 3, 32, 32\).*same size"):
        model.predict(torch.zeros(1, 3, 32, 32), torch.zeros(1, 3, 32, 40))
    assert model(*pair(0)).shape == model.predict(*pair(0)).shape == (0,)


@pytest.mark.parametrize("k", [0, 2])
def test_half_precision_stays_near(k: int):
    model = small_model(join_layer=k)
    x1, x2 = pair()
    with torch.no_grad():
        full = model.predict(x1, x2)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            half = model.predict(x1, x2)
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, full, atol=0.1, rtol=0)


@pytest.mark.parametrize("hidden", [[], [192], [64, 32]])
def test_an_untrained_joined_model_starts_as_a_distance(hidden: list[int]):
    """The logit follows the size of the difference that the head reads; for k = 0, as in the paper, it need not."""
    torch.manual_seed(0)
    sizes = torch.rand(400, 1)
    differences = (sizes * torch.randn(400, small_model().extractor.feat_dim)).abs()

    def correlation(model: STIRSiamese) -> float:
        with torch.no_grad():
            return torch.corrcoef(torch.stack([model.eval().head(differences)[:, 0], sizes[:, 0]]))[0, 1].item()

    for seed in range(5):
        torch.manual_seed(seed)
        assert correlation(STIRSiamese(small_model().extractor, hidden, join_layer=1)) > 0.9
    torch.manual_seed(0)
    paper = [correlation(STIRSiamese(small_model().extractor, hidden)) for _ in range(5)]
    assert min(paper) < 0.5


def test_gradients_are_the_same_to_the_bit_with_several_threads():
    """Each image stands in many pairs, whose gradients add up: in the same order each time."""
    model = small_model(join_layer=1).eval()
    images = torch.rand(4, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    x1, x2 = (images[torch.arange(256) % n] for n in (4, 3))
    threads, found = torch.get_num_threads(), []
    try:
        torch.set_num_threads(4)
        for _ in range(4):
            model.zero_grad()
            model(x1, x2).sum().backward()
            found.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(gradients, found[0]) for gradients in found[1:])
