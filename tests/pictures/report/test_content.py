"""The content of a report is plain data: it can be kept as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict

from helpers.reports import small_report


def test_it_is_plain():
    report = small_report()
    again = json.loads(json.dumps(asdict(report)))
    assert again["title"] == report.title and len(again["queries"]) == len(report.queries)
