"""Two processes on the CPU through OML's training pipeline."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from helpers import ROOT
from oml_vit_ext.losses import IRTLoss

ITERATIONS, BATCH, WORLD = 3, 8, 2


@pytest.fixture(scope="module")
def run_folder(demo_slice: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which two processes trained IRT_R, the data set given as a relative path."""
    folder = tmp_path_factory.mktemp("two_processes")
    (folder / "data").symlink_to(demo_slice)
    arguments = [
        *("--config-name", "irt/train_demo", "dataset_root=data", "pretrained=null", "hydra.run.dir=run"),
        *("devices=2", "accelerator=cpu", f"iterations={ITERATIONS}", "memory_size=1000"),
        *("sampler.args.n_labels=4", "sampler.args.n_instances=2", "extractor.args.timm_args.depth=2"),
    ]
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "train_extractor.py"), *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    (folder / "printed.txt").write_text(done.stdout + done.stderr)
    return folder


def test_two_processes_share_one_memory_and_one_process_goes_on_with_it(run_folder: Path) -> None:
    assert len(set(re.findall(r"GLOBAL_RANK: (\d)", (run_folder / "printed.txt").read_text()))) == WORLD
    # Only the class of the checkpoint callback's folder is beyond plain tensors in OML's file.
    with torch.serialization.safe_globals([type(Path())]):
        content = torch.load(run_folder / "run" / "checkpoints" / "best.ckpt", weights_only=True)
    assert content["global_step"] == ITERATIONS
    prefix = "criterion."
    state = {k.removeprefix(prefix): v for k, v in content["state_dict"].items() if k.startswith(prefix)}

    criterion = IRTLoss(memory_size=1000)
    criterion.load_state_dict(state)
    # Each step brought the batches of both processes: first one's, then the other's.
    assert criterion.memory.n_calls == ITERATIONS
    assert len(criterion.memory) == ITERATIONS * WORLD * BATCH
    features, labels = criterion.memory.entries(torch.zeros(1, 192))
    torch.testing.assert_close(features.norm(dim=1), torch.ones(len(features)))
    assert (features == state["memory.features"]).all() and (labels == state["memory.labels"]).all()
    first, second = features.view(ITERATIONS, WORLD, BATCH, -1).unbind(dim=1)
    assert not torch.isclose(first, second).all()

    loss = criterion(torch.randn(BATCH, 192, requires_grad=True), labels[:BATCH])
    assert torch.isfinite(loss) and len(criterion.memory) == (ITERATIONS * WORLD + 1) * BATCH
