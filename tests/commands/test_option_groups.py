"""Options in groups are options like any others."""

from __future__ import annotations

import inspect

import typer
from typer.testing import CliRunner

from oml_vit_ext.commands.option_groups import Access, Cluster, ungrouped
from oml_vit_ext.commands.options import Device, EmbedsOn


def _called(*arguments: str) -> list:
    seen: list = []
    program = typer.Typer()

    @program.command()
    @ungrouped
    def command(name: str, *, k: int = 3, access: Access = Access(), cluster: Cluster = Cluster()) -> None:  # noqa: B008
        """What it does."""
        seen.extend((name, k, access, cluster))

    done = CliRunner().invoke(program, list(arguments))
    assert done.exit_code == 0, done.output
    return seen or [done.output]


def test_what_is_typed_arrives_in_its_group():
    assert _called("a") == ["a", 3, Access(), Cluster()]
    typed = ["a", "--k", "4", "--device", "cpu", "--trust-weights", "--engine", "ray", "--workers", "2"]
    expected = [Access(device="cpu", trust_weights=True), Cluster(engine=EmbedsOn.RAY, workers=2)]
    assert _called(*typed) == ["a", 4, *expected]
    assert expected[0].embedding == {"batch_size": 64, "num_workers": 0, "device": "cpu"}
    [text] = _called("--help")
    assert "What it does." in text and "--gpus-per-worker" in text and "[local|ray]" in text


def test_the_signature_says_the_same():
    def command(access: Access) -> None: ...

    found = inspect.signature(ungrouped(command)).parameters
    assert list(found) == ["collection", "device", "batch_size", "num_workers", "trust_weights", "trust_faiss_file"]
    assert found["device"].annotation == Device and found["batch_size"].default == 64


def test_without_a_cluster_the_embedder_is_the_same():
    embedder = object()
    assert Cluster().with_its_machines(embedder) is embedder  # type: ignore[arg-type]
