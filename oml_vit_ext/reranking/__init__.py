"""STIR: the pairwise model that compares query and candidate on pixel level, and the re-ranker that runs it."""

from oml_vit_ext.reranking.budget import BudgetCurve, budget_curve
from oml_vit_ext.reranking.fusion import FittedFusion, Fusion, fit_fusion, save_fusion
from oml_vit_ext.reranking.reranker import STIRReranker
from oml_vit_ext.reranking.scoring import ScoringStats, score_pairs
from oml_vit_ext.reranking.siamese import STIRSiamese
from oml_vit_ext.reranking.token_store import TokenStore

__all__ = [
    "BudgetCurve",
    "FittedFusion",
    "Fusion",
    "STIRReranker",
    "STIRSiamese",
    "ScoringStats",
    "TokenStore",
    "budget_curve",
    "fit_fusion",
    "save_fusion",
    "score_pairs",
]
