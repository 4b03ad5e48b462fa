"""A user's own OML script, with no import of ours, and Hydra applications that have nothing to do with OML."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from helpers import ROOT

OML_SCRIPT = """
import hydra
from oml.registry.losses import get_criterion_by_cfg
from oml.registry.models import get_extractor_by_cfg

@hydra.main(config_path=".", config_name="config", version_base="1.1")
def main(cfg):
    built = get_extractor_by_cfg(cfg.extractor), get_criterion_by_cfg(cfg.criterion)
    print("built", *(type(part).__name__ for part in built))

main()
"""

# OML only where it is needed: first a module that imports the registries in its middle, then workers that import it.
LATE_SCRIPT = """
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
import sys
import hydra
from joblib import Parallel, delayed
from omegaconf import OmegaConf

def job(part):
    early = "oml" in sys.modules
    from oml.datasets.images import ImageBaseDataset
    from oml.registry.losses import get_criterion_by_cfg
    return early, type(get_criterion_by_cfg(part)).__name__

@hydra.main(config_path=".", config_name="config", version_base="1.1")
def main(cfg):
    part = OmegaConf.to_container(cfg.criterion)
    print("joblib", Parallel(2)(delayed(job)(part) for _ in range(2))[0])
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        print("spawn", pool.submit(job, part).result())
    print("main", job(part))

if __name__ == "__main__":
    main()
"""

# No Hydra, and the one import of ours is not repeated in the processes that the script starts.
PLAIN_SCRIPT = """
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

def job():
    from oml.registry.losses import LOSSES_REGISTRY
    return "irt" in LOSSES_REGISTRY

if __name__ == "__main__":
    import oml_vit_ext
    assert "oml" not in sys.modules
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        print("spawn", pool.submit(job).result())
"""

OTHER_SCRIPT = """
import sys
import hydra

@hydra.main(config_path=None, version_base="1.1")
def main(cfg):
    heavy = {"torch", "oml", "oml_vit_ext", "timm", "numpy", "pandas", "faiss"} & set(sys.modules)
    print("imported", sorted(heavy))

main()
"""


def _run(script: str, folder: Path, *arguments: str) -> str:
    (folder / "script.py").write_text(script)
    done = subprocess.run(
        [sys.executable, "script.py", *arguments], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_names_work_in_an_unmodified_oml_script(tmp_path: Path):
    (tmp_path / "config.yaml").write_text(
        "extractor: {name: irt, args: {weights: null, arch: vit_tiny_patch16_224, timm_args: {depth: 1}}}\n"
        "criterion: {name: irt, args: {memory_size: 10}}\n"
    )
    assert "built IRTExtractor IRTLoss" in _run(OML_SCRIPT, tmp_path)


def test_our_config_groups_are_found_beside_the_users_own(tmp_path: Path):
    (tmp_path / "config.yaml").write_text(
        "defaults: [{extractor: irt}, {criterion: irt}, _self_]\n"
        "extractor: {args: {weights: null}}\n"
        "criterion: {args: {memory_size: 10}}\n"
    )
    printed = _run(OML_SCRIPT, tmp_path, "extractor.args.arch=vit_tiny_patch16_224", "criterion=contrastive_xbm")
    assert "built IRTExtractor ContrastiveXBMLoss" in printed


def test_the_oml_configs_are_still_found(tmp_path: Path):
    (tmp_path / "config.yaml").write_text(
        "defaults: [{extractor: irt}, {criterion: triplet}, _self_]\n"
        "extractor: {args: {weights: null, arch: vit_tiny_patch16_224}}\n"
        "hydra: {searchpath: ['pkg://oml.configs']}\n"
    )
    assert "built IRTExtractor TripletLoss" in _run(OML_SCRIPT, tmp_path)


def test_other_hydra_applications_import_nothing_of_ours(tmp_path: Path):
    assert "imported []" in _run(OTHER_SCRIPT, tmp_path)


def test_names_and_configs_are_there_wherever_oml_is_imported_late(tmp_path: Path):
    (tmp_path / "config.yaml").write_text(
        "defaults: [{criterion: irt}, _self_]\ncriterion: {args: {memory_size: 10}}\n"
    )
    printed = _run(LATE_SCRIPT, tmp_path)
    for process in ("joblib", "spawn", "main"):
        assert f"{process} (False, 'IRTLoss')" in printed


def test_processes_of_a_script_without_hydra_have_the_names(tmp_path: Path):
    assert "spawn True" in _run(PLAIN_SCRIPT, tmp_path)


def test_applications_without_oml_do_not_list_our_configs(tmp_path: Path):
    (tmp_path / "config.yaml").write_text("defaults: [optional criterion: none_of_them, _self_]\nseed: 1\n")
    script = OTHER_SCRIPT.replace("config_path=None", 'config_path=".", config_name="config"')
    printed = _run(script, tmp_path, "--help")
    assert "seed: 1" in printed and "criterion" not in printed
    assert "imported []" in _run(script, tmp_path)


@pytest.mark.parametrize("already", [False, True])
def test_the_search_path_names_the_package_only_beside_oml(already: bool, monkeypatch: pytest.MonkeyPatch):
    from hydra._internal.config_search_path_impl import ConfigSearchPathImpl

    from hydra_plugins.oml_vit_ext import OMLViTExtSearchPath

    if not already:
        monkeypatch.delitem(sys.modules, "oml")
    search_path = ConfigSearchPathImpl()
    OMLViTExtSearchPath().manipulate_search_path(search_path)
    (element,) = search_path.get_path()
    assert element.path == ("pkg://oml_vit_ext.configs" if already else f"oml-vit-ext://{ROOT / 'configs'}")
