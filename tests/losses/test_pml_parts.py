from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from pytorch_metric_learning import distances, losses, reducers, regularizers

from oml_vit_ext.losses.pml_parts import accepted_arguments, build, offered


def test_parts_are_built_with_their_arguments() -> None:
    loss = build(
        "loss",
        {"name": "TripletMarginLoss", "args": {"margin": 0.2, "reducer": {"name": "SumReducer"}}},
        {"distance": {"name": "LpDistance", "args": {"p": 1}}, "embedding_regularizer": {"name": "LpRegularizer"}},
    )
    assert isinstance(loss, losses.TripletMarginLoss) and loss.margin == 0.2
    assert isinstance(loss.reducer.reducers["loss"], reducers.SumReducer)
    assert isinstance(loss.distance, distances.LpDistance) and loss.distance.p == 1
    assert isinstance(loss.embedding_regularizer, regularizers.LpRegularizer)


def test_a_miner_takes_a_distance_of_its_own() -> None:
    miner = build("miner", {"name": "BatchHardMiner", "args": {"distance": {"name": "CosineSimilarity"}}})
    assert isinstance(miner.distance, distances.CosineSimilarity)


def test_class_weights_come_as_a_list() -> None:
    reducer = build("reducer", {"name": "ClassWeightedReducer", "args": {"weights": [1.0, 2.0]}})
    assert (reducer.weights == torch.tensor([1.0, 2.0])).all()


@pytest.mark.parametrize(
    ("kind", "config", "sentence"),
    [
        ("loss", {"name": "ArcFace"}, "Unknown pytorch-metric-learning loss 'ArcFace': did you mean 'ArcFaceLoss'"),
        ("loss", {"name": "CrossBatchMemory"}, "Unknown pytorch-metric-learning loss 'CrossBatchMemory'"),
        ("loss", {"name": "VICRegLoss"}, "loss is 'VICRegLoss', which compares two views of each image, but OML's"),
        ("loss", {"name": "SelfSupervisedLoss"}, "expected a loss of embeddings and labels, e.g. 'SupConLoss'."),
        ("loss", {"name": "ManifoldLoss"}, "loss is 'ManifoldLoss', which takes no labels"),
        ("miner", {"name": "HardMiner"}, "did you mean"),
        ("distance", {"name": "Cosine"}, "did you mean 'CosineSimilarity'"),
        ("reducer", {"name": "Mean"}, "did you mean 'MeanReducer'"),
        ("regularizer", {"name": "Lp"}, "Valid: 'CenterInvariantRegularizer', 'LpRegularizer'"),
        ("loss", {"name": "TripletMarginLoss", "args": {"margn": 1}}, "Unknown argument of TripletMarginLoss: 'margn'"),
        (
            "loss",
            {"name": "SubCenterArcFaceLoss"},
            "args of SubCenterArcFaceLoss is {}, expected what the class accepts: missing the argument 'num_classes'",
        ),
        (
            "loss",
            {"name": "ArcFaceLoss"},
            "args of ArcFaceLoss is {}, expected what the class accepts: missing 2 required",
        ),
        (
            "loss",
            {
                "name": "ArcFaceLoss",
                "args": {"num_classes": 2, "embedding_size": 2, "distance": {"name": "SNRDistance"}},
            },
            "requires the distance metric to be CosineSimilarity",
        ),
        ("loss", "TripletMarginLoss", "loss is 'TripletMarginLoss', expected the form {name: ..., args: {...}}."),
        ("loss", {"name": "TripletMarginLoss", "margin": 1}, "expected the form {name: ..., args: {...}}."),
        ("loss", {"args": {}}, "expected the form {name: ..., args: {...}}."),
    ],
)
def test_wrong_parts(kind: str, config: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)):
        build(kind, config)


def test_a_weight_regularizer_needs_a_loss_with_weights() -> None:
    with pytest.raises(ValueError, match="Unknown argument of TripletMarginLoss: 'weight_regularizer'"):
        build("loss", {"name": "TripletMarginLoss"}, {"weight_regularizer": {"name": "RegularFaceRegularizer"}})


def test_arguments_of_the_bases_are_accepted() -> None:
    accepted = accepted_arguments(losses.SubCenterArcFaceLoss)
    assert {"sub_centers", "margin", "num_classes", "weight_regularizer", "reducer", "distance"} <= accepted
    assert not {"self", "kwargs", "args"} & accepted


def test_nothing_abstract_is_offered() -> None:
    for kind in ("loss", "distance", "reducer", "miner", "regularizer"):
        assert len(offered(kind)) >= 4
        assert not [name for name in offered(kind) if name.startswith("Base") or name.endswith("Mixin")]
