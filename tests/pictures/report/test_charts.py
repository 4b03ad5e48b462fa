"""Charts: places in pixels against the values that they stand for."""

from __future__ import annotations

import math

import pytest

from oml_vit_ext.pictures.report.charts import HEIGHT, WIDTH, histogram, line_chart


def _points(line) -> list[tuple[float, float]]:
    return [tuple(map(float, point.split(","))) for point in line.points.split()]


def test_a_line_goes_from_corner_to_corner_and_ticks_are_round():
    chart = line_chart("loss", {"loss": ([0, 50, 100], [0.0, 1.0, 2.0])}, x_label="iterations", text="", y_range=(0, 2))
    (x0, y0), (x1, y1), (x2, y2) = _points(chart.lines[0])
    assert x0 < x1 < x2 <= WIDTH and 0 <= y2 < y1 < y0 <= HEIGHT
    assert x1 == pytest.approx((x0 + x2) / 2, abs=0.1) and y1 == pytest.approx((y0 + y2) / 2, abs=0.1)
    assert [text for _, text in chart.y_ticks] == ["0", "0.5", "1", "1.5", "2"]
    assert {text: place for place, text in chart.x_ticks}["100"] == x2
    assert len(chart.lines[0].dots) == 3


def test_a_logarithmic_axis_has_equal_steps_per_power():
    chart = line_chart("", {"a": ([1, 10, 100], [1, 2, 3])}, x_label="", text="", log_x=True, level=2)
    (x0, _), (x1, y1), (x2, _) = _points(chart.lines[0])
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.2) and chart.level == pytest.approx(y1)
    assert [text for _, text in chart.x_ticks] == ["1", "10", "100"]


@pytest.mark.parametrize("values", [[3.0], [0.0, 0.0], [math.nan, 1.0], [math.nan], []])
def test_odd_series_stay_inside(values: list[float]):
    chart = line_chart("", {"a": (list(range(len(values))), values)}, x_label="", text="")
    n_finite = sum(map(math.isfinite, values))
    assert len(_points(chart.lines[0])) == n_finite
    assert all(0 <= x <= WIDTH and 0 <= y <= HEIGHT for x, y in _points(chart.lines[0]))


def test_bars_are_as_high_as_their_shares_and_empty_ends_are_cut_off():
    shares = {"one": [0, 0, 0.25, 0.75, 0], "two": [0, 1.0, 0, 0, 0]}
    chart = histogram("", [-1, -0.6, -0.2, 0.2, 0.6, 1.0], shares, x_label="", text="")
    one, two = chart.bars["one"], chart.bars["two"]
    assert len(one) == 2 and len(two) == 1
    assert one[1][3] == pytest.approx(3 * one[0][3], abs=0.2) and two[0][3] == pytest.approx(4 * one[0][3], abs=0.3)
    assert two[0][0] + two[0][2] == pytest.approx(one[0][0], abs=0.2), "the bins lie side by side"
    ticks = [float(text) for _, text in chart.x_ticks]
    assert min(ticks) >= -0.6 and max(ticks) <= 0.6 and chart.y_ticks[-1][1] == "100 %"
