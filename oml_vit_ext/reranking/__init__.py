"""A better order for what was retrieved: by STIR's pairwise model on pixels, or by the embeddings alone."""

from oml_vit_ext.reranking.budget import BudgetCurve, budget_curve
from oml_vit_ext.reranking.chain import PostprocessorChain
from oml_vit_ext.reranking.fusion import FittedFusion, Fusion, fit_fusion, save_fusion
from oml_vit_ext.reranking.k_reciprocal import KReciprocalReranker
from oml_vit_ext.reranking.query_expansion import QueryExpansion
from oml_vit_ext.reranking.reranker import STIRReranker
from oml_vit_ext.reranking.scoring import ScoringStats, score_pairs
from oml_vit_ext.reranking.siamese import STIRSiamese
from oml_vit_ext.reranking.token_store import TokenStore

__all__ = [
    "BudgetCurve",
    "FittedFusion",
    "Fusion",
    "KReciprocalReranker",
    "PostprocessorChain",
    "QueryExpansion",
    "STIRReranker",
    "STIRSiamese",
    "ScoringStats",
    "TokenStore",
    "budget_curve",
    "fit_fusion",
    "save_fusion",
    "score_pairs",
]
