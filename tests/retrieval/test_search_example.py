"""``examples/search.py``: index a folder, ask with an image, re-rank."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from oml.interfaces.models import IPairwiseModel
from oml.registry.transforms import get_transforms_by_cfg
from oml.retrieval.postprocessors.pairwise import PairwiseReranker
from PIL import Image
from torch import Tensor

from conftest import ROOT
from oml_vit_ext.retrieval import Hit, rerank_hits


def _search(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, str(ROOT / "examples" / "search.py"), *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def folder(demo_slice: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``photos`` of several vendors and two shards of an index, made with ``search.py``."""
    folder = tmp_path_factory.mktemp("search")
    for vendor in ("noto", "fxemoji"):
        (folder / "photos" / vendor).mkdir(parents=True)
        for path in sorted((demo_slice / "images" / vendor).glob("*.jpg"))[:20]:
            (folder / "photos" / vendor / path.name).symlink_to(path)
    (folder / "photos" / "broken.png").write_text("no image")
    return folder


@pytest.fixture(scope="module")
def printed(folder: Path) -> list[str]:
    """What indexing each shard printed."""
    runs = [
        _search(folder, "index", "photos", "--to", f"shard_{i}", "--shard", f"{i}/2", "--save-every", "15")
        for i in range(2)
    ]
    assert [run.returncode for run in runs] == [0, 0], runs[0].stderr[-3000:] + runs[1].stderr[-3000:]
    return [run.stdout for run in runs]


def test_both_shards_hold_everything_and_the_broken_one_is_listed(printed: list[str]) -> None:
    n_added = [int(text.split(" added")[0].split()[-1]) for text in printed]
    assert sum(n_added) == 40 and min(n_added) > 5
    assert sum("broken: broken.png" in text for text in printed) == 1


def test_a_query_gives_a_table_and_a_picture(folder: Path, printed: list[str]) -> None:
    query = sorted((folder / "photos" / "noto").iterdir())[0]
    done = _search(folder, "query", str(query), "--index", "shard_0", "shard_1", "-k", "4", "--picture", "out/top.png")
    assert done.returncode == 0, done.stderr[-3000:]
    rows = [line.split() for line in done.stdout.splitlines() if line.strip()[:1].isdigit()]
    assert [int(row[0]) for row in rows] == [1, 2, 3, 4]
    assert rows[0][2] == f"noto/{query.name}" and float(rows[0][1]) < 1e-3
    assert [float(row[1]) for row in rows] == sorted(float(row[1]) for row in rows)
    assert Image.open(folder / "out" / "top.png").size[0] > 500


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["query", "photos/broken.png", "--index", "shard_0"], "broken.png' cannot be used"),
        (["query", "photos/gone.png", "--index", "shard_0"], "gone.png' cannot be used: FileNotFoundError"),
        (["query", "photos/broken.png", "--index", "photos"], "is not an index"),
        (["index", "photos", "--to", "x", "--shard", "2/2"], "--shard is '2/2'"),
        (["index", "photos", "--to", "x", "--topp", "3"], "unknown argument '--topp'"),
        (["index", "nowhere", "--to", "x"], "'nowhere' does not exist"),
    ],
)
def test_mistakes_end_in_one_sentence(folder: Path, printed: list[str], arguments: list[str], message: str) -> None:
    done = _search(folder, *arguments)
    assert done.returncode != 0 and message in done.stderr and "Traceback" not in done.stderr


class _Brightness(IPairwiseModel):
    """Distance: by how much two images differ in brightness."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = torch.nn.Parameter(torch.zeros(1))

    def forward(self, x1: Tensor, x2: Tensor) -> Tensor:
        return (x1.mean(dim=(1, 2, 3)) - x2.mean(dim=(1, 2, 3))).abs()

    def predict(self, x1: Tensor, x2: Tensor) -> Tensor:
        return self(x1, x2)


def test_the_first_hits_are_reranked_the_others_stay(tmp_path: Path) -> None:
    for level in (0, 50, 100, 150, 200):
        Image.new("RGB", (20, 20), (level,) * 3).save(tmp_path / f"{level}.png")
    left_dark = Image.new("RGB", (20, 20), (250,) * 3)
    left_dark.paste((90,) * 3, (0, 0, 10, 20))
    left_dark.save(tmp_path / "boxed.png")
    hits = [
        Hit("0.png", 0.1, "a", ""),
        Hit("200.png", 0.2, "", ""),
        Hit("boxed.png", 0.3, "", "0,0,10,20"),
        Hit("100.png", 0.4, "", ""),
    ]
    transform = get_transforms_by_cfg({"name": "norm_resize_irt", "args": {"im_size": 16, "crop_size": 16}})
    reranker = PairwiseReranker(top_n=3, pairwise_model=_Brightness(), num_workers=0, batch_size=2)
    reranked = rerank_hits(tmp_path / "100.png", hits, tmp_path, reranker, transform)
    assert [hit.path for hit in reranked] == ["boxed.png", "0.png", "200.png", "100.png"]
    assert [hit.distance for hit in reranked] == sorted(hit.distance for hit in reranked)
    assert reranked[1].label == "a" and reranked[0].box == "0,0,10,20"
    assert rerank_hits(tmp_path / "100.png", hits[:1], tmp_path, reranker, transform) == hits[:1]
