"""What a report says, as plain data: gathering fills it, the page draws it."""

from __future__ import annotations

from dataclasses import dataclass, field

from oml_vit_ext.pictures.report.charts import Chart


@dataclass(frozen=True)
class ShownStage:
    """What one stage retrieved for a query.

    Attributes:
        hits: Per hit the image, whether it is right, its distance; nearest first.
        average_precision: Over these hits, 1 if the right ones come first.
        first_right: Rank of the first right hit, from 1; 0 if there is none among all that was retrieved.
    """

    hits: list[tuple[int, bool, float]]
    average_precision: float
    first_right: int


@dataclass(frozen=True)
class ShownQuery:
    """A query of the galleries: its image, and what each stage retrieved, in the order of ``Report.stages``."""

    image: int
    stages: list[ShownStage]


@dataclass(frozen=True)
class ShownImage:
    """A picture as text (``None`` if it cannot be read), and the names that go with it."""

    uri: str | None
    label: str
    path: str


@dataclass(frozen=True)
class Table:
    """Rows of text under a header."""

    header: list[str]
    rows: list[list[str]]


@dataclass(frozen=True)
class Report:
    """All that is on the page, from top to bottom.

    Attributes:
        title: Of the page.
        facts: Names and values that go below it.
        summary: One sentence on what was searched.
        metrics: A row for each stage.
        terms: What the words of the table mean.
        stages: Names of the stages, in the order in which they follow each other.
        compared: Number of the stage that the last one is compared with.
        queries: Those that are shown.
        shown: What they are, and how many of all queries the last stage changed.
        at_random: They are drawn from all, and shown in this order at first; else the worst come first.
        images: By the numbers that the queries use.
        curves, spectra, similarities: Charts.
        logged_once: Name and value of what the training logged a single time: no curve.
        confused: The labels most often taken for each other, by the last stage's first hit.
        config: Of the run, as YAML.
        commands: What to do next, one line each.
        notes: Further sentences at the end, e.g. whose photos these are.
    """

    title: str
    facts: list[tuple[str, str]]
    summary: str
    metrics: Table
    terms: dict[str, str]
    stages: list[str]
    compared: int
    queries: list[ShownQuery]
    shown: str
    images: dict[int, ShownImage]
    at_random: bool = False
    curves: list[Chart] = field(default_factory=list)
    logged_once: list[tuple[str, str]] = field(default_factory=list)
    spectra: list[Chart] = field(default_factory=list)
    similarities: list[Chart] = field(default_factory=list)
    confused: Table | None = None
    config: str = ""
    commands: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
