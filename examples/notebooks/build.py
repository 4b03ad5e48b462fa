"""Writes the notebooks from the scripts beside it. A test fails while they are stale."""

from __future__ import annotations

from pathlib import Path

import jupytext
import nbformat

FOLDER = Path(__file__).parent
KERNEL = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}


def notebook(script: Path) -> nbformat.NotebookNode:
    """The cells of a script in the percent format; no outputs."""
    made = jupytext.read(script)
    for i, cell in enumerate(made.cells):
        cell.id = f"cell-{i}"
    made.metadata = nbformat.from_dict(KERNEL)
    made.nbformat, made.nbformat_minor = 4, 5
    return made


def scripts() -> list[Path]:
    return [path for path in sorted(FOLDER.glob("*.py")) if path.name != Path(__file__).name]


def main() -> None:
    for script in scripts():
        nbformat.write(notebook(script), script.with_suffix(".ipynb"))


if __name__ == "__main__":
    main()
