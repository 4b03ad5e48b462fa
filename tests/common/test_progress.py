"""A bar shows itself where it is asked for; silent work takes nothing that processes share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tqdm.auto import tqdm

from helpers.mean_colour import mean_colour_embedder, paint
from oml_vit_ext.common.progress import progress
from oml_vit_ext.images.sizes import read_image_sizes
from oml_vit_ext.retrieval import SearchIndex


@pytest.mark.parametrize("verbose", [True, False])
def test_it_hands_over_its_items_and_shows_itself_where_asked(verbose: bool, capsys: pytest.CaptureFixture[str]):
    assert list(progress([3, 1, 2], verbose=verbose, desc="Counting")) == [3, 1, 2]
    assert list(progress([], verbose=verbose)) == []
    with progress(total=5, verbose=verbose, desc="Filling", unit=" rows") as bar:
        bar.update()
        bar.update(4)
    shown = capsys.readouterr().err
    assert ("3/3" in shown and "5/5" in shown) if verbose else shown == ""


class _NobodyReleases:
    """The lock of tqdm that a process had when it was killed: whoever asks for it waits for ever."""

    def acquire(self, *_: object, **__: object) -> None:
        raise AssertionError("waits for ever")

    __enter__ = acquire

    def __exit__(self, *_: object) -> None:
        pass


def test_silent_work_does_not_wait_for_a_killed_process(tmp_path: Path):
    names = [paint(tmp_path / f"{i}.png", (i, 2, 3)).name for i in range(3)]
    embedder = mean_colour_embedder()
    lock = tqdm.get_lock()
    tqdm.set_lock(_NobodyReleases())
    try:
        with pytest.raises(AssertionError, match="for ever"):
            tqdm(total=1, disable=True)
        index = SearchIndex(tmp_path, embedder.fingerprint, "HNSW8")
        index.sync(tmp_path, embedder)
        assert [hit.path for hit in index.search(index.embeddings[1:2], 1)[0]] == ["1.png"]
        assert np.all(read_image_sizes(names, tmp_path, verbose=False).width == 8)
    finally:
        tqdm.set_lock(lock)
