"""A store that fails for a while is tried again, for as long as a run waits for its endpoint, and no longer."""

from collections.abc import Callable
from typing import Any

import anyio
import anyio.to_thread
import pytest

from batchrank.errors import (
    BatchrankError,
    ExitCode,
    InputError,
    InterruptedRunError,
    OutputError,
    StoreAwayError,
)
from batchrank.io.patience import Patience, passing, patiently, waited_for


class Clock:
    """A time that only waiting moves on."""

    def __init__(self) -> None:
        self.now = 0.0
        self.waited: list[float] = []

    def tell(self) -> float:
        return self.now

    def wait(self, seconds: float) -> bool:
        self.waited.append(seconds)
        self.now += seconds
        return False


def caused(cause: Exception) -> OutputError:
    """As a store's errors are told."""
    error = OutputError("s3://bucket/a can't be written")
    error.__cause__ = cause
    return error


AWAY = caused(OSError("AWS Error SLOW_DOWN during PutObject operation: Please reduce your request rate."))


def failing(*errors: Exception, then: str = "done") -> Callable[[], str]:
    """Work that fails so often."""
    left = list(errors)

    def work() -> str:
        if left:
            raise left.pop(0)
        return then

    return work


class _StatusError(Exception):
    def __init__(self, status: int) -> None:
        super().__init__("the server said something")
        self.status = status


@pytest.mark.parametrize(
    ("error", "passes"),
    [
        (AWAY, True),
        (OSError("AWS Error NETWORK_CONNECTION during HeadObject operation: curlCode: 7, Could not connect"), True),
        (OSError("AWS Error UNKNOWN (HTTP status 503) during HeadObject operation: No response body."), True),
        (OSError("google::cloud::Status(UNAVAILABLE: try again)"), True),
        (caused(ConnectionResetError("peer")), True),
        (caused(TimeoutError()), True),
        (caused(_StatusError(503)), True),
        (caused(_StatusError(403)), False),
        (OSError("AWS Error ACCESS_DENIED during PutObject operation"), False),
        (OSError("AWS Error NO_SUCH_BUCKET during CreateMultipartUpload operation"), False),
        (FileNotFoundError("there is no such object"), False),
        (InputError("its columns are unknown"), False),
    ],
)  # fmt: skip
def test_what_may_pass_is_told_from_what_will_not(error: Exception, passes: bool) -> None:
    """By the words of pyarrow's stores, as they were seen, and the errors of fsspec's."""
    assert passing(error) is passes


def test_a_failure_that_passes_is_waited_for() -> None:
    """Ever longer, up to half a minute; what is waited for can be told meanwhile, and no more once it works."""
    clock, seen = Clock(), []
    patience = Patience(600, clock=clock.tell, wait=clock.wait)

    def work() -> str:
        seen.append(waited_for())
        assert seen[-1] == patience.trouble()
        return failing(*[AWAY] * (len(seen) < 8))()

    with patience.applied():
        assert patience.keep(work) == "done"
    assert waited_for() is None
    assert clock.waited == [1, 2, 4, 8, 16, 30, 30]
    assert seen[0] is None and "failed for 31 s, and is waited for: AWS Error SLOW_DOWN" in str(seen[5])
    assert patience.trouble() is None


def test_patience_ends() -> None:
    """Exit code 75; what is done next isn't waited for again, and each success begins it anew."""
    clock = Clock()
    patience = Patience(100, clock=clock.tell, wait=clock.wait)
    with pytest.raises(
        StoreAwayError, match=r"retry\.outage: 100\).*SLOW_DOWN.*run the job again later"
    ) as told:
        patience.keep(failing(*[AWAY] * 50))
    assert told.value.exit_code == ExitCode.STOPPED
    assert 60 <= clock.now <= 100
    waited = len(clock.waited)
    clock.now = 101
    with pytest.raises(StoreAwayError):
        patience.keep(failing(AWAY))
    assert len(clock.waited) == waited
    assert patience.keep(failing()) == "done"
    assert patience.keep(failing(AWAY, AWAY)) == "done"


@pytest.mark.parametrize("error", [OutputError("access denied"), FileNotFoundError("no such object")])
def test_what_will_not_pass_is_told_at_once(error: Exception) -> None:
    """As it is."""
    clock = Clock()
    with pytest.raises(type(error), match=str(error)):
        Patience(600, clock=clock.tell, wait=clock.wait).keep(failing(error))
    assert not clock.waited


def test_a_run_that_is_stopped_waits_for_nothing() -> None:
    """Whoever waits is woken, and what fails then has failed."""
    patience = Patience(600)
    patience.heed(InterruptedRunError("interrupted by SIGINT", 2))
    with pytest.raises(StoreAwayError):
        patience.keep(failing(AWAY))


@pytest.mark.anyio
async def test_it_holds_in_threads_and_tasks_of_its_context_alone() -> None:
    """A run's own writes wait; what looks at an output without a run tries once."""
    clock = Clock()
    found: list[str] = []

    async def work() -> None:
        def thread() -> str:
            return patiently(failing(AWAY))

        found.append(await anyio.to_thread.run_sync(thread))

    with Patience(600, clock=clock.tell, wait=clock.wait).applied():
        async with anyio.create_task_group() as group:
            group.start_soon(work)
    assert found == ["done"] and clock.waited == [1]
    with pytest.raises(BatchrankError) as told:
        await anyio.to_thread.run_sync(_once)
    assert told.value is AWAY


def _once() -> Any:
    return patiently(failing(AWAY))
