"""OML's figures over queries that nothing can be found for are NaN or too low: the data set says so when it is made."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

from oml.const import PATHS_COLUMN
from oml.datasets.dataframe import DFQueryGalleryLabeledDataset

from oml_vit_ext.common.messages import counted, some
from oml_vit_ext.common.queries import lonely_queries
from oml_vit_ext.oml_patches.replacing import replace


def warn_of_lonely_queries() -> None:
    """Have OML's validation data sets warn of queries without another gallery image of their label."""

    def wrap(init: Callable[..., None]) -> Callable[..., None]:
        def init_and_look(self: Any, *args: Any, **kwargs: Any) -> None:
            init(self, *args, **kwargs)
            lonely = lonely_queries(self.df)
            if lonely.any():
                column = self.df[PATHS_COLUMN] if PATHS_COLUMN in self.df else self.df.index.to_series()
                names = [str(name) for name in column[lonely]]
                warnings.warn(
                    f"{counted(len(names), 'query has', 'queries have')} no other gallery image of their label: "
                    f"{some(names)}. OML counts 0 or "
                    f"NaN for each: set is_query to False for them.",
                    stacklevel=3,
                )

        return init_and_look

    replace(DFQueryGalleryLabeledDataset, "__init__", wrap, "data sets warn of queries that nothing can be found for")
