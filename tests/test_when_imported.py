"""Acting on a module when it is imported, not before."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from oml_vit_ext.when_imported import when_imported


@pytest.fixture()
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "somewhere").mkdir()
    (tmp_path / "somewhere" / "__init__.py").write_text("")
    (tmp_path / "somewhere" / "late.py").write_text("value = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("somewhere", "somewhere.late"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return tmp_path


def test_it_waits_for_the_import_and_acts_once(folder: Path):
    def raise_value(module: ModuleType) -> None:
        module.value += 1

    when_imported("somewhere.late", raise_value)
    assert "somewhere.late" not in sys.modules
    import somewhere.late  # type: ignore[import-not-found]

    assert somewhere.late.value == 2
    when_imported("somewhere.late", raise_value)  # loaded already: at once
    assert somewhere.late.value == 3


def test_a_module_that_does_not_exist_stays_an_import_error(folder: Path):
    when_imported("somewhere.nowhere", lambda module: None)
    with pytest.raises(ModuleNotFoundError, match="nowhere"):
        import somewhere.nowhere  # type: ignore[import-not-found]  # noqa: F401


def test_the_package_imports_no_lightning_and_repairs_when_it_comes():
    code = (
        "import sys, oml_vit_ext\n"
        "assert 'pytorch_lightning' not in sys.modules\n"
        "from oml.lightning.modules.pairwise_postprocessing import PairwiseModule\n"
        "from pytorch_lightning import LightningModule\n"
        "assert PairwiseModule.on_train_epoch_start is not LightningModule.on_train_epoch_start\n"
        "from oml.lightning.pipelines import train_postprocessor\n"
        "assert train_postprocessor.get_loaders_with_embeddings._from_oml_vit_ext\n"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True)
