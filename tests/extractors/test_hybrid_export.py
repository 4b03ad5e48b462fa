"""hybrid_vit outside of eager Python: torch.export, ONNX, torch.compile, several processes."""

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
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from helpers import TINY_HYBRID, TINY_PLAIN
from oml_vit_ext.extractors import HybridViTExtractor

# The processes fork from a server that has imported everything once and has no threads yet.
mp.get_context("forkserver").set_forkserver_preload(["oml_vit_ext.extractors"])

ONE_BLOCK = {**TINY_HYBRID, "timm_args": {**TINY_HYBRID["timm_args"], "depth": 1}}
SWITCHES: list[dict[str, Any]] = [
    {"branches": "global", "n_layers": 1, "enhanced_locality": False},
    {"branches": "local", "n_layers": 1},
    {"branches": "both", "n_layers": 2},
]


def build(model: dict[str, Any] = TINY_HYBRID, **arguments: Any) -> HybridViTExtractor:
    return HybridViTExtractor(None, **{"n_layers": 2, "embed_dim": 32, **model, **arguments})


@pytest.fixture(scope="module")
def exported() -> tuple[HybridViTExtractor, torch.export.ExportedProgram]:
    extractor = build(ONE_BLOCK, n_layers=1, scales=(1.0, 1.5)).eval()
    batch = torch.export.Dim("batch", min=2, max=64)
    return extractor, torch.export.export(extractor, (torch.randn(4, 3, 48, 40),), dynamic_shapes={"x": {0: batch}})


def test_torch_export_with_a_dynamic_batch(exported):
    extractor, program = exported
    images = torch.randn(7, 3, 48, 40)
    torch.testing.assert_close(program.module()(images), extractor(images), atol=1e-5, rtol=1e-4)


def test_onnx_with_a_dynamic_batch(exported, tmp_path: Path):
    reason = "needs onnx, onnxscript and onnxruntime (pip install oml-vit-ext[dev])"
    for name in ("onnx", "onnxscript"):
        pytest.importorskip(name, reason=reason)
    onnxruntime = pytest.importorskip("onnxruntime", reason=reason)
    extractor, program = exported
    path = tmp_path / "extractor.onnx"
    torch.onnx.export(program, f=path, dynamo=True, verbose=False)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for size in (2, 5):
        images = torch.randn(size, 3, 48, 40)
        (descriptors,) = session.run(None, {session.get_inputs()[0].name: images.numpy()})
        torch.testing.assert_close(torch.from_numpy(descriptors), extractor(images), atol=1e-4, rtol=0)


def test_torch_compile_without_graph_breaks():
    """Of the graph only, with one block: the backend that generates machine code takes minutes."""
    extractor = build(ONE_BLOCK, n_layers=1, dropout=0.0, wave_scale=1.0).train()
    images = torch.randn(3, 3, 48, 40)
    compiled = torch.compile(extractor, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(images), extractor(images), atol=1e-5, rtol=1e-4)


def train(switches: dict[str, Any], rows: slice, wrap: Callable[[Any], Any], steps: int = 2) -> dict[str, Tensor]:
    """A few steps on ``rows`` of each batch: weights and running statistics afterwards."""
    torch.manual_seed(0)
    extractor = build(TINY_PLAIN, **switches, dropout=0.0, wave_scale=1.0)
    wrapped = wrap(extractor)
    optimizer = torch.optim.SGD(extractor.parameters(), lr=0.1)
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        images, target = torch.randn(4, 3, 32, 32, generator=generator), torch.randn(4, 32, generator=generator)
        optimizer.zero_grad()
        (wrapped(images[rows]) * target[rows]).sum(1).mean().backward()
        optimizer.step()
    return {name: tensor.detach().clone() for name, tensor in extractor.state_dict().items()}


def work(rank: int, world: int, folder: Path) -> None:
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world, timeout=timedelta(seconds=120)
    )
    rows = slice(2 * rank, 2 * rank + 2)
    torch.save([train(switches, rows, DistributedDataParallel) for switches in SWITCHES], folder / f"{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_train_alike(tmp_path: Path):
    """No parameter is left without a gradient, which stops DDP at the second step, and the weights stay equal."""
    mp.start_processes(work, (2, tmp_path), nprocs=2, start_method="forkserver")
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    for switches, one, other in zip(SWITCHES, first, second, strict=True):
        start = train(switches, slice(0), lambda extractor: extractor, steps=0)
        for name in one:
            if "running_" not in name:  # each process has its own until the next forward pass
                torch.testing.assert_close(one[name], other[name], atol=1e-6, rtol=1e-5, msg=f"{switches}: {name}")
        assert any((one[name] - start[name]).abs().max() > 1e-4 for name in one)
