"""One of several processes dies, has nothing to do, or has one label only: nobody waits for ever.

Each group of two processes ends by itself within the time that ``torch.distributed`` is given.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.utils.data import DataLoader

from helpers.scripts import _SERVER
from helpers.trainings import content, extractor_config, started

TIMEOUT_S = 60  # of torch.distributed
SHORT_S = 5  # where it is to pass
DIM, STEPS = 6, 3
PEER_GONE = "closed by peer|reset by peer|Timed out|Broken pipe|timeout|timed out"


def criteria() -> dict[str, nn.Module]:
    from oml_vit_ext.losses import ContrastiveXBMLoss, DifferentialEntropyLoss, IRTLoss, PMLLoss

    return {
        "contrastive_xbm": ContrastiveXBMLoss(memory_size=16),
        "irt": IRTLoss(memory_size=16),
        "koleo": DifferentialEntropyLoss(),
        "pml": PMLLoss({"name": "TripletMarginLoss"}, memory_size=16),
    }


def batches(rank: int) -> list[tuple[Tensor, Tensor]]:
    """Uneven, and each process has a label of its own; in the last step all have one."""
    generator = torch.Generator().manual_seed(0)
    sizes, found = ((5, 2), (1, 4), (3, 3)), []
    for step in range(STEPS):
        rows = torch.randn(sum(sizes[step]), DIM, generator=generator)
        labels = torch.tensor([0] * sizes[step][0] + [1 if step < STEPS - 1 else 0] * sizes[step][1])
        mine = slice(0, sizes[step][0]) if rank == 0 else slice(sizes[step][0], None)
        found.append((rows[mine], labels[mine]) if rank >= 0 else (rows, labels))
    return found


def losses_of(criterion: nn.Module, rank: int) -> list[float]:
    found = []
    for embeddings, labels in batches(rank):
        embeddings.requires_grad_()
        loss = criterion(embeddings, labels)
        loss.backward()
        assert embeddings.grad is not None and bool(embeddings.grad.isfinite().all())
        found.append(loss.item())
    return found


def one_label_on_each(rank: int) -> Any:
    return {name: losses_of(criterion, rank) for name, criterion in criteria().items()}


def killed(rank: int) -> Any:
    criterion = criteria()["irt"]
    losses_of(criterion, rank)
    if rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    losses_of(criterion, rank)


def silent(rank: int) -> Any:
    while rank == 1:
        time.sleep(0.1)
    losses_of(criteria()["contrastive_xbm"], rank)


def nothing_to_do(rank: int) -> Any:
    criterion = criteria()["irt"]
    n_rows = 4 if rank == 0 else 0
    criterion(torch.randn(n_rows, DIM), torch.zeros(n_rows, dtype=torch.long))


def not_a_number(rank: int) -> Any:
    criterion = criteria()["pml"]
    embeddings = torch.randn(4, DIM)
    embeddings[2] = torch.nan if rank == 1 else 1
    criterion(embeddings, torch.arange(4) % 2)


def few_rows_to_mine(rank: int) -> Any:
    from oml_vit_ext.oml_patches.sampler_epochs import embed

    torch.manual_seed(0)
    items = [{"pixels": torch.randn(4)} for _ in range(3)]
    plugin = SimpleNamespace(forward_context=contextlib.nullcontext)
    trainer = SimpleNamespace(precision_plugin=plugin)
    module = SimpleNamespace(
        model=nn.Linear(4, 3), trainer=trainer, input_tensors_key="pixels", device=torch.device("cpu")
    )
    loader = DataLoader(items, batch_sampler=SimpleNamespace(batch_size=2))
    return embed(module, loader, np.array([2])).tolist()


def work(scenario: Callable[[int], Any], rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    store = dist.FileStore(str(folder / "store"), 2)
    criteria()  # imports what takes its time, then waits for the other process, which may have begun much later
    (folder / f"ready-{rank}").touch()
    while not (folder / f"ready-{1 - rank}").exists():
        time.sleep(0.05)
    timeout = timedelta(seconds=SHORT_S if scenario is silent else TIMEOUT_S)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=2, timeout=timeout)
    try:
        outcome = {"result": scenario(rank), "error": ""}
    except Exception as error:
        outcome = {"result": None, "error": f"{type(error).__name__}: {error}"}
    (folder / f"{rank}.json").write_text(json.dumps(outcome))
    os._exit(0)  # as a process that failed: it does not say good-bye to the others


@pytest.fixture()
def outcomes(request: pytest.FixtureRequest, tmp_path: Path) -> list[dict[str, Any] | None]:
    """What became of both processes; ``None`` of one that was killed."""
    processes = [_SERVER.Process(target=work, args=(request.param, rank, tmp_path)) for rank in range(2)]
    for process in processes:
        process.start()
    try:
        processes[0].join(3 * TIMEOUT_S)
        assert processes[0].exitcode is not None, "a process hangs"
        if request.param is not silent:
            processes[1].join(3 * TIMEOUT_S)
    finally:
        for process in processes:
            process.kill()
            process.join()
    files = [tmp_path / f"{rank}.json" for rank in range(2)]
    return [json.loads(file.read_text()) if file.exists() else None for file in files]


@pytest.mark.parametrize("outcomes", [one_label_on_each], indirect=True)
def test_uneven_batches_with_a_label_of_their_own_are_those_of_one_process(outcomes: list[dict[str, Any]]):
    assert [outcome["error"] for outcome in outcomes] == ["", ""]
    for name, criterion in criteria().items():
        expected = losses_of(criterion, -1)
        for outcome in outcomes:
            assert outcome["result"][name] == pytest.approx(expected, rel=1e-4, abs=1e-5), name


@pytest.mark.parametrize("outcomes", [killed], indirect=True)
def test_a_killed_process_is_noticed(outcomes: list[dict[str, Any] | None]):
    assert outcomes[1] is None
    assert any(text in outcomes[0]["error"] for text in PEER_GONE.split("|")), outcomes[0]


@pytest.mark.parametrize("outcomes", [silent], indirect=True)
def test_a_silent_process_is_waited_for_no_longer_than_the_timeout(outcomes: list[dict[str, Any]]):
    assert any(text in outcomes[0]["error"] for text in PEER_GONE.split("|")), outcomes[0]
    assert outcomes[1] is None


@pytest.mark.parametrize(
    ("outcomes", "says"),
    [(nothing_to_do, "embeddings|features|rows|batch"), (not_a_number, "NaN|finite")],
    indirect=["outcomes"],
)
def test_a_batch_that_cannot_be_used_is_told_by_its_process(outcomes: list[dict[str, Any]], says: str):
    assert outcomes[1]["error"].startswith("ValueError") and any(
        word in outcomes[1]["error"] for word in says.split("|")
    )
    assert any(text in outcomes[0]["error"] for text in PEER_GONE.split("|")), outcomes[0]


@pytest.mark.parametrize("outcomes", [few_rows_to_mine], indirect=True)
def test_fewer_rows_to_mine_than_processes(outcomes: list[dict[str, Any]]):
    assert [outcome["error"] for outcome in outcomes] == ["", ""]
    assert outcomes[0]["result"] == outcomes[1]["result"] and len(outcomes[0]["result"]) == 1


def test_a_training_whose_other_process_dies_ends_and_its_checkpoint_is_whole(demo_slice: Path, tmp_path: Path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    cfg = extractor_config(demo_slice, devices=2, save_iterations=1, max_epochs=2, port=port)
    both = [started(cfg, tmp_path, rank, 2, 3 if rank == 1 else None) for rank in range(2)]
    for process in both:
        process.join(120)
        process.kill()
    assert both[0].exitcode == 1 and both[1].exitcode == -signal.SIGKILL
    assert content(tmp_path / "checkpoints" / "last.ckpt")["global_step"] in (2, 3)
