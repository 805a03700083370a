"""How many requests are in flight: what rate x latency needs, and what the server copes with."""

import itertools

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st
from servers import alone, holding

from batchrank.send.admission import Scheduler
from batchrank.send.concurrency import ConcurrencyLimit
from batchrank.send.limiter import Limiter

ANYIO = pytest.mark.anyio
FREE = 1e9
TOKENS = 1000


class Server:
    """Answers after a latency, which grows in proportion once more than ``capacity`` requests are in it."""

    def __init__(self, latency: float, capacity: float = FREE) -> None:
        self.latency, self.capacity = latency, capacity
        self.inside = self.most = 0
        self.arrivals: list[float] = []

    async def ask(self) -> float:
        self.inside += 1
        self.most = max(self.most, self.inside)
        self.arrivals.append(anyio.current_time())
        seconds = self.latency * max(1.0, self.inside / self.capacity)
        await anyio.sleep(seconds)
        self.inside -= 1
        return seconds


async def saturate(
    server: Server, places: ConcurrencyLimit, *, rpm: float, seconds: float, tpm: float = 1e15
) -> None:
    """Always have requests waiting."""
    scheduler = Scheduler(Limiter(rpm=rpm, tpm=tpm), alone(places))
    numbers = itertools.count()

    async def worker() -> None:
        while True:
            async with holding(scheduler, (next(numbers), 0, 0), TOKENS) as slot:
                latency = await server.ask()
                scheduler.answered(slot, anyio.current_time(), latency)
                scheduler.limiter.settle(slot.admission, TOKENS)

    with anyio.move_on_after(seconds):
        async with anyio.create_task_group() as group:
            group.start_soon(scheduler.serve)
            for _ in range(700):
                group.start_soon(worker)


@ANYIO
@pytest.mark.parametrize("latency", [0.02, 0.2, 2.0])
async def test_as_many_as_rate_times_latency_needs(latency: float) -> None:
    """Whatever the latency, 97% of the quota is used ten seconds on, with hardly more in flight than that takes."""
    server, began = Server(latency), anyio.current_time()
    await saturate(server, ConcurrencyLimit(None), rpm=5400, seconds=30)
    settled = sum(time >= began + 10 for time in server.arrivals)
    assert settled >= 0.97 * 90 * 20
    assert server.most <= 4 + 1.5 * 90 * latency


@ANYIO
async def test_a_need_close_to_the_most_is_granted_at_once_too() -> None:
    """Where the margin doesn't fit any more, the need does: nothing is felt out that the quota already tells."""
    server, began = Server(2.0), anyio.current_time()
    await saturate(server, ConcurrencyLimit(None), rpm=200 * 60, seconds=30)
    settled = sum(time >= began + 10 for time in server.arrivals)
    assert settled >= 0.97 * 200 * 20
    assert server.most <= 512


@ANYIO
async def test_tokens_bind_as_requests_do() -> None:
    """Where the token quota allows 10 requests a second, in flight is what 10 a second need."""
    server = Server(1.0)
    places = ConcurrencyLimit(None)
    await saturate(server, places, rpm=1e6, tpm=10 * TOKENS * 60, seconds=30)
    assert places.limit <= 4 + 1.5 * 10 * 1.01
    assert len(server.arrivals) >= 0.95 * 10 * 25


@ANYIO
async def test_a_server_at_its_limit_is_not_flooded() -> None:
    """Without a quota that binds, room that brings no more answers is taken back."""
    server = Server(0.1, capacity=20)
    await saturate(server, ConcurrencyLimit(None), rpm=1e9, seconds=20)
    assert 20 <= server.most <= 80


def feed(
    places: ConcurrencyLimit, seconds: float, *, now: float, latency: float = 1.0, waiting: bool = True
) -> float:
    """Answers of a server that copes with anything, as fast as the room allows; the time afterwards."""
    end = now + seconds
    while now < end:
        now += latency / places.limit
        places.succeeded(now, latency, FREE, waiting=waiting)
    return now


def test_it_shrinks_once_for_one_trouble_and_grows_back_step_by_step() -> None:
    """Ten time-outs at a time count as one; afterwards the limit grows by one in the time of two answers."""
    places = ConcurrencyLimit(None)
    now = feed(places, 20, now=0)
    assert places.limit == 512
    for _ in range(10):
        places.struggled(now)
    assert places.limit == 358
    now = feed(places, 20, now=now)
    assert 366 <= places.limit <= 370
    places.struggled(now)
    assert places.limit <= 0.7 * 370


def test_nothing_grows_while_nobody_waits() -> None:
    """Growth needs requests that wait for their turn."""
    places = ConcurrencyLimit(None)
    feed(places, 100, now=0, waiting=False)
    assert places.limit == 16


def test_a_fixed_number_stays() -> None:
    """What the job sets is neither raised nor lowered."""
    places = ConcurrencyLimit(7)
    now = feed(places, 10, now=0)
    places.struggled(now)
    assert places.limit == places.most == 7


@given(
    st.lists(st.tuples(st.floats(0.001, 60), st.floats(0, 1e6), st.booleans(), st.booleans()), max_size=300)
)
def test_it_is_always_between_one_and_the_most(events: list[tuple[float, float, bool, bool]]) -> None:
    """Whatever happens, at least one request may be in flight, and never more than the bound."""
    places, now = ConcurrencyLimit(None, most=64), 0.0
    for seconds, rate, waiting, trouble in events:
        now += seconds
        if trouble:
            places.struggled(now)
        else:
            places.succeeded(now, seconds, rate, waiting=waiting)
        assert 1 <= places.limit <= 64
