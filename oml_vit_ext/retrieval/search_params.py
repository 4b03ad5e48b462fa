"""``nprobe=16,max_codes=1000``: settings of one search, which leave the index as it is for all other searches."""

from __future__ import annotations

from typing import Any

import faiss

from oml_vit_ext.common.checks import check_number, check_whole

_faiss: Any = faiss  # its stubs lack classes and their arguments
_MOST_CODES = 2**62
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


def search_parameters(index: Any, text: str, name: str, k: int = 1) -> Any:
    """The ``params`` of ``index.search``: a ``faiss.SearchParameters`` that fits the index, ``None`` without settings.

    What ``text`` does not name is as in the index.

    Args:
        index: An index of faiss: IVF, HNSW, or one of these behind a transform, a map of ids or a refinement.
        text: ``nprobe`` and ``max_codes`` for IVF, ``efSearch`` for HNSW, ``k_factor_rf`` for a refinement;
            ``quantizer_`` before a name: of the coarse quantizer.
        name: The factory string of the index, for messages.
        k: Neighbours that are searched for. What is asked for beyond the rows that there are costs memory alone, and is
            cut.

    Raises:
        ValueError: The index has no such setting, or the value is no whole number (``k_factor_rf``: number) in range.
    """
    left = parse_search_params(text)
    params = _take(_faiss.downcast_index(index), left, k) if left else None
    if left:
        raise ValueError(
            f"search_params {text!r} cannot be set on index {name!r}: it has no {next(iter(left))!r}. "
            f"Expected e.g. 'nprobe=16' for an IVF index or 'efSearch=64' for HNSW."
        )
    return params


def _take(index: Any, left: dict[str, float], k: int) -> Any:
    """The parameters for ``index``, whose settings are taken out of ``left``."""
    if isinstance(index, _faiss.IndexIDMap):
        return _take(_faiss.downcast_index(index.index), left, k)
    if isinstance(index, _faiss.IndexPreTransform):
        return _faiss.SearchParametersPreTransform(index_params=_take(_faiss.downcast_index(index.index), left, k))
    if isinstance(index, _faiss.IndexRefine):
        factor = check_number("search_params 'k_factor_rf'", left.pop("k_factor_rf", index.k_factor), 1)
        inner = _take(_faiss.downcast_index(index.base_index), left, k)
        factor = min(factor, max(1.0, index.ntotal / k))
        return _faiss.IndexRefineSearchParameters(k_factor=factor, base_index_params=inner)
    if isinstance(index, _faiss.IndexHNSW):
        ef = _whole(left, "efSearch", index.hnsw.efSearch, low=1)
        return _faiss.SearchParametersHNSW(efSearch=min(ef, max(1, index.ntotal)))
    if isinstance(index, _faiss.IndexIVF):
        return _take_ivf(index, left, k)
    return None


def _take_ivf(index: Any, left: dict[str, float], k: int) -> Any:
    of_quantizer = {key.removeprefix(_QUANTIZER): left.pop(key) for key in list(left) if key.startswith(_QUANTIZER)}
    params = _faiss.SearchParametersIVF(
        nprobe=min(_whole(left, "nprobe", index.nprobe, low=1), index.nlist),
        max_codes=min(_whole(left, "max_codes", index.max_codes, low=0), _MOST_CODES),
    )
    if of_quantizer:
        params.quantizer_params = _take(_faiss.downcast_index(index.quantizer), of_quantizer, params.nprobe)
        left.update({_QUANTIZER + key: value for key, value in of_quantizer.items()})
    return params


def _whole(left: dict[str, float], name: str, present: int, low: int) -> int:
    return check_whole(f"search_params {name!r}", left.pop(name, present), low)
