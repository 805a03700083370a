import asyncio
import queue
import threading
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

import aiohttp
import anyio
import anyio.to_thread
import pytest
from aiohttp import web
from aiolimiter import AsyncLimiter
from hypothesis import given, settings
from hypothesis import strategies as st
from virtual_time import START, DeadlockError, VirtualTimeLoop, busy_while

pytestmark = pytest.mark.anyio


def now() -> float:
    return asyncio.get_running_loop().time()


@asynccontextmanager
async def serving(handler: Callable[[web.Request], object]) -> AsyncIterator[str]:
    """A server on loopback; yields its URL."""
    app = web.Application()
    app.router.add_route("*", "/", handler)  # type: ignore[arg-type]
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/"
    finally:
        await runner.cleanup()


async def test_a_day_passes_at_once() -> None:
    """Sleeping takes virtual time only, starts at a fixed value and lands late, never early."""
    began = time.monotonic()
    assert now() == START
    await anyio.sleep(86_400 * 3)
    assert 0 < now() - START - 86_400 * 3 < 1e-4
    assert time.monotonic() - began < 5


async def test_order_is_that_of_the_timers() -> None:
    """Sleepers wake in the order of their deadlines, whatever the order in which they began."""
    woken: list[int] = []

    async def sleeper(seconds: int) -> None:
        await asyncio.sleep(seconds)
        woken.append(seconds)

    async with anyio.create_task_group() as tasks:
        for seconds in (30, 10, 20):
            tasks.start_soon(sleeper, seconds)
    assert woken == [10, 20, 30]


async def test_aiolimiter_keeps_its_rate() -> None:
    """1,000 acquisitions at 10 a second take 100 s less the burst, with no hang on float residue."""
    limiter = AsyncLimiter(2, 0.2)
    for _ in range(1000):
        await limiter.acquire()
    assert now() - START == pytest.approx(99.8, abs=0.1)


async def test_a_timer_for_now_is_due_a_moment_later() -> None:
    """Who sets a timer for "now" until time has passed is not stuck, as on a real clock."""
    loop, began, passed = asyncio.get_running_loop(), now(), asyncio.Event()

    def look() -> None:
        if now() > began:
            passed.set()
        else:
            loop.call_at(now(), look)

    look()
    await passed.wait()
    assert now() - began < 1e-5


async def test_a_slow_server_answers_in_time() -> None:
    """A latency below the client's time-out is waited for; 200 requests of 1 s in parallel take 1 s."""

    async def slow(request: web.Request) -> web.Response:
        body = await request.read()
        await asyncio.sleep(1)
        return web.Response(body=body)

    async with serving(slow) as url, aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=3)) as session:

        async def ask(i: int) -> None:
            async with session.post(url, data=bytes(100_000) + b"%d" % i) as response:
                assert (await response.read()).endswith(b"%d" % i)

        async with anyio.create_task_group() as tasks:
            for i in range(200):
                tasks.start_soon(ask, i)
    assert 1 <= now() - START < 2.5  # two batches, of the client's 100 connections


async def test_a_time_out_fires_at_its_time() -> None:
    """A server that never answers costs exactly the client's time-out."""

    async def silent(request: web.Request) -> web.Response:
        await asyncio.sleep(1000)
        return web.Response()

    async with (
        serving(silent) as url,
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=3)) as session,
    ):
        with pytest.raises(asyncio.TimeoutError):
            await session.get(url)
        assert now() - START == pytest.approx(3, abs=0.01)


def work() -> int:
    """Take real time, as SQLite or a file does."""
    end = time.monotonic() + 0.05
    while time.monotonic() < end:
        sum(range(1000))
    return threading.get_ident()


@pytest.mark.parametrize("where", ["anyio", "to_thread", "executor"])
async def test_the_clock_stands_still_while_a_thread_works(where: str) -> None:
    """No time-out fires because a worker thread takes real time, and none passes meanwhile."""
    async with asyncio.timeout(0.001):
        if where == "anyio":
            await anyio.to_thread.run_sync(work)
        elif where == "to_thread":
            await asyncio.to_thread(work)
        else:
            with ThreadPoolExecutor(1) as threads:
                await asyncio.get_running_loop().run_in_executor(threads, work)
    assert now() == START
    await asyncio.sleep(5)
    assert now() == pytest.approx(START + 5)


class Writer(threading.Thread):
    """A thread of one's own that answers through ``call_soon_threadsafe``."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.tasks: queue.SimpleQueue[asyncio.Future[int] | None] = queue.SimpleQueue()
        self.pending = 0

    def busy(self) -> bool:
        return self.pending > 0

    def ask(self) -> "asyncio.Future[int]":
        future = asyncio.get_running_loop().create_future()
        self.pending += 1
        self.tasks.put(future)
        return future

    def answer(self, future: "asyncio.Future[int]", value: int) -> None:
        self.pending -= 1
        future.set_result(value)

    def run(self) -> None:
        while (future := self.tasks.get()) is not None:
            value = work()
            future.get_loop().call_soon_threadsafe(self.answer, future, value)


async def test_a_thread_that_says_it_is_busy_is_waited_for() -> None:
    """A thread with a ``busy`` method freezes the clock while it has work, and only then."""
    writer = Writer()
    writer.start()
    async with asyncio.timeout(0.001):
        await writer.ask()
    assert now() == START
    await asyncio.sleep(1)
    writer.tasks.put(None)
    writer.join()


async def test_a_predicate_freezes_the_clock() -> None:
    """``busy_while`` covers what no other rule sees."""
    done = asyncio.Event()
    loop = asyncio.get_running_loop()

    def plain_thread() -> None:
        work()
        loop.call_soon_threadsafe(done.set)

    with busy_while(lambda: not done.is_set()):
        thread = threading.Thread(target=plain_thread)
        thread.start()
        async with asyncio.timeout(0.001):
            await done.wait()
    thread.join()
    assert now() == START


def test_a_deadlock_fails() -> None:
    """A wait that nothing can end raises instead of hanging; a listening server doesn't hide it."""

    async def stuck() -> None:
        async def never(request: web.Request) -> web.Response:
            return web.Response()

        async with serving(never):
            await asyncio.Event().wait()

    with (
        pytest.raises(DeadlockError, match="no timer, I/O or thread"),
        asyncio.Runner(loop_factory=VirtualTimeLoop) as runner,
    ):
        runner.run(stuck())


async def test_advance_stands_for_a_busy_loop() -> None:
    """``advance`` makes timers late, as a callback that keeps the loop busy would."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualTimeLoop)
    loop.call_later(1, loop.advance, 2)
    await asyncio.sleep(1.5)
    assert now() >= START + 3


@given(st.floats(0, 1e5))
@settings(max_examples=20)
async def test_each_example_starts_anew(seconds: float) -> None:
    """Under hypothesis every example has a loop of its own, with the same start."""
    assert now() == START
    await asyncio.sleep(seconds)
    assert now() >= START + seconds


@pytest.mark.real_clock
async def test_the_real_clock_on_demand() -> None:
    """A test marked ``real_clock`` runs on an ordinary loop."""
    assert not isinstance(asyncio.get_running_loop(), VirtualTimeLoop)
