"""How sending went over time, as numbers."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from batchrank.send.stats import LATENCY_BOUNDS, MOST_BINS, Timeline

attempts = st.lists(
    st.tuples(
        st.floats(0, 1e6), st.floats(0, 900), st.integers(1, 500), st.sampled_from(["ok", "429", "bad"])
    ),
    max_size=60,
)


def filled(data: list[tuple[float, float, int, str]]) -> Timeline:
    timeline = Timeline(documents=500, tokens=1000, rpm=60, tpm=60000)
    for started, seconds, documents, what in data:
        timeline.ended(
            started, started + seconds, documents=documents, tokens=2 * documents, in_flight=3,
            answered=what == "ok", throttled=what == "429",
        )  # fmt: skip
    return timeline


@given(data=attempts)
@settings(max_examples=100)
def test_nothing_is_lost_however_long_it_goes_on(data: list[tuple[float, float, int, str]]) -> None:
    """Every attempt stands in one span; the number of spans is bounded."""
    found = filled(data).data()
    series: dict[str, list[Any]] = found["series"]
    ok = [row for row in data if row[3] == "ok"]
    assert sum(series["sent"]) == len(data)
    assert sum(series["answered"]) == len(ok) == sum(found["latency"]["counts"]) == sum(found["fill"])
    assert sum(series["documents"]) == sum(row[2] for row in ok)
    assert sum(series["throttled"]) + sum(series["failed"]) == len(data) - len(ok)
    assert {len(values) for values in series.values()} <= set(range(MOST_BINS + 1))
    assert len({len(values) for values in series.values()}) == 1


def test_quota_use_is_that_of_the_scarcer_quota() -> None:
    """One request a second of 60 a minute is all of it, whatever the width of a span."""
    timeline = filled([(float(second), 0.1, 10, "ok") for second in range(2000)])
    assert timeline.width == 8
    assert set(timeline.data()["series"]["quota"][:-1]) == {1.0}


def test_latency_quantiles_are_upper_bounds() -> None:
    """Within half an octave."""
    timeline = filled([(0.0, 0.1, 1, "ok")] * 95 + [(0.0, 5.0, 1, "ok")] * 5)
    median, tail = timeline.quantile(0.5), timeline.quantile(0.99)
    assert median is not None and 0.1 <= median <= 0.15
    assert tail is not None and 5 <= tail <= 7.5
    assert Timeline().quantile(0.5) is None
    assert list(LATENCY_BOUNDS) == sorted(LATENCY_BOUNDS)


def test_fill_is_what_was_nearest_its_limit() -> None:
    """Documents or tokens."""
    timeline = Timeline(documents=100, tokens=1000, rpm=1, tpm=1)
    for documents, tokens in ((100, 10), (1, 500), (1, 1000), (10, 10)):
        timeline.ended(0, 1, documents=documents, tokens=tokens, in_flight=1, answered=True, throttled=False)
    assert timeline.fill == [0, 0, 1] + [0] * 7 + [1] + [0] * 8 + [2]


def test_the_slowest_queries_are_named() -> None:
    """Twenty of them, the slowest first; of equals the first."""
    timeline = Timeline()
    for number in range(100):
        timeline.ranked(f"q{number}", float(number % 50), 2, 10)
    found = timeline.data()["slowest"]
    assert len(found) == 20
    assert [entry["query_id"] for entry in found[:3]] == ["q49", "q99", "q48"]
