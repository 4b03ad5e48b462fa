"""Files for those who work on the project agree with the project: workflows, citation, templates."""

from __future__ import annotations

import re

import yaml

from helpers import ROOT

WORKFLOW = yaml.safe_load((ROOT / ".github/workflows/tests.yml").read_text())


def test_the_workflow_has_every_python_that_is_supported():
    supported = re.findall(r"Python :: (3\.\d+)", (ROOT / "pyproject.toml").read_text())
    assert WORKFLOW["jobs"]["test"]["strategy"]["matrix"]["python"] == supported


def test_what_is_called_with_make_is_there():
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    files = [".github/workflows/tests.yml", ".ci/run", "CONTRIBUTING.md"]
    lines = "\n".join((ROOT / file).read_text() for file in files)
    called = {name for words in re.findall(r"\bmake((?: [a-z-]+\b(?!=))+)", lines) for name in words.split()}
    assert {"test", "lint", "types", "docs", "test-lowest"} <= called & targets


def test_the_papers_to_cite_are_those_of_the_readme():
    cited = {entry["url"] for entry in yaml.safe_load((ROOT / "CITATION.cff").read_text())["references"]}
    readme = (ROOT / "README.md").read_text().split("## Citing")[1]
    assert {url.rsplit("/", 1)[1] for url in cited} == set(re.findall(r"arXiv:([\d.]+\d)", readme))


def test_templates_and_hooks_are_read():
    for form in (ROOT / ".github/ISSUE_TEMPLATE").glob("[!c]*.yml"):
        assert {"name", "description", "body"} <= yaml.safe_load(form.read_text()).keys()
    hooks = [
        hook["id"]
        for repo in yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
        for hook in repo["hooks"]
    ]
    assert {"ruff-check", "ruff-format"} <= set(hooks)
