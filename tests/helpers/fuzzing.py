"""Random cases: how many, how they are counted, and what an error may look like.

In the normal suite each test tries a few cases, the same ones each time; ``HYPOTHESIS_PROFILE=long`` (``make fuzz``)
tries new ones, many times as many. ``COUNTS`` says how many cases each test has tried.
"""

from __future__ import annotations

import functools
import os
from collections import Counter
from collections.abc import Callable
from typing import Any

import hypothesis
from hypothesis import HealthCheck, Phase
from hypothesis import strategies as st

LONG = os.environ.get("HYPOTHESIS_PROFILE", "short") == "long"
SCALE = float(os.environ.get("FUZZ_SCALE", 1))  # of the long profile
COUNTS: Counter[str] = Counter()  # by module


def cases(short: int, long: int) -> hypothesis.settings:
    """Settings of a test of so many cases."""
    return hypothesis.settings(
        max_examples=max(1, round(SCALE * long)) if LONG else short,
        derandomize=not LONG,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.explicit, Phase.generate, Phase.shrink],
        print_blob=LONG,
    )


def fuzz(short: int, long: int) -> Callable[[Any], Any]:
    """To be put above ``@given``: how many cases the test tries."""

    def decorate(test: Any) -> Any:
        inner = test.hypothesis.inner_test

        @functools.wraps(inner)
        def counted(*args: Any, **kwargs: Any) -> Any:
            COUNTS[inner.__module__.rpartition(".")[2]] += 1
            return inner(*args, **kwargs)

        test.hypothesis.inner_test = counted
        return cases(short, long)(test)

    return decorate


def result_or_refusal(call: Callable[[], Any], *allowed: type[Exception]) -> Any:
    """What ``call`` returns, or the one clear sentence of its error; any other error is a fault.

    Args:
        call: What is tried.
        allowed: Errors besides ``ValueError`` and ``TypeError``.
    """
    try:
        return call()
    except (ValueError, TypeError, *allowed) as error:
        return sentence(error)


class Refusal(str):
    """The sentence of an error."""


def sentence(error: Exception) -> Refusal:
    """The text of an error of ours: whole, of one line, and no longer than people read."""
    text = str(error)
    assert text.endswith((".", "?")) and "\n" not in text and 10 < len(text) < 1_500, f"{type(error).__name__}: {text}"
    return Refusal(text)


# What people put into YAML by mistake.
ODD_VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=5),
    st.binary(max_size=3),
    st.sampled_from(
        [2**31, 2**63, 2**64, -1, 0, 1e308, 1e-320, "0.5", "7", "null", [], {}, (), [1], {"a": 1}, 1j, object]
    ),
    st.lists(st.integers(-3, 3), max_size=3),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)
