"""Queries that nothing can be found for."""

from __future__ import annotations

import numpy as np
import pandas as pd
from oml.const import IS_GALLERY_COLUMN, IS_QUERY_COLUMN, LABELS_COLUMN, SEQUENCE_COLUMN


def lonely_queries(df: pd.DataFrame) -> pd.Series:
    """Whether each row ``(N,)`` is a query whose label no gallery image has but itself, or its own sequence.

    Nothing can be found for them: OML counts 0, or NaN, for such a query.
    """
    is_query, is_gallery = (df[flag] == True for flag in (IS_QUERY_COLUMN, IS_GALLERY_COLUMN))  # noqa: E712
    weights = is_gallery.astype(np.int64)
    of_label = weights.groupby(df[LABELS_COLUMN]).transform("sum")
    own = weights
    if SEQUENCE_COLUMN in df:
        own = weights.groupby([df[LABELS_COLUMN], df[SEQUENCE_COLUMN]]).transform("sum").fillna(weights)
    return is_query & (of_label - own == 0)
