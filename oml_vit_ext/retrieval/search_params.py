"""``nprobe=16,max_codes=1000``: settings of one search, which leave the index as it is for all other searches."""

from __future__ import annotations

from typing import Any

import faiss

from oml_vit_ext.common.checks import check_number, check_whole

_faiss: Any = faiss  # its stubs lack classes and their arguments
_QUANTIZER = "quantizer_"  # before a setting of an IVF index's coarse quantizer


def parse_search_params(text: str) -> dict[str, float]:
    """``"nprobe=16,efSearch=64"`` -> ``{"nprobe": 16, "efSearch": 64}``.

    Raises:
        ValueError: A part is no assignment of a number.
    """
    parsed: dict[str, float] = {}
    for assignment in filter(None, text.split(",")):
        name, _, value = assignment.partition("=")
        try:
            parsed[name.strip()] = int(value) if value.strip().isdigit() else float(value)
        except ValueError as error:
            raise ValueError(f"search_params {text!r} are not understood, expected e.g. 'nprobe=16'.") from error
    return parsed


def search_parameters(index: Any, text: str, name: str) -> Any:
    """The ``params`` of ``index.search``: a ``faiss.SearchParameters`` that fits the index, ``None`` without settings.

    What ``text`` does not name is as in the index.

    Args:
        index: An index of faiss: IVF, HNSW, or one of these behind a transform, a map of ids or a refinement.
        text: ``nprobe`` and ``max_codes`` for IVF, ``efSearch`` for HNSW, ``k_factor_rf`` for a refinement;
            ``quantizer_`` before a name: of the coarse quantizer.
        name: The factory string of the index, for messages.

    Raises:
        ValueError: The index has no such setting, or the value is no whole number (``k_factor_rf``: number) in range.
    """
    left = parse_search_params(text)
    params = _take(_faiss.downcast_index(index), left) if left else None
    if left:
        raise ValueError(
            f"search_params {text!r} cannot be set on index {name!r}: it has no {next(iter(left))!r}. "
            f"Expected e.g. 'nprobe=16' for an IVF index or 'efSearch=64' for HNSW."
        )
    return params


def _take(index: Any, left: dict[str, float]) -> Any:
    """The parameters for ``index``, whose settings are taken out of ``left``."""
    if isinstance(index, _faiss.IndexIDMap):
        return _take(_faiss.downcast_index(index.index), left)
    if isinstance(index, _faiss.IndexPreTransform):
        return _faiss.SearchParametersPreTransform(index_params=_take(_faiss.downcast_index(index.index), left))
    if isinstance(index, _faiss.IndexRefine):
        factor = check_number("search_params 'k_factor_rf'", left.pop("k_factor_rf", index.k_factor), 1)
        inner = _take(_faiss.downcast_index(index.base_index), left)
        return _faiss.IndexRefineSearchParameters(k_factor=factor, base_index_params=inner)
    if isinstance(index, _faiss.IndexHNSW):
        return _faiss.SearchParametersHNSW(efSearch=_whole(left, "efSearch", index.hnsw.efSearch, low=1))
    if isinstance(index, _faiss.IndexIVF):
        return _take_ivf(index, left)
    return None


def _take_ivf(index: Any, left: dict[str, float]) -> Any:
    of_quantizer = {key.removeprefix(_QUANTIZER): left.pop(key) for key in list(left) if key.startswith(_QUANTIZER)}
    params = _faiss.SearchParametersIVF(
        nprobe=_whole(left, "nprobe", index.nprobe, low=1),
        max_codes=_whole(left, "max_codes", index.max_codes, low=0),
    )
    if of_quantizer:
        params.quantizer_params = _take(_faiss.downcast_index(index.quantizer), of_quantizer)
        left.update({_QUANTIZER + key: value for key, value in of_quantizer.items()})
    return params


def _whole(left: dict[str, float], name: str, present: int, low: int) -> int:
    return check_whole(f"search_params {name!r}", left.pop(name, present), low)
