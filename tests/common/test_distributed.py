"""W processes equal one process on the concatenated batch: value, gradient after DDP's averaging, memory."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from oml_vit_ext.common.momentum_embeddings import attach
from oml_vit_ext.losses import ContrastiveXBMLoss, DifferentialEntropyLoss, IRTLoss, MatryoshkaLoss, PMLLoss

N_STEPS, DIM = 4, 5
# Rows of each process: equal and unequal local batches.
SHARES = {1: [8], 2: [5, 3], 3: [3, 3, 2], 4: [2, 1, 4, 1]}
RESUMED = 3  # so many processes go on from what a single one has saved
CRITERIA: dict[str, Callable[[], nn.Module]] = {
    "anchors": lambda: ContrastiveXBMLoss(0.1, memory_size=20, memory_start=1, memory_weight=0.5),
    "nonzero_pairs": lambda: ContrastiveXBMLoss(0.1, memory_size=20, memory_weight=0.5, reduction="nonzero_pairs"),
    "entropy": DifferentialEntropyLoss,
    "irt": lambda: IRTLoss(0.1, memory_size=11),
    "matryoshka": lambda: MatryoshkaLoss(ContrastiveXBMLoss(0.1, memory_size=20), dims=[2, DIM]),
    "pml memory": lambda: PMLLoss({"name": "MultiSimilarityLoss"}, memory_size=20),
    "pml parameters": lambda: PMLLoss(
        {"name": "ArcFaceLoss", "args": {"num_classes": 3, "embedding_size": DIM, "margin": 10, "scale": 4}}
    ),
}


class Step(nn.Module):
    """Model and criterion in one module, as in a Lightning module: DDP sees them both."""

    def __init__(self, criterion: nn.Module, momentum: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.model, self.criterion, self.momentum = nn.Linear(7, DIM), criterion, momentum

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        features = self.model(images)
        if self.momentum:
            features = attach(features, images[:, :DIM])
        loss: Tensor = self.criterion(features, labels)
        return loss


def train(name: str, rows: slice, wrap: Callable[[nn.Module], nn.Module], state: Any = None) -> dict[str, Any]:
    """A few steps on ``rows`` of each batch; what one can see of them from this process."""
    torch.manual_seed(1)  # class centres are drawn when the criterion is built
    step = Step(CRITERIA[name](), momentum=name == "irt")
    if state is not None:
        step.criterion.load_state_dict(state)
    wrapped = wrap(step)
    optimizer = torch.optim.SGD(step.parameters(), lr=0.1)
    generator = torch.Generator().manual_seed(2)
    values, gradients = [], []
    for _ in range(N_STEPS):
        images, labels = torch.randn(8, 7, generator=generator), torch.randint(3, (8,), generator=generator)
        loss = wrapped(images[rows], labels[rows])
        optimizer.zero_grad()
        loss.backward()
        gradients.append(torch.cat([p.grad.flatten() for p in step.parameters() if p.grad is not None]))
        optimizer.step()
        values.append(loss.detach())
    step.eval()
    with torch.no_grad():  # without the others: must neither wait for them nor change anything
        images, labels = torch.randn(8, 7, generator=generator), torch.randint(3, (8,), generator=generator)
        evaluated = step(images, labels) if rows.start == 0 else None
    return {
        "values": torch.stack(values),
        "gradients": torch.stack(gradients),
        "evaluated": evaluated,
        "state": step.criterion.state_dict(),
    }


# The processes fork from a server that has imported everything once and has no threads yet.
mp.get_context("forkserver").set_forkserver_preload(["oml_vit_ext.losses", "oml_vit_ext.losses.pml_parts"])


def work(rank: int, folder: Path, states: dict[str, Any]) -> None:
    """Process ``rank`` of each group that has it, one group after the other: processes start once for all tests."""
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    for world in [world for world in SHARES if rank < world]:
        store = f"file://{folder}/store_{world}"
        dist.init_process_group("gloo", init_method=store, rank=rank, world_size=world, timeout=timedelta(seconds=60))
        start = sum(SHARES[world][:rank])
        rows = slice(start, start + SHARES[world][rank])
        state_of = states if world == RESUMED else {}
        results = {name: train(name, rows, DistributedDataParallel, state_of.get(name)) for name in CRITERIA}
        torch.save(results, folder / f"{rank}_of_{world}.pt")
        dist.destroy_process_group()


@pytest.fixture(scope="module")
def states() -> dict[str, Any]:
    """What a single process has saved of each criterion after a training."""
    return {name: train(name, slice(0, 8), lambda step: step)["state"] for name in CRITERIA}


@pytest.fixture(scope="module")
def results(states: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that holds what each process of each group saw."""
    folder = tmp_path_factory.mktemp("ranks")
    mp.start_processes(work, (folder, states), nprocs=max(SHARES), start_method="forkserver")
    return folder


@pytest.mark.parametrize("world", SHARES)
def test_processes_equal_one_process_on_the_whole_batch(world: int, results: Path, states: dict[str, Any]) -> None:
    ranks = [torch.load(results / f"{rank}_of_{world}.pt", weights_only=True) for rank in range(world)]
    for name in CRITERIA:
        expected = train(name, slice(0, 8), lambda step: step, states[name] if world == RESUMED else None)
        for rank, seen in enumerate(ranks):
            got = seen[name]
            where = f"{name}, process {rank} of {world}"
            for key in ("values", "gradients"):
                assert torch.allclose(got[key], expected[key], rtol=1e-4, atol=1e-5), f"{where}: {key}"
            assert got["state"].keys() == expected["state"].keys()
            for key, value in got["state"].items():
                torch.testing.assert_close(value, expected["state"][key], rtol=1e-4, atol=1e-5)
                if "memory" in key:
                    assert (value == ranks[0][name]["state"][key]).all(), f"{where}: {key} differs from process 0"
        torch.testing.assert_close(ranks[0][name]["evaluated"], expected["evaluated"], rtol=1e-4, atol=1e-5)


def test_the_memory_is_not_among_the_buffers_that_ddp_broadcasts() -> None:
    for name, make in CRITERIA.items():
        criterion = make()
        criterion(torch.randn(8, DIM), torch.arange(8) % 3)
        assert list(criterion.buffers()) == [], name
