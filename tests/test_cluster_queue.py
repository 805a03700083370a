"""Parts between the process that reads and those that rank: each is ranked by one, whoever dies when."""

from pathlib import Path

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrank.cluster.queue import DEATHS, NO_PART, Hands, PartQueue
from batchrank.cluster.stage import StagedPart

pytestmark = pytest.mark.anyio


def part(number: int) -> StagedPart:
    """A part of ten items."""
    return StagedPart(number, 10 * number, 10, Path(f"part-{number}"))


async def test_a_process_that_died_while_it_waited_gets_nothing() -> None:
    """Its call still waits here when the next part comes: that goes to one that lives, and isn't lost."""
    queue, dead, alive = PartQueue(4), Hands(), Hands()
    found: list[StagedPart | None] = []

    async def take(hands: Hands) -> None:
        found.append(await queue.take(hands))

    async with anyio.create_task_group() as group:
        group.start_soon(take, dead)
        await anyio.wait_all_tasks_blocked()
        assert queue.give_back(dead) == []
        await anyio.wait_all_tasks_blocked()
        await queue.put(part(0))
        group.start_soon(take, alive)
    assert found == [None, part(0)]
    assert list(alive.parts) == [0] and not dead.parts


async def test_parts_of_a_dead_process_come_first_again() -> None:
    """The first of the input first, as later parts wait for what part 0 comes to."""
    queue, dead, alive = PartQueue(9), Hands(), Hands()
    for number in range(4):
        await queue.put(part(number))
    queue.end()
    assert [await queue.take(dead), await queue.take(dead)] == [part(0), part(1)]
    queue.give_back(dead)
    assert [await queue.take(alive) for _ in range(5)] == [part(0), part(1), part(2), part(3), None]


async def test_the_part_that_others_wait_for_is_not_put_behind_them() -> None:
    """Whoever holds later parts may be full of queries that wait for what part 0 comes to, and would never get to it.

    It waits here for who has nothing at hand, as the process that replaces the dead one; the end of the input, too.
    """
    queue, dead, full, fresh = PartQueue(9), Hands(), Hands(), Hands()
    for number in range(3):
        await queue.put(part(number))
    queue.end()
    assert [await queue.take(dead), await queue.take(full)] == [part(0), part(1)]
    queue.give_back(dead)
    assert await queue.take(full) == part(2)
    found: list[StagedPart | None] = []

    async def take(hands: Hands) -> None:
        found.append(await queue.take(hands))

    async with anyio.create_task_group() as group:
        assert queue.stuck([full]) and not queue.stuck([full, fresh])
        group.start_soon(take, full)
        await anyio.wait_all_tasks_blocked()
        assert found == []
        group.start_soon(take, fresh)
    assert found == [part(0), None] or found == [None, part(0)]
    assert list(fresh.parts) == [0] and not queue.stuck([full, fresh])


async def test_the_reader_waits_for_room() -> None:
    """No more lies ahead than is of use, however fast it reads."""
    queue, hands, put = PartQueue(2), Hands(), list[int]()

    async def read() -> None:
        for number in range(4):
            await queue.put(part(number))
            put.append(number)
        queue.end()

    async with anyio.create_task_group() as group:
        group.start_soon(read)
        await anyio.wait_all_tasks_blocked()
        assert put == [0]
        assert await queue.take(hands) == part(0)
        await anyio.wait_all_tasks_blocked()
        assert put == [0, 1]
        while await queue.take(hands) is not None:
            await anyio.wait_all_tasks_blocked()
    assert put == [0, 1, 2, 3]


async def test_a_part_that_kills_again_and_again_is_told() -> None:
    """So are processes that die before they had any; one that begins shows that this is over."""
    queue = PartQueue(4)
    await queue.put(part(0))
    for death in range(1, DEATHS + 1):
        hands = Hands()
        await queue.take(hands)
        assert queue.give_back(hands) == ([0] if death == DEATHS else [])
    assert [queue.died() for _ in range(DEATHS - 1)] == [[]] * (DEATHS - 1)
    queue.began()
    assert [queue.died() for _ in range(DEATHS)][-1] == [NO_PART]


async def test_who_waits_when_the_run_stops_is_let_go() -> None:
    """The reader and those who rank alike."""
    queue = PartQueue(1)
    async with anyio.create_task_group() as group:
        group.start_soon(queue.put, part(0))
        await anyio.wait_all_tasks_blocked()
        queue.close()
    assert await queue.take(Hands()) is None


@given(st.lists(st.sampled_from(["put", "take", "die", "finish"]), max_size=60))
async def test_no_part_is_lost_or_ranked_twice(steps: list[str]) -> None:
    """Whatever happens in whatever order, each part is in one place."""
    queue, crew, laid, done = PartQueue(10**6), [Hands() for _ in range(3)], 0, list[int]()
    for at, step in enumerate(steps):
        who = at % len(crew)
        if step == "put":
            await queue.put(part(laid))
            laid += 1
        elif step == "take":
            with anyio.move_on_after(1):  # there may be none, or only part 0, which isn't for all
                assert await queue.take(crew[who]) is not None
        elif step == "die":
            queue.give_back(crew[who])
            crew[who] = Hands()
        elif step == "finish" and crew[who].parts:
            done.append(crew[who].parts.popitem()[0])
    queue.end()
    held = [number for one in crew for number in one.parts]
    last = Hands()
    while await queue.take(last) is not None:
        pass
    assert sorted([*done, *held, *last.parts]) == list(range(laid))
