"""The re-ranker's example scripts from the command line: two processes train, one validates, wrong input is told."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from helpers import ROOT
from helpers.configs import composed
from helpers.scripts import run_script
from oml_vit_ext.extractors import IRTExtractor

WORLD = 2
SMALL = [
    "dataset_root=data",
    "extractor.args.timm_args.depth=1",
    "join_layer=0",
    "postprocessor.args.pairwise_model.args.mlp_hidden_dims=[16]",
    "postprocessor.args.verbose=False",
    "top_n=2",
    "hydra.run.dir=run",
]
TRAINING = [
    "first_stage_checkpoint=first.pth",
    f"devices={WORLD}",
    "freeze_n_epochs=1",
    "max_epochs=2",
    "valid_period=2",
    "sampler.args.n_labels=4",
    "sampler.args.n_instances=2",
]


def script(name: str, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "ignore", str(ROOT / "examples" / f"{name}.py"), *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )


def table(printed: str) -> list[str]:
    """The lines of the table at the end."""
    return printed[printed.index(" re-ranked\n") :].splitlines()[1:4]


@pytest.fixture(scope="module")
def trained(demo_slice: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which two processes trained a re-ranker, all paths given as relative ones."""
    folder = tmp_path_factory.mktemp("reranker")
    (folder / "data").symlink_to(demo_slice)
    timm_args = {"img_size": 48, "patch_size": 2, "depth": 1}
    first = IRTExtractor(weights=None, arch="vit_tiny_r_s16_p8_224", timm_args=timm_args)
    torch.save(first.state_dict(), folder / "first.pth")
    done = script("train_reranker", folder, *SMALL, *TRAINING)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    (folder / "printed.txt").write_text(done.stdout)
    assert len(set(re.findall(r"GLOBAL_RANK: (\d)", done.stdout + done.stderr))) == WORLD
    return folder


def test_two_processes_freeze_and_thaw(trained: Path):
    with torch.serialization.safe_globals([type(Path())]):
        content = torch.load(trained / "run" / "checkpoints" / "best.ckpt", weights_only=True)
    first = torch.load(trained / "first.pth")
    backbone = {k: v for k, v in content["state_dict"].items() if k.startswith("model.extractor.")}
    assert {k.removeprefix("model.extractor.") for k in backbone} == set(first)
    assert any(not torch.equal(v, first[k.removeprefix("model.extractor.")]) for k, v in backbone.items())
    # Adam counts the steps of each parameter: the backbone's begin after the frozen epoch.
    steps = {int(state["step"]) for state in content["optimizer_states"][0]["state"].values()}
    assert max(steps) == content["global_step"] and min(steps) == content["global_step"] // 2


def test_validation_prints_what_training_printed(trained: Path):
    files = ["first_stage_checkpoint=first.pth", "checkpoint=run/checkpoints/best.ckpt"]
    done = run_script("validate_reranker", trained, *SMALL, *files, "hydra.run.dir=validation")
    assert done.returncode == 0, done.stderr[-4000:]
    rows = table(done.stdout)
    assert rows == table((trained / "printed.txt").read_text())
    assert rows[0].split() == ["CMC@1", "CMC@10", "MAP@5"]
    assert [row.rsplit(maxsplit=3)[0] for row in rows[1:]] == ["first stage", "re-ranked"]
    first, second = (row.split()[-3:] for row in rows[1:])
    assert first[1] == second[1], "re-ranking the first two cannot change CMC@10"
    assert all(0 <= float(value) <= 1 for value in first + second)


MISSING = {
    "not set": (
        "stir/train_reranker_sop",
        [],
        "first_stage_checkpoint is not set, expected the checkpoint of stir/train_first_stage_* or irt/train_*, ",
    ),
    "not there": (
        "stir/validate_reranker_sop",
        ["checkpoint=nowhere/best.ckpt", "first_stage_checkpoint=vit_small_patch16_224.dino"],
        "checkpoint: there is no file {folder}/nowhere/best.ckpt, expected the checkpoint of stir/train_reranker_*",
    ),
    "no tag of timm": (
        "stir/validate_reranker_sop",
        ["checkpoint=x", "first_stage_checkpoint=vit_small_patch16_224.dyno"],
        "first_stage_checkpoint: there is no file {folder}/vit_small_patch16_224.dyno, expected",
    ),
}


@pytest.mark.parametrize("case", MISSING)
def test_a_missing_checkpoint_is_one_sentence(case: str, in_tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(ROOT / "examples")
    from oml_vit_ext.commands.reranker_config import check_checkpoints

    config, overrides, said = MISSING[case]
    cfg = composed(config, *overrides)
    with pytest.raises(ValueError) as stopped:
        check_checkpoints(cfg)
    assert str(stopped.value).startswith(said.format(folder=in_tmp_path))


def test_the_script_stops_with_that_sentence_alone(tmp_path: Path):
    done = run_script("train_reranker", tmp_path, "first_stage_checkpoint=nowhere.ckpt", "hydra.run.dir=run")
    assert done.returncode != 0 and "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith(f"first_stage_checkpoint: there is no file {tmp_path}/nowhere.ckpt")
