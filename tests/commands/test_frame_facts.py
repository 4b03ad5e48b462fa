"""What a dataframe says."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from oml_vit_ext.commands.frame_facts import FrameFacts, read_frame


def test_the_facts_are_counts(frame: pd.DataFrame):
    train = frame.split == "train"
    frame.loc[train, "label"] *= 10  # with gaps, as where labels are held out
    largest = frame[train].label.max()
    assert largest >= 50 and FrameFacts.of(frame) == FrameFacts(30, 6, largest + 1, 5, 5, 10, 10)
    assert "30 training photos of 6 labels (median 5 each), 10 validation photos" in str(FrameFacts.of(frame))


def test_a_missing_dataframe_says_how_to_make_it(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="make it with oml-vit-ext convert folders"):
        read_frame(tmp_path, "df.csv")


def test_a_table_of_something_else_is_told(tmp_path: Path):
    (tmp_path / "df.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match=r"has no column .label. but a, b, expected a dataframe of open-metric"):
        read_frame(tmp_path, "df.csv")
