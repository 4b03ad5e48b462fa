"""The drawings of the data's way are those of their script, and every arrow has its ends."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest

from helpers import ROOT
from helpers.docs import script

WAYS = script("draw_ways")


@pytest.mark.parametrize("name", WAYS.WAYS)
def test_the_drawing_is_that_of_the_script(name: str):
    text = (ROOT / f"docs/images/way_{name}.svg").read_text()
    assert text == WAYS.drawn(WAYS.WAYS[name]), "stale: python docs/draw_ways.py"
    svg = ET.fromstring(text)
    of = "{http://www.w3.org/2000/svg}"
    assert len(svg.findall(f"{of}rect")) == len(WAYS.WAYS[name].boxes)
    assert len(svg.findall(f"{of}path")) == len(WAYS.WAYS[name].arrows)
