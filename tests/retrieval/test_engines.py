"""What faiss is not asked for, since it would end the process, hang, or take all memory."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import faiss
import numpy as np
import pytest

from oml_vit_ext.retrieval.engines import ExactEngine, empty_index
from oml_vit_ext.retrieval.rows import Rows


@pytest.mark.parametrize(
    "index",
    [
        *("HNSW0", "HNSW1", "HNSW4096", "NSG0", "IVF4_HNSW0,Flat", "IVF4(HNSW1),Flat"),  # end the process, or hang
        *("IVF0,Flat", "IVF1000000000,Flat", "IVF999999999", "IMI2x16,Flat", "PQ8x30", "IVF16,PQ8x24", "RQ4x24"),
        *("LSQ4x24", "PQ8x0", "RR0,Flat", "NSG1", "Pad1000000000,Flat", "PQ" + "9" * 5000),
    ],
)
def test_numbers_that_no_index_can_have_are_refused(index: str) -> None:
    with pytest.raises(ValueError, match=r"in index .* expected a whole number from"):
        empty_index(64, index)


@pytest.mark.parametrize(
    "index",
    [
        *("Flat", "IVF1024,Flat", "HNSW32", "IVF4096,PQ48np", "IVF65536_HNSW32,Flat", "OPQ16_64,IVF16,PQ16x4fs"),
        *("IMI2x8,Flat", "RQ4x8", "PRQ2x2x8", "SQ8", "PCA32,SQ8", "IVF256(HNSW16),PQ8x8", "PQ16x12", "LSH", "NSG16"),
        "IVF16,PQ4x4fs,RFlat",
    ],
)
def test_what_people_use_is_built(index: str) -> None:
    empty_index(96 if "PQ48" in index else 64, index)


def test_what_faiss_is_set_to_is_left_alone() -> None:
    own = faiss.cvar.distance_compute_blas_database_bs
    faiss.cvar.distance_compute_blas_database_bs = 777
    rows = np.random.default_rng(0).standard_normal((3_000, 16)).astype(np.float32)
    engine = ExactEngine(Rows(rows), 100)
    try:
        with ThreadPoolExecutor(4) as threads:
            found = list(threads.map(lambda _: engine.search(rows[:200], 3)[1], range(40)))
        assert faiss.cvar.distance_compute_blas_database_bs == 777
    finally:
        faiss.cvar.distance_compute_blas_database_bs = own
    assert all((ids == found[0]).all() for ids in found) and (found[0][:, 0] == np.arange(200)).all()
