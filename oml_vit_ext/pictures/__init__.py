"""Where a model looks, and what a re-ranker changed: maps, and figures to look at."""

from oml_vit_ext.pictures.attention import MAP_KINDS, attention_maps, map_stride
from oml_vit_ext.pictures.cross_attention import CrossAttention, cross_attention
from oml_vit_ext.pictures.drawing import (
    NEUTRAL,
    RIGHT,
    WRONG,
    Tile,
    draw_grid,
    enlarge_maps,
    frame,
    mean_and_std,
    overlay,
    save_figure,
    to_picture,
)
from oml_vit_ext.pictures.figures import Strip, draw_attention, draw_budget_curve, draw_cross_attention, draw_strips

__all__ = [
    "MAP_KINDS",
    "NEUTRAL",
    "RIGHT",
    "WRONG",
    "CrossAttention",
    "Strip",
    "Tile",
    "attention_maps",
    "cross_attention",
    "draw_attention",
    "draw_budget_curve",
    "draw_cross_attention",
    "draw_grid",
    "draw_strips",
    "enlarge_maps",
    "frame",
    "map_stride",
    "mean_and_std",
    "overlay",
    "save_figure",
    "to_picture",
]
