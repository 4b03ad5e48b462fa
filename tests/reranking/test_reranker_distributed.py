"""Two processes share the pairs: both get the results of one, and an error in one ends both."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from helpers.photos import small_dataset, small_frame, small_model, some_results
from oml_vit_ext.reranking import STIRReranker


def make_images(root: Path) -> Path:
    root.mkdir()
    small_frame(root, n=9).to_csv(root / "df.csv", index=False)
    return root


def rerank(root: Path, scores_file: Path | None = None) -> dict[str, Any]:
    torch.manual_seed(0)
    model, dataset = small_model(), small_dataset(root, pd.read_csv(root / "df.csv"))
    ours = STIRReranker(3, model, num_workers=0, batch_size=4, scores_file=scores_file)
    result = ours.process(some_results(dataset, n_items=5), dataset)
    return {"ids": result.retrieved_ids, "distances": result.distances, "pairs": ours.last_stats.pairs}


def run_rank(rank: int, world: int, root: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{root / 'store'}", rank=rank, world_size=world, timeout=timedelta(seconds=60)
    )
    images = make_images(root / f"images{rank}")
    outcome = {"shared": rerank(images)}
    outcome["to a file"] = rerank(images, root / "scores.npz")
    outcome["from a file"] = rerank(images, root / "scores.npz")
    if rank == 1:
        for path in images.glob("*.png"):
            path.write_bytes(b"broken")
    try:
        rerank(images)
    except RuntimeError as error:
        outcome["error"] = str(error)
    torch.save(outcome, root / f"{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_share_the_pairs_and_agree(tmp_path):
    alone = rerank(make_images(tmp_path / "alone"))
    mp.spawn(run_rank, args=(2, tmp_path), nprocs=2, join=True)
    ranks = [torch.load(tmp_path / f"{rank}.pt", weights_only=False) for rank in range(2)]
    assert alone["pairs"] == 27 and [r["shared"]["pairs"] for r in ranks] == [14, 13]
    for outcome in ranks:
        for run in ("shared", "to a file", "from a file"):
            for key in ("ids", "distances"):
                for ours, expected in zip(outcome[run][key], alone[key], strict=True):
                    torch.testing.assert_close(ours, expected)
        assert outcome["from a file"]["pairs"] == 0
    assert [p.name for p in tmp_path.glob("scores.npz*")] == ["scores.npz"]  # the parts are in one file
    assert "cannot be read" in ranks[1]["error"]
    assert "Process 1 of 2 failed" in ranks[0]["error"] and "cannot be read" in ranks[0]["error"]
