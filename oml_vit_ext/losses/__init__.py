"""Metric-learning losses: modules for OML's pipelines, and the pure functions they are made of."""

from oml_vit_ext.losses.contrastive import contrastive_loss
from oml_vit_ext.losses.contrastive_xbm import ContrastiveXBMLoss
from oml_vit_ext.losses.entropy import DifferentialEntropyLoss, entropy_loss
from oml_vit_ext.losses.irt import IRTLoss
from oml_vit_ext.losses.matryoshka import MatryoshkaLoss
from oml_vit_ext.losses.memory import FeatureMemory
from oml_vit_ext.losses.pml import PMLLoss

__all__ = [
    "ContrastiveXBMLoss",
    "DifferentialEntropyLoss",
    "FeatureMemory",
    "IRTLoss",
    "MatryoshkaLoss",
    "PMLLoss",
    "contrastive_loss",
    "entropy_loss",
]
