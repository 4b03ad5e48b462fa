"""The tests mirror the package: who looks for the tests of a module, or for the module of a test, finds it by name."""

from __future__ import annotations

from pathlib import Path

import oml_vit_ext

PACKAGE, TESTS = Path(oml_vit_ext.__file__).parent, Path(__file__).parent
NOT_TESTED = {"__init__.py", "__main__.py"}  # they only hand over

# Tests of one aspect of a module that have a file of their own, beside the module's file; apply() stands in an
# __init__.py, which has no test file of its name.
ASPECTS = {
    "extractors/test_hybrid_export.py": "extractors/hybrid.py",
    "oml_patches/test_apply.py": "oml_patches/__init__.py",
    "reranking/test_reranker_distributed.py": "reranking/reranker.py",
    "reranking/test_reranker_merge.py": "reranking/reranker.py",
}


def _below(folder: Path, pattern: str) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob(pattern)}


MODULES = {module for module in _below(PACKAGE, "*.py") if Path(module).name not in NOT_TESTED}
TEST_FILES = _below(TESTS, "test_*.py")


def _test_of(module: str) -> str:
    return Path(module).with_name(f"test_{Path(module).name}").as_posix()


def test_every_module_has_its_test_file():
    assert len(MODULES) > 50
    missing = sorted(_test_of(m) for m in MODULES if _test_of(m) not in TEST_FILES)
    assert not missing, f"modules without a test file, expected tests/<folder>/test_<module>.py: {', '.join(missing)}"


def test_every_test_file_of_a_folder_of_the_package_has_its_module():
    folders = {Path(module).parent for module in MODULES} - {Path(".")}
    in_mirror = {file for file in TEST_FILES if Path(file).parent in folders}
    astray = sorted(in_mirror - {_test_of(module) for module in MODULES} - ASPECTS.keys())
    assert not astray, f"tests of no module, expected one of that name or a line in ASPECTS: {', '.join(astray)}"


def test_the_exceptions_are_needed():
    modules = _below(PACKAGE, "*.py")
    gone = [
        f"{file} of {module}" for file, module in ASPECTS.items() if file not in TEST_FILES or module not in modules
    ]
    assert not gone, f"exceptions for files that are not there: {', '.join(gone)}"
