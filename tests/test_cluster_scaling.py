"""How many processes rank on a cluster is found out by measuring: the decision alone, and climbs of simulated crews."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from test_cluster import FAST, crew_world, everything, ranked

from batchrank.cluster.run import CrewRun
from batchrank.cluster.scaling import PERIOD, Climb, Look, Scaling, decide
from batchrank.job.config import Job

QUIET = Look(rankers=2, coming=0, going=0, parts=3, held=0.0, answers=100.0)
"""Parts wait and nothing holds requests back."""


@pytest.mark.parametrize(
    ("what", "climb", "look", "change", "after"),
    [
        ("nothing is known of an outage, or a start", Climb(), replace(QUIET, answers=0), 0, Climb()),
        ("one more may do better", Climb(), QUIET, 1, Climb(1, 100)),
        ("a quarter more, where there are many", Climb(), replace(QUIET, rankers=12), 3, Climb(3, 100)),
        ("no more than parts wait", Climb(), replace(QUIET, rankers=40), 3, Climb(3, 100)),
        ("nobody waits for one", Climb(), replace(QUIET, parts=0), 0, Climb()),
        ("one fewer would do", Climb(), replace(QUIET, held=0.9), -1, Climb(-1, 100)),
        ("but one has to stay", Climb(), replace(QUIET, rankers=1, held=1), 0, Climb()),
        ("one that is coming is waited for", Climb(1, 50), replace(QUIET, coming=1), 0, Climb(1, 50)),
        ("unless slots have run out", Climb(1, 50), replace(QUIET, coming=2, held=0.6), -2, Climb(rest=6)),
        ("or parts", Climb(1, 50), replace(QUIET, coming=1, parts=0), -1, Climb(rest=6)),
        ("one that is going is waited for", Climb(-1, 50), replace(QUIET, going=1, held=1), 0, Climb(-1, 50)),
        ("a tenth more: another one at once", Climb(1, 90), QUIET, 1, Climb(1, 100)),
        ("less than that: undone", Climb(1, 91), QUIET, -1, Climb(rest=6, wrong=1)),
        ("and each time tried again later", Climb(1, 91, wrong=2), QUIET, -1, Climb(rest=24, wrong=3)),
        ("a tenth more, up to the quota: kept", Climb(1, 50), replace(QUIET, held=1), 0, Climb(rest=6)),
        ("as many with one fewer: one more goes", Climb(-1, 101), replace(QUIET, held=1), -1, Climb(-1, 100)),
        ("as many, and no slots to spare: kept", Climb(-1, 101), QUIET, 0, Climb(rest=6)),
        ("fewer with one fewer: undone", Climb(-1, 110), replace(QUIET, held=1), 1, Climb(rest=6, wrong=1)),
        ("a time of rest", Climb(rest=2, wrong=1), QUIET, 0, Climb(rest=1, wrong=1)),
    ],
)  # fmt: skip
def test_what_is_decided(what: str, climb: Climb, look: Look, change: int, after: Climb) -> None:
    """Each case of the rule."""
    assert decide(climb, look) == (after, change), what


def climbed(
    *,
    each: float,
    quota: float = float("inf"),
    account: float = float("inf"),
    start: int = 1,
    periods: int = 400,
) -> list[int]:
    """How many ranked, period by period, where each can get so many answers a second, and all no more than a limit."""
    climb, rankers, counts = Climb(), start, []
    for _ in range(periods):
        made = min(rankers * each, account)
        look = Look(rankers, 0, 0, 5, held=float(made >= quota), answers=min(made, quota))
        climb, change = decide(climb, look)
        rankers += change
        counts.append(rankers)
        assert rankers >= 1
    return counts


def settled(counts: list[int]) -> set[int]:
    """What they come to nearly all of the time in the second half."""
    half = counts[len(counts) // 2 :]
    return {count for count in set(half) if half.count(count) > len(half) / 20}


@pytest.mark.parametrize("start", [1, 2, 8, 40])
def test_a_quota_of_90_a_second_ends_at_one(start: int) -> None:
    """One process ranks several times as much."""
    assert settled(climbed(each=400, quota=90, start=start)) == {1}


@pytest.mark.parametrize("start", [1, 2, 6])
def test_where_one_is_not_enough_two_stay(start: int) -> None:
    """One fewer is tried ever more seldom, as it costs answers each time."""
    assert settled(climbed(each=50, quota=90, start=start)) == {2}


@pytest.mark.parametrize("start", [1, 3, 9])
def test_they_grow_to_what_the_account_can_do(start: int) -> None:
    """One that brings less than a tenth more is released again; those that were there at first stay."""
    assert settled(climbed(each=300, account=1_200, start=start)) == {max(4, start)}


def test_they_grow_fast_where_each_brings_its_part() -> None:
    """Forty in some 20 steps, and on."""
    assert climbed(each=10, periods=25)[-1] > 40


def beats(
    scaling: Scaling, until: float, rate: float, *, since: float = 0.0, gate: str | None = None
) -> list[int]:
    """What is said every quarter of a second while so many answers a second come."""
    said, now = [], since
    while now < until:
        said.append(scaling.beat(now, (1, 0, 0), parts=2, gate=gate, answered=int(now * rate)))
        now += 0.25
    return said


def test_a_crew_that_has_changed_is_looked_at_a_whole_period() -> None:
    """After half a one, in which who has come gets its first part."""
    scaling = Scaling()
    assert not any(beats(scaling, 1.5 * PERIOD, 100))
    assert beats(scaling, 1.5 * PERIOD + 0.5, 100, since=1.5 * PERIOD) == [1, 0]


def test_an_outage_is_no_time_to_decide() -> None:
    """Nothing is said in it, and a period begins after it."""
    scaling = Scaling()
    assert not any(beats(scaling, 60, 100, gate="outage"))
    assert not any(beats(scaling, 60 + PERIOD, 100, since=60))
    assert any(beats(scaling, 62 + 1.5 * PERIOD, 100, since=60 + PERIOD))


class Told(Scaling):
    """Says what it was told to: two more, then one fewer. Keeps the crews that it sees.

    Args:
        there: called once all three rank.
    """

    def __init__(self, there: Callable[[], None]) -> None:
        super().__init__()
        self.crews: list[tuple[int, int, int]] = []
        self._changes = {(1, 0, 0): 2, (3, 0, 0): -1}
        self._there = there

    def beat(self, now: float, crew: tuple[int, int, int], **seen: Any) -> int:
        self.crews.append(crew)
        if crew == (3, 0, 0):
            self._there()
        return self._changes.pop(crew, 0)


class Scaled(CrewRun):
    """A run with one process at first."""

    def __init__(self, job: Job, there: Callable[[], None]) -> None:
        super().__init__(job)
        self.told = Told(there)

    def _scaling(self) -> Scaling:
        return self.told


@pytest.mark.anyio
@pytest.mark.real_clock
@pytest.mark.slow
async def test_processes_come_and_go_in_the_midst_of_a_run(tmp_path: Path) -> None:
    """Two more begin, one of the three ends once it has ranked what it has: the same bytes, each request paid once."""
    async with crew_world(tmp_path, queries=400, candidates=12) as w:
        one, several = w.job("one"), w.job("several", rate=FAST | {"concurrency": 8})
        await ranked(one, 1)

        def answered_in(seconds: float) -> None:
            w.emulator.settings = replace(w.emulator.settings, latency=seconds)

        answered_in(2.0)  # until all are there, for which a busy machine may need its time
        run = Scaled(several, lambda: answered_in(0.01))
        assert (await run.execute()).exit_code == 0
        crews = list(dict.fromkeys(run.told.crews))
        settled = [crew for crew in crews if not (crew[1] or crew[2])]  # nobody coming or going
        assert settled == [(1, 0, 0), (3, 0, 0), (2, 0, 0)], crews
        assert everything(one) == everything(several)
        assert set(w.emulator.counts.billed.values()) == {2}
