"""The pairwise model of STIR: query and candidate in one vision transformer (Shabanov et al., arXiv 2304.13393)."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, cast

import torch
from oml.interfaces.models import IExtractor, IPairwiseModel
from torch import Tensor, nn
from torch.nn.modules.activation import Sigmoid
from torchvision.ops import MLP

from oml_vit_ext.common.checks import check_whole
from oml_vit_ext.common.messages import counted
from oml_vit_ext.extractors.freezable_parts import FreezableParts
from oml_vit_ext.extractors.irt import IRTExtractor
from oml_vit_ext.extractors.momentum import ExtractorWithMomentum
from oml_vit_ext.reranking import joint
from oml_vit_ext.reranking.weights import load_pairwise_weights

logger = logging.getLogger(__name__)


class STIRSiamese(FreezableParts, IPairwiseModel):
    """Two images -> how different they are, from a vision transformer that sees both.

    The images are the upper and the lower half of one picture: their patch tokens, with the position grid stretched to
    twice the height, pass the transformer together, and a head reads the CLS token.

    With ``join_layer=k`` each image passes the first k blocks alone, as in the first stage, with its own CLS token and
    the position grid of one image; then both sequences become one, and the head reads how far the two CLS tokens
    are apart, ``|cls_1 - cls_2|``. An image's first k blocks are thus computed once per image, not once per pair, and
    the order of the images does not matter. Untrained, the logit grows with that difference: training starts near the
    order of the first stage, not at a random one. k = 0 is the paper's model: with the weights of OML's
    ``ConcatSiamese`` it gives OML's predictions.

    ``forward(x1, x2)`` is ``score(encode(x1), encode(x2))``: callers that compare one image with many keep what
    ``encode`` returns.

    Args:
        extractor: The transformer: an ``IRTExtractor``, best with the weights of the first stage, or an
            ``ExtractorWithMomentum`` around one, of which the part that it predicts with is taken. That part becomes a
            part of this model, and all of it is trained, also a moving average. Its pooling is used;
            ``normalise_features`` is not, as in OML's recipe: the head reads the CLS token as it is. Any other
            extractor, e.g. OML's ``ViTExtractor``, takes the stacked images as one (``join_layer=0`` only).
        mlp_hidden_dims: Hidden widths of the head: linear, sigmoid, dropout 0.5, ..., linear without bias.
        use_tta: ``predict`` averages both orders of the images (STIR-Symmetric), at twice the cost; for k > 0 both
            orders agree, at no cost.
        join_layer: k, from 0 (the paper) to depth - 1.
        weights: A checkpoint of this class or of OML's ``ConcatSiamese``, or ``None``.
        allow_pickle: Read ``weights`` that hold more than tensors; only a file that you trust.

    Raises:
        TypeError: ``extractor`` is not an extractor.
        ValueError: ``join_layer`` is out of range, or the architecture cannot be joined.
        FileNotFoundError, RuntimeError: The file of ``weights`` is missing, broken, or of another architecture.

    >>> tiny = {"img_size": 32, "depth": 2, "embed_dim": 48}
    >>> extractor = IRTExtractor(None, "vit_tiny_patch16_224", timm_args=tiny)
    >>> model = STIRSiamese(extractor, mlp_hidden_dims=[16], join_layer=1)
    >>> model(torch.rand(4, 3, 32, 32), torch.rand(4, 3, 32, 32)).shape
    torch.Size([4])
    """

    default_parts = ("extractor",)

    def __init__(
        self,
        extractor: IExtractor,
        mlp_hidden_dims: Sequence[int] = (192,),
        use_tta: bool = False,
        join_layer: int = 0,
        weights: str | Path | None = None,
        *,
        allow_pickle: bool = False,
    ) -> None:
        super().__init__()
        if isinstance(extractor, ExtractorWithMomentum):
            extractor = extractor.used.requires_grad_(True)  # the copy of a momentum extractor has no gradients
        if not isinstance(extractor, IExtractor):
            raise TypeError(f"extractor is a {type(extractor).__name__}, expected an IExtractor, e.g. IRTExtractor.")
        _check_join_layer(extractor, join_layer)
        self.extractor = extractor
        self.use_tta = use_tta
        self.join_layer = join_layer
        self.head = _build_head(extractor.feat_dim, mlp_hidden_dims)
        if join_layer:
            start_as_distance(self.head)
        # Travels in checkpoints, because the weights themselves do not tell for which k they were trained.
        self.register_buffer("trained_join_layer", torch.tensor(join_layer))
        if weights is not None:
            path = Path(weights).expanduser()
            trained = load_pairwise_weights(extractor, self.head, path, allow_pickle=allow_pickle)
            if trained != join_layer:
                logger.warning(
                    "weights %s were trained with join_layer=%d and are used with join_layer=%d: right as a start for "
                    "training, wrong for validation",
                    path,
                    trained,
                    join_layer,
                )

    def forward(self, x1: Tensor, x2: Tensor) -> Tensor:
        """Two batches of images ``(B, 3, H, W)`` -> logits ``(B,)``; positive means: not the same item."""
        return self.score(*self._encode_pair(x1, x2)) if len(x1) else x1.new_zeros(0)

    def predict(self, x1: Tensor, x2: Tensor) -> Tensor:
        """Two batches of images ``(B, 3, H, W)`` -> probabilities ``(B,)`` of not being the same item, float32."""
        return self.distance(*self._encode_pair(x1, x2)) if len(x1) else x1.new_zeros(0)

    def encode(self, images: Tensor) -> Tensor:
        """What is computed once per image.

        ``(B, 3, H, W)`` -> the tokens ``(B, T, D)`` after the first k blocks, T counting CLS and its like; for k = 0
        the patch embeddings ``(B, h, w, D)``, which get their positions in the pair; for an extractor whose blocks are
        out of reach the images themselves.
        """
        with self._backbone_context():
            if self._backbone is None:
                return images
            if self.join_layer == 0:
                return joint.patch_maps(self._backbone, images)
            return joint.single_tokens(self._backbone, images, self.join_layer)

    def score(self, encoded_1: Tensor, encoded_2: Tensor) -> Tensor:
        """Two results of ``encode``, row by row one pair -> logits ``(B,)``."""
        with self._backbone_context():
            features = self._joint_features(encoded_1, encoded_2)
        return self.head(features).flatten()

    def distance(self, encoded_1: Tensor, encoded_2: Tensor) -> Tensor:
        """Like ``predict``, from two results of ``encode``. -> probabilities ``(B,)``, float32."""
        probabilities = torch.sigmoid(self.score(encoded_1, encoded_2).float())
        if self.use_tta and self.join_layer == 0:  # for k > 0 both orders agree
            probabilities = (probabilities + torch.sigmoid(self.score(encoded_2, encoded_1).float())) / 2
        return probabilities

    @property
    def symmetric(self) -> bool:
        """Whether the order of the two images makes no difference to ``predict``."""
        return self.use_tta or self.join_layer > 0

    def parts(self) -> dict[str, list[nn.Module | nn.Parameter]]:
        """``extractor`` and ``head``."""
        return {"extractor": [self.extractor], "head": [self.head]}

    def freeze(self, *parts: str) -> None:
        """By default only the head learns: the extractor has no gradients, and no dropout or drop path either.

        Under ``DistributedDataParallel``, call it after the model is wrapped, and wrap with
        ``find_unused_parameters=True``: what is frozen before wrapping would not be averaged after ``unfreeze``.
        """
        super().freeze(*parts)

    @property
    def _backbone(self) -> nn.Module | None:
        """The transformer whose blocks can be split, if there is one."""
        backbone = getattr(self.extractor, "backbone", None)
        return backbone if isinstance(self.extractor, IRTExtractor) and joint.is_joinable(backbone) else None

    def _encode_pair(self, x1: Tensor, x2: Tensor) -> tuple[Tensor, Tensor]:
        if x1.shape != x2.shape:
            raise ValueError(
                f"x2 has the shape {tuple(x2.shape)}, expected {tuple(x1.shape)}, that of x1: images of one pair must "
                f"have the same size. Use a transform that crops or resizes every image to one size."
            )
        images, places = torch.cat([x1, x2]), None
        if self.join_layer:  # in training OML passes no ids: this takes a step from 1.42 to 0.66 s of CPU time
            # (ViT-Ti/16 at 112 px, join_layer=8, 32 pairs of 16 images, forward and backward); comparing takes 3 ms
            images, places = distinct_images(images)
        encoded = self.encode(images)
        # encoded[places] has threads that add gradients in any order on a CPU: no two trainings would be equal.
        first, second = (encoded if places is None else encoded.index_select(0, places)).chunk(2)
        return first, second

    def _joint_features(self, encoded_1: Tensor, encoded_2: Tensor) -> Tensor:
        backbone, k = self._backbone, self.join_layer
        if backbone is None:
            return self.extractor(torch.cat([encoded_1, encoded_2], dim=2))
        pooling: Any = self.extractor.pooling
        fc_norm: Any = backbone.fc_norm
        by_cls = pooling.pooling == "cls"
        if k == 0:
            tokens = joint.join_maps(backbone, encoded_1, encoded_2)
            return fc_norm(pooling(joint.joint_blocks(backbone, tokens, 0, places=[0] if by_cls else None)))
        n = encoded_1.shape[1]
        tokens = joint.join_tokens(encoded_1, encoded_2)
        tokens = joint.joint_blocks(backbone, tokens, k, places=[0, n] if by_cls else None)
        of_1, of_2 = tokens.split(1 if by_cls else n, dim=1)
        return (fc_norm(pooling(of_1)) - fc_norm(pooling(of_2))).abs()

    def _backbone_context(self) -> torch.no_grad | nullcontext[None]:
        return torch.no_grad() if self.is_frozen("extractor") else nullcontext()

    def extra_repr(self) -> str:
        return f"join_layer={self.join_layer}, use_tta={self.use_tta}"


def _build_head(feat_dim: int, hidden_dims: Sequence[int]) -> nn.Sequential:
    """OML's head, layer by layer, so that its checkpoints fit."""
    head = MLP(feat_dim, [*hidden_dims, 1], activation_layer=Sigmoid, inplace=None, dropout=0.5)
    head[-2] = nn.Linear(cast(nn.Linear, head[-2]).in_features, 1, bias=False)
    head[-1] = nn.Identity()  # no dropout on the logit
    return head


@torch.no_grad()
def start_as_distance(head: nn.Sequential) -> None:
    """Let an untrained head grow evenly with all its inputs.

    Half of the hidden units rise with every input and half fall, so that the logit starts near zero; the weights are
    so small that the sigmoids stay in their linear part.
    """
    *hidden, last = (layer for layer in head if isinstance(layer, nn.Linear))
    signs = (hidden[0] if hidden else last).weight.new_ones(1)
    for layer in hidden:
        rows = torch.where(torch.arange(layer.out_features, device=layer.weight.device) % 2 == 0, 1.0, -1.0)
        layer.weight.copy_(layer.weight.abs() * rows[:, None] * signs / layer.in_features**0.5)
        layer.bias.zero_()
        signs = rows
    last.weight.copy_(last.weight.abs() * signs)


def _check_join_layer(extractor: IExtractor, join_layer: int) -> None:
    if check_whole("join_layer", join_layer) == 0:
        return
    if not isinstance(extractor, IRTExtractor) or not joint.is_joinable(extractor.backbone):
        raise ValueError(
            f"join_layer is {join_layer}, but {getattr(extractor, 'arch', type(extractor).__name__)!r} has no blocks "
            f"between which two images could be joined: expected join_layer=0, or an IRTExtractor (name: irt) with a "
            f"plain vision transformer, e.g. arch 'vit_small_patch16_224'."
        )
    depth = len(extractor.backbone.blocks)  # type: ignore[arg-type]
    check_whole(
        "join_layer", join_layer, 0, depth - 1, f"at least one of {counted(depth, 'block')} has to see both images"
    )


def distinct_images(images: Tensor) -> tuple[Tensor, Tensor | None]:
    """The distinct images of a batch, and where each row of the batch is among them.

    Mined pairs repeat the images of a batch several times. A few pixels tell candidates for equality, then all pixels
    decide; without repetitions the batch is returned as it is.
    """
    pixels = images.flatten(1)
    few = pixels[:, :: max(1, pixels.shape[1] // 64)]
    _, places = torch.unique(few, dim=0, return_inverse=True)
    n = int(places.max()) + 1
    if n == len(images):
        return images, None
    rows = places.new_full((n,), -1).scatter_(0, places, torch.arange(len(images), device=images.device))
    return (images[rows], places) if torch.equal(images[rows][places], images) else (images, None)
