"""What is installed, and what does not go together."""

from __future__ import annotations

import sys

import pytest

from oml_vit_ext.commands import environment


def test_versions_are_those_that_are_installed():
    found = environment.versions()
    import numpy

    assert found["python"] == sys.version.split()[0] and found["numpy"] == numpy.__version__


@pytest.mark.parametrize(
    ("name", "version", "mend"),
    [
        ("setuptools", "82.0.1", "pip install 'setuptools<81'"),
        ("numpy", "2.2.0", "pip install 'numpy<2'"),
        ("pytorch-lightning", "2.5.0", "pip install 'pytorch-lightning<2.1.3'"),
    ],
)
def test_a_known_clash_comes_with_its_mend(name: str, version: str, mend: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(environment, "installed", {name: version}.get)
    [clash] = environment.clashes()
    assert clash.startswith(f"{name} {version}: ") and mend in clash


def test_torch_and_torchvision_of_two_indexes_are_told(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(environment, "installed", {"torch": "2.6.0+cu124", "torchvision": "0.21.0+cpu"}.get)
    [clash] = environment.clashes()
    assert "built for different devices" in clash and "--index-url" in clash


def test_the_cpu_is_named_first():
    assert environment.devices()[0].startswith("CPU  ") and "bf16" in environment.devices()[0]
