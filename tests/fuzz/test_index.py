"""Random sequences of what people do with an index, beside a dictionary of what is in it."""

from __future__ import annotations

import os
import tempfile
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from PIL import Image

from helpers.fuzzing import COUNTS, cases
from helpers.mean_colour import MeanColour
from oml_vit_ext.retrieval import Embedder, SearchIndex

NAMES = [f"{folder}{name}.png" for folder in ("", "a/", "a/b/") for name in ("0", "é", "x y")]
COLOURS = [(0, 0, 9), (10, 200, 3), (250, 1, 7), (90, 90, 90)]
BROKEN = -1


class Machine(RuleBasedStateMachine):
    """``files`` is what lies in the folder, ``held`` what the index should hold: path to colour."""

    def __init__(self) -> None:
        super().__init__()
        COUNTS["test_index"] += 1
        self.temporary = tempfile.TemporaryDirectory()
        self.root = Path(self.temporary.name, "photos")
        self.root.mkdir()
        self.embedder = EMBEDDER
        self.index = SearchIndex(self.root, self.embedder.fingerprint)
        self.files: dict[str, int] = {}
        self.held: dict[str, int] = {}
        self.saved: dict[str, int] | None = None
        self.clock = 1_600_000_000

    def teardown(self) -> None:
        self.temporary.cleanup()

    @rule(name=st.sampled_from(NAMES), colour=st.integers(BROKEN, len(COLOURS) - 1))
    def write(self, name: str, colour: int) -> None:
        file = self.root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        if colour == BROKEN:
            file.write_bytes(b"no image")
        else:
            Image.new("RGB", (2, 2), COLOURS[colour]).save(file)
        self.clock += 1  # the clock of files is coarse, these cases are fast
        os.utime(file, (self.clock, self.clock))
        self.files[name] = colour

    @rule(name=st.sampled_from(NAMES))
    def delete(self, name: str) -> None:
        (self.root / name).unlink(missing_ok=True)
        self.files.pop(name, None)

    @rule(old=st.sampled_from(NAMES), new=st.sampled_from(NAMES))
    def rename(self, old: str, new: str) -> None:
        if old in self.files and old != new:
            (self.root / new).parent.mkdir(parents=True, exist_ok=True)
            (self.root / old).rename(self.root / new)
            self.files[new] = self.files.pop(old)

    @rule(below=st.sampled_from(["", "a", "a/b"]), exactly=st.booleans())
    def take_a_folder(self, below: str, exactly: bool) -> None:
        prefix = f"{below}/" if below else ""
        inside = {name: colour for name, colour in self.files.items() if name.startswith(prefix)}
        self._update(self.root / below, inside, {name for name in self.held if name.startswith(prefix)}, exactly, False)

    @rule(names=st.lists(st.sampled_from(NAMES), min_size=1, max_size=3, unique=True), exactly=st.booleans())
    def take_a_table(self, names: list[str], exactly: bool) -> None:
        inside = {name: self.files.get(name, BROKEN) for name in names}
        self._update(pd.DataFrame({"path": names}), inside, set(self.held), exactly, True)

    def _update(
        self, source: Path | pd.DataFrame, inside: dict[str, int], may_leave: set[str], exactly: bool, is_table: bool
    ) -> None:
        update = self.index.sync if exactly else self.index.add
        before = dict(self.held)
        # A file that is as it was when it was embedded is not read again; one that is broken now was not so then.
        good = {name: colour for name, colour in inside.items() if colour != BROKEN}
        if not inside or not good:
            try:
                update(source, self.embedder)
            except (ValueError, FileNotFoundError) as error:
                assert str(error).endswith((".", ")."))
            else:
                raise AssertionError("an update without a single image that can be read was no error")
            return
        report = update(source, self.embedder)
        self.held |= good
        if exactly:
            left = may_leave - set(good)
        elif is_table:
            left = set()
        else:
            left = {name for name in may_leave if name not in inside and name not in self.files}
        for name in left:
            self.held.pop(name, None)
        assert len(report.broken) == len(inside) - len(good)
        assert report.added + report.renamed == len(set(self.held) - set(before))
        assert report.removed + report.renamed == len(set(before) - set(self.held))

    @rule(names=st.lists(st.sampled_from(NAMES), min_size=1, max_size=2, unique=True))
    def remove(self, names: list[str]) -> None:
        if set(names) <= set(self.held):
            assert self.index.remove(names) == len(names)
            for name in names:
                del self.held[name]
        else:
            try:
                self.index.remove(names)
            except ValueError as error:
                assert str(error).startswith("Unknown image of the index")
            else:
                raise AssertionError("an image that is not there was removed")

    @rule()
    def save(self) -> None:
        if self.held or self.saved is not None:
            self.index.save(Path(self.temporary.name, "index"))
            self.saved = dict(self.held)

    @rule()
    def load(self) -> None:
        if self.saved is not None:
            self.index, self.held = SearchIndex.load(Path(self.temporary.name, "index")), dict(self.saved)

    @invariant()
    def holds_what_it_should(self) -> None:
        assert len(self.index) == len(self.held) and set(self.index.images.path) == set(self.held)
        if self.held:
            names = sorted(self.held)
            queries = np.array([COLOURS[self.held[name]] for name in names], dtype=np.float32) / 255
            for name, hits in zip(names, self.index.search(queries, k=len(names)), strict=True):
                at_zero = {hit.path for hit in hits if hit.distance < 1e-3}
                assert at_zero == {other for other in names if self.held[other] == self.held[name]}


def transform() -> object:
    import torchvision.transforms as t

    return t.Compose([t.ToTensor()])


EMBEDDER = Embedder(MeanColour(), transform(), device="cpu")


def test_an_index_holds_what_it_should() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        settings = cases(short=12, long=400)
        run_state_machine_as_test(Machine, settings=settings)
