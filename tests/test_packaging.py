"""What a user gets from a wheel and from an sdist."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from PIL import Image

import oml_vit_ext
from helpers import ROOT

NOT_SOURCE = shutil.ignore_patterns(".*", "build", "dist", "site", "*.egg-info", "outputs", "logs", "__pycache__")


def _left_out(folder: str, names: list[str]) -> set[str]:
    """What the copy does without: what is no source, and pictures, which are many."""
    pictures = {"images"} if Path(folder).name in ("demo_data", "docs") else set()
    return {*NOT_SOURCE(folder, names), *pictures}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """A folder with the wheel and the sdist, built once for all processes of the tests."""
    folder = tmp_path_factory.getbasetemp()
    if hasattr(request.config, "workerinput"):  # pytest-xdist: each process has a folder of its own in a common one
        folder = folder.parent
    folder = folder / "built"
    with FileLock(f"{folder}.lock"):
        if not folder.is_dir():
            _build(folder)
    return folder


def _build(folder: Path) -> None:
    """From a copy, so that the checkout stays clean."""
    source = folder.with_name("source_to_build")
    shutil.copytree(ROOT, source, ignore=_left_out)
    vendor = source / "examples" / "demo_data" / "images" / "noto"
    vendor.mkdir(parents=True)
    shutil.copy(next((ROOT / "examples/demo_data/images/noto").glob("*.jpg")), vendor)
    made = folder.with_name("being_built")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(made), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    made.rename(folder)


def test_the_wheel_holds_configs_and_plugin_but_no_demo(built: Path):
    names = zipfile.ZipFile(next(built.glob("*.whl"))).namelist()
    assert "oml_vit_ext/py.typed" in names and "hydra_plugins/oml_vit_ext/__init__.py" in names
    assert "hydra_plugins/__init__.py" not in names, "other Hydra plugins would no longer be found"
    in_repository = {str(p.relative_to(ROOT / "configs")) for p in (ROOT / "configs").rglob("*.yaml")}
    prefix = "oml_vit_ext/configs/"
    assert {n.removeprefix(prefix) for n in names if n.startswith(prefix) and n.endswith(".yaml")} == in_repository
    assert not [n for n in names if n.startswith(("examples", "tests", "benchmarks"))]


def test_every_module_is_in_the_wheel(built: Path):
    names = set(zipfile.ZipFile(next(built.glob("*.whl"))).namelist())
    modules = [*(ROOT / "oml_vit_ext").rglob("*.py"), *(ROOT / "hydra_plugins").rglob("*.py")]
    assert {str(path.relative_to(ROOT)) for path in modules} <= names


def test_the_pages_are_in_the_wheel(built: Path):
    names = set(zipfile.ZipFile(next(built.glob("*.whl"))).namelist())
    assert {f"oml_vit_ext/app/page.{ending}" for ending in ("html", "css", "js")} <= names
    assert {f"oml_vit_ext/pictures/report/page.{ending}" for ending in ("html.j2", "css", "js")} <= names


def test_the_sdist_holds_the_demo(built: Path):
    with tarfile.open(next(built.glob("*.tar.gz"))) as archive:
        names = archive.getnames()
    inside = {n.split("/", 1)[1] for n in names if "/" in n}
    assert {"examples/demo.py", "examples/demo_data/df.csv", "README.md", "LICENSE"} <= inside
    assert {"conftest.py", "tests/conftest.py", "constraints/lowest.txt"} <= inside, "its tests would not run"
    assert any(n.startswith("examples/demo_data/images/noto/") for n in inside)


def test_the_package_index_would_take_both(built: Path):
    """``twine check``: the long description renders, the metadata are whole."""
    files = [str(file) for file in built.iterdir()]
    assert len(files) == 2
    command = [sys.executable, "-m", "twine", "check", "--strict", *files]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_version_is_written_in_one_place(built: Path):
    assert [wheel.name.split("-")[1] for wheel in built.glob("*.whl")] == [oml_vit_ext.__version__]


def test_an_unmodified_oml_script_works_from_the_wheel(built: Path, tmp_path: Path):
    site = tmp_path / "site"
    zipfile.ZipFile(next(built.glob("*.whl"))).extractall(site)
    (tmp_path / "config.yaml").write_text("defaults: [{criterion: irt}]\n")
    (tmp_path / "script.py").write_text(
        "import hydra, oml.registry, sys\n"
        "@hydra.main(config_path='.', config_name='config', version_base='1.1')\n"
        "def main(cfg):\n"
        "    print(cfg.criterion.args.entropy_weight, sys.modules['oml_vit_ext'].__file__)\n"
        "main()\n"
    )
    done = subprocess.run(
        [sys.executable, "script.py"],
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(site), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip() == f"0.7 {site / 'oml_vit_ext' / '__init__.py'}", done.stderr


def test_from_photos_to_hits_with_the_wheel_alone(built: Path, tmp_path: Path):
    """Four of the README's five commands in an empty folder, each a process of its own."""
    site = tmp_path / "site"
    zipfile.ZipFile(next(built.glob("*.whl"))).extractall(site)
    rng = np.random.default_rng(0)
    for label in range(8):
        folder = tmp_path / "photos" / f"product {label}"
        folder.mkdir(parents=True)
        for i in range(4):
            Image.fromarray(rng.integers(0, 255, (40, 40, 3), dtype=np.uint8)).save(folder / f"IMG {i}.JPG")
    tiny = [
        *("arch=vit_tiny_patch16_224", "pretrained=null", "+timm_args.img_size=32", "+timm_args.depth=1"),
        *("images.train_resize=32", "images.test_resize=32", "images.crop=32", "iterations=2", "valid_iterations=2"),
    ]
    printed = [
        _typed(tmp_path, site, *command)
        for command in (
            ["convert", "folders", "photos"],
            ["train", "irt/train_photos", "dataset_root=photos", *tiny, "--to", "run"],
            ["index", "photos", "--to", "photo_index", "--model", "run"],
            ["query", "photos/product 3/IMG 1.JPG", "--index", "photo_index"],
        )
    ]
    assert "sampler.args.n_labels=6" in printed[1] and "before training" in printed[1]
    assert "32 added" in printed[2] and "product 3/IMG 1.JPG" in printed[3]
    assert {path.name for path in tmp_path.iterdir()} == {"photos", "photo_index", "run", "search.png", "site"}


def _typed(folder: Path, site: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "oml_vit_ext", *arguments],
        cwd=folder,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(site), "HOME": str(folder / "photos"), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    return done.stdout
