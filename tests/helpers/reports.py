"""A small report, made by hand: eight queries in two stages, and texts that look like HTML."""

from __future__ import annotations

from oml_vit_ext.pictures.report.charts import histogram, line_chart
from oml_vit_ext.pictures.report.content import Report, ShownImage, ShownQuery, ShownStage, Table

HOSTILE = "<script>window.hurt = true</script><img src=x onerror='window.hurt = true'>"
# One white pixel.
PIXEL = "data:image/gif;base64,R0lGODlhAQABAIAAAP///wAAACH5BAAAAAAALAAAAAABAAEAAAICRAEAOw=="


def small_report() -> Report:
    """Queries 0, 1, 2 got better, 3 and 4 worse, the others stayed; image 9 cannot be read, image 8 has a bad name."""
    before = [0.1, 0.2, 0.3, 1.0, 0.9, 0.5, 0.6, 1.0]
    after = [1.0, 1.0, 0.4, 0.2, 0.25, 0.5, 0.6, 1.0]
    queries = []
    for image, precisions in enumerate(zip(before, after, strict=True)):
        stages = [ShownStage([(8, p == 1.0, 0.1), (9, p < 1.0, 0.2)], p, 1 if p == 1.0 else 2) for p in precisions]
        queries.append(ShownQuery(image, stages))
    queries.sort(key=lambda query: query.stages[1].average_precision)
    labels = ["apple", "apple", "pear", "pear", "leek", "leek", "milk", "milk", HOSTILE, "gone"]
    images = {i: ShownImage(None if i == 9 else PIXEL, label, f"{label}/{i}.jpg") for i, label in enumerate(labels)}
    return Report(
        title=f"A report {HOSTILE}",
        facts=[("Model", HOSTILE)],
        summary="8 queries.",
        metrics=Table(["", "CMC@1"], [["first stage", "0.250"], [HOSTILE, "0.375"]]),
        terms={"CMC@k": HOSTILE},
        stages=["first stage", HOSTILE],
        compared=0,
        queries=queries,
        shown="All 8 queries, the worst first.",
        images=images,
        curves=[line_chart(HOSTILE, {HOSTILE: ([1, 2], [3, 1])}, x_label="iterations", text=HOSTILE)],
        spectra=[line_chart("spectrum", {"a": ([1, 2], [0.5, 1])}, x_label="", text="", log_x=True, level=0.9)],
        similarities=[histogram("pairs", [-1, 0, 1], {"a": [0.5, 0.5], HOSTILE: [0, 1]}, x_label="", text="")],
        confused=Table(["Query", "First hit"], [[HOSTILE, "leek"]]),
        config=f"label: {HOSTILE}",
        commands=[f"echo {HOSTILE}"],
        notes=[HOSTILE],
    )
