"""One quota for several jobs of a host: what is asked and answered at the socket, and who keeps the quota."""

import asyncio
import os
import socket
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import orjson
import pytest
from limiter_traffic import MANY, fullest, now

from batchrank.data import Rejection
from batchrank.errors import JobError
from batchrank.job.load import load_job
from batchrank.pipeline.workers import background_task, unwrap_exception_groups
from batchrank.send import account_files
from batchrank.send.account import Account
from batchrank.send.account_files import AccountFiles, Departure, user_folder
from batchrank.send.connections import Key
from batchrank.send.holder import PROTOCOL, Terms
from batchrank.send.keyring import Keyring
from batchrank.send.limiter import Limiter
from batchrank.send.rate import RateLimiter

ANYIO = pytest.mark.anyio


def quota(terms: Terms, keys: Sequence[Key], before: Sequence[Departure]) -> RateLimiter:
    by = {
        key: Limiter(rpm=terms.rpm, tpm=terms.tpm, before=[d[:2] for d in before if d[2] in ("", key.name)])
        for key in keys
    }
    return Keyring(by) if len(by) > 1 else by[keys[0]]


@asynccontextmanager
async def joined(
    folder: Path, rpm: float = 600, *, name: str = "job", keys: Sequence[str] = (), tpm: float = MANY
) -> AsyncIterator[Account]:
    """A job that shares an account for the length of the block."""
    terms = Terms(rpm, tpm, tuple(keys))
    made = [Key(f"sk-{key}", key) for key in keys] or [Key("sk")]
    who = {"job": name, "pid": os.getpid()}
    account = Account(AccountFiles("a", folder), terms, made, partial(quota, terms, made), [], who)
    async with background_task(account.serve):
        await account.joined()
        yield account


async def saturate(account: Account, until: float, sent: list[tuple[float, int]], lanes: int = 0) -> None:
    """Always ask for as many admissions as it wants asked for, and send at once."""

    async def lane() -> None:
        while now() < until:
            admission = await account.acquire(10)
            account.departed(admission)
            sent.append((now(), 10))
            account.settle(admission, 10)

    await asyncio.gather(*(lane() for _ in range(lanes or account.ahead)))


@ANYIO
async def test_jobs_use_the_whole_quota_and_never_more(tmp_path: Path) -> None:
    """Three jobs that always have a request ready share 97% of it, equally."""
    sent: list[list[tuple[float, int]]] = [[], [], []]
    async with AsyncExitStack() as stack:
        jobs = [await stack.enter_async_context(joined(tmp_path)) for _ in sent]
        await asyncio.gather(*(saturate(job, now() + 70, mine) for job, mine in zip(jobs, sent, strict=True)))
    every = sorted(entry for mine in sent for entry in mine)
    assert fullest(every, 1)[0] <= 10 and fullest(every, 60)[0] <= 600
    assert sum(1010 <= at < 1070 for at, _ in every) >= 0.97 * 600
    assert max(map(len, sent)) - min(map(len, sent)) <= 2


@ANYIO
async def test_a_large_job_does_not_starve_a_small_one(tmp_path: Path) -> None:
    """However many admissions the one asks for ahead, each that the other asks for is the next but one."""
    large: list[tuple[float, int]] = []
    async with joined(tmp_path) as one, joined(tmp_path) as other:
        task = asyncio.ensure_future(saturate(one, now() + 20, large, lanes=200))
        await asyncio.sleep(10)
        waits = []
        for _ in range(10):
            began = now()
            other.departed(await other.acquire(1))
            waits.append(now() - began)
        task.cancel()
    assert max(waits) <= 0.35  # two requests of ten a second, and the one that is under way


@ANYIO
async def test_when_who_keeps_it_ends_another_goes_on_within_the_quota(tmp_path: Path) -> None:
    """Four jobs, one after the other of which ends: no second and no minute is ever above."""
    sent: list[tuple[float, int]] = []

    async def job(seconds: float) -> None:
        async with joined(tmp_path) as account:
            await saturate(account, now() + seconds, sent)

    await asyncio.gather(*(job(seconds) for seconds in (7, 14, 21, 40)))
    assert fullest(sent, 1)[0] <= 10 and fullest(sent, 60)[0] <= 600
    assert len(sent) >= 0.8 * 400


@ANYIO
async def test_a_minute_is_remembered_by_who_takes_over(tmp_path: Path) -> None:
    """At six a minute, all sent by a job that is gone: the next one waits for the minute to pass."""
    async with joined(tmp_path, 6) as account:
        for _ in range(6):
            await account.acquire(1)
        last = now()
    async with joined(tmp_path, 6) as account:
        await account.acquire(1)
        assert now() >= last + 10  # the pace; and never seven in a minute
        for _ in range(5):
            await account.acquire(1)
    assert now() >= 1060


@ANYIO
async def test_a_429_of_one_slows_all(tmp_path: Path) -> None:
    """The account is told to wait, not the job."""
    async with joined(tmp_path) as one, joined(tmp_path) as other:
        one.throttled("requests", 30.0, sent=now())
        await asyncio.sleep(0.01)
        began = now()
        await other.acquire(1)
        assert now() - began >= 29
        assert one.stats().throttled["requests"] == 1


@ANYIO
async def test_a_key_that_is_refused_rests_for_all(tmp_path: Path) -> None:
    """What one job learns of a key the others need not learn; the last key is nobody's to take out."""
    why = Rejection(402, "Arrearage", "unpaid")
    async with joined(tmp_path, keys=["A", "B"]) as one, joined(tmp_path, keys=["A", "B"]) as other:
        await asyncio.sleep(2)
        admission = await one.acquire(1)
        gone = admission.key
        assert gone is not None and one.refused(admission, why, certain=True)
        await asyncio.sleep(0.1)
        by = [(await other.acquire(1)).key for _ in range(8)]
        assert gone.name not in {key.name for key in by if key}
        last = await other.acquire(1)
        assert not other.refused(last, why, certain=True)
        assert [state["out"] is None for state in other.states()] == [gone.name != "A", gone.name != "B"]
        assert any(gone.name in notice for notice in other.notices)


@ANYIO
async def test_other_terms_are_an_error_that_names_both(tmp_path: Path) -> None:
    """Another quota, other keys: said before anything is sent, with whose job says otherwise."""
    async with joined(tmp_path, 600, name="nightly"):
        for terms, said in (({"rpm": 300}, "rate.rpm 300"), ({"keys": ["A", "B"]}, "keys A, B")):
            with pytest.raises(JobError) as caught, unwrap_exception_groups():
                async with joined(tmp_path, **terms):
                    pytest.fail("it must not take part")
            assert said in str(caught.value) and "job nightly (process" in str(caught.value)
            assert "rate.rpm 600" in str(caught.value) and "write the same in both" in str(caught.value)


async def raw(folder: Path) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_unix_connection(AccountFiles("a", folder).socket)
    assert orjson.loads(await reader.readline())[0] == "welcome"
    return reader, writer


@ANYIO
@pytest.mark.parametrize(
    "line",
    [b"\xff\x00\n", b"{}\n", b"17\n", b'["ask"]\n', b'["ask", "x", 1]\n', b'["what", 1]\n', b"x" * 2**21 + b"\n",
     b'["throttled", "of", null, null, ""]\n', b"[" * 10_000 + b"\n"],
)  # fmt: skip
async def test_a_garbled_line_cuts_off_who_sent_it(tmp_path: Path, line: bytes) -> None:
    """And nobody else: the others go on."""
    async with joined(tmp_path) as account:
        reader, writer = await raw(tmp_path)
        writer.write(line)
        with suppress(ConnectionResetError):
            while await reader.readline():
                pass
        writer.close()
        await account.acquire(1)
        assert len(account.states()) == 0


@ANYIO
async def test_a_client_that_dies_with_an_admission_costs_that_and_no_more(tmp_path: Path) -> None:
    """What it was admitted may have been sent, so it counts; what it asked for besides is forgotten."""
    async with joined(tmp_path) as account:
        reader, writer = await raw(tmp_path)
        for number in range(50):
            writer.write(orjson.dumps(["ask", number, 1]) + b"\n")
        granted = 0
        while granted < 3:
            granted += orjson.loads(await reader.readline())[0] == "grant"
        writer.close()
        await asyncio.sleep(2)
        sent: list[tuple[float, int]] = []
        await saturate(account, now() + 20, sent)
    assert len(sent) >= 0.9 * 200


@ANYIO
async def test_what_is_held_up_counts_until_it_leaves(tmp_path: Path) -> None:
    """A job that is held up with five admissions, and sends them seconds later, passes no second with the others."""
    sent: list[tuple[float, int]] = []
    async with joined(tmp_path) as slow, joined(tmp_path) as other:
        await asyncio.sleep(10)
        for _ in range(20):  # the slow start is over
            await other.acquire(10)
        held = [await slow.acquire(10) for _ in range(5)]
        task = asyncio.ensure_future(saturate(other, now() + 10, sent))
        await asyncio.sleep(3.3)
        for admission in held:
            slow.departed(admission)
            sent.append((now(), 10))
        await task
    assert fullest(sorted(sent), 1)[0] <= 10
    assert len(sent) >= 75  # what was held up took its place in each second


@ANYIO
async def test_what_is_given_up_takes_no_place_for_long(tmp_path: Path) -> None:
    """Admissions of which nobody tells any more count for some seconds."""
    sent: list[tuple[float, int]] = []
    async with joined(tmp_path) as gone, joined(tmp_path) as other:
        for _ in range(9):
            await gone.acquire(10)
        await asyncio.sleep(7)
        await saturate(other, now() + 10, sent)
    assert len(sent) >= 85


@asynccontextmanager
async def keeper(folder: Path, grants: Any) -> AsyncIterator[Counter[str]]:
    """A process that keeps the quota as a test says; what it heard."""
    heard: Counter[str] = Counter()
    writers: list[asyncio.StreamWriter] = []
    files = AccountFiles("a", folder)
    lock = files.lock()
    assert lock is not None

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        terms = {"rpm": 600, "tpm": MANY, "keys": [], "protocol": PROTOCOL}
        writer.write(orjson.dumps(["welcome", terms, {"job": "odd", "pid": 17}]) + b"\n")
        while line := await reader.readline():
            what, *content = orjson.loads(line)
            heard[what] += 1
            if what == "ask":
                await grants(heard["ask"], content[0], writer)
        writer.close()

    server = await asyncio.start_unix_server(serve, files.socket)
    try:
        yield heard
    finally:
        server.close()
        for writer in writers:
            writer.transport.abort()
        lock.close()


@ANYIO
async def test_one_that_hangs_is_waited_for_and_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Silent for more than five seconds: nothing is sent, it is said whom the job waits for, and then it goes on.

    What was admitted before the silence would leave in another second than its own, so it is asked for again.
    """

    async def grants(asks: int, number: int, writer: asyncio.StreamWriter) -> None:
        at = now()
        if asks == 1:
            await asyncio.sleep(6)
        writer.write(orjson.dumps(["grant", number, at, 1, "", 10.0]) + b"\n")

    async with keeper(tmp_path, grants) as heard, joined(tmp_path) as account:
        began = now()
        admission = await account.acquire(1)
        assert now() - began >= 6 and admission.at - began >= 6 and heard["ask"] == 2
    (told,) = [record.message for record in caplog.records if "silent" in record.message]
    assert "(job odd, process 17) has been silent for 5 s" in told


@ANYIO
async def test_one_that_garbles_is_asked_anew(tmp_path: Path) -> None:
    """The connection is made again, and what was asked is asked again."""

    async def grants(asks: int, number: int, writer: asyncio.StreamWriter) -> None:
        good = orjson.dumps(["grant", number, now(), 1, "", 10.0])
        writer.write((good if asks > 3 else [b"\xff{", b'["grant"]', b"7"][asks - 1]) + b"\n")

    async with keeper(tmp_path, grants) as heard, joined(tmp_path) as account:
        await account.acquire(1)
        assert heard["ask"] == 4


@ANYIO
async def test_what_waits_when_it_is_killed_is_asked_of_the_next(tmp_path: Path) -> None:
    """An ask that nobody answered is this process's own to answer, once the other one is gone."""

    async def grants(asks: int, number: int, writer: asyncio.StreamWriter) -> None:
        """It never answers."""

    async with AsyncExitStack() as stack:
        await stack.enter_async_context(keeper(tmp_path, grants))
        async with joined(tmp_path) as account:
            waiting = asyncio.ensure_future(account.acquire(1))
            await asyncio.sleep(1)
            assert not waiting.done()
            await stack.aclose()
            await asyncio.wait_for(waiting, 5)


@ANYIO
async def test_departures_are_kept_for_a_minute_in_two_files(tmp_path: Path) -> None:
    """Over hours the files stay small, and the last minute is always in them; bills have changed what they say."""
    files = AccountFiles("a", tmp_path)
    kept = files.departures(0.0)
    sent = []
    for second in range(7200):
        kept.note(float(second), 100, "A")
        kept.note(float(second), -40, "A", requests=0)
        sent.append(second)
        if second % 37 == 0:
            another = files.departures(second + 0.5)
            found = another.before
            another.close()
            recent = [at for at in sent if at >= second + 0.5 - 60]
            assert len(found) >= len(recent) and {(tokens, key) for _, tokens, key in found} == {(60, "A")}
            assert all(0 <= ago <= 61 for ago, _, _ in found)
    kept.close()
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 20_000  # noqa: ASYNC240 a test's own files


def test_a_line_that_was_cut_short_tells_nothing(tmp_path: Path) -> None:
    """A process that is killed while it writes leaves half a line; another boot's times are none."""
    files = AccountFiles("a", tmp_path)
    kept = files.departures(100.0)
    kept.note(100.0, 7, "")
    kept.note(5000.0, 8, "")
    kept.close()
    for path in tmp_path.glob("*.log"):
        if path.stat().st_size:
            path.write_bytes(path.read_bytes() + b"[100.5, 1, 9")
    again = files.departures(101.0)
    again.close()
    assert [tokens for _, tokens, _ in again.before] == [7]


def test_one_of_many_has_the_lock(tmp_path: Path) -> None:
    """Of several that try one wins; when it is gone, another one does, also where the file was removed meanwhile."""
    files = [AccountFiles("a", tmp_path) for _ in range(3)]
    (won,) = [lock for one in files if (lock := one.lock()) is not None]
    other = AccountFiles("b", tmp_path).lock()
    won.close()
    again = files[1].lock()
    assert other is not None and again is not None and files[2].lock() is None
    with again, other:
        for path in tmp_path.glob("*.lock"):
            path.unlink()
        third = files[2].lock()
        assert third is not None
        third.close()


def test_the_folder_is_the_users_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody else may enter it; what somebody else put there is refused."""
    monkeypatch.setattr(account_files, "_SHARED", tmp_path)
    folder = user_folder()
    assert folder.stat().st_mode & 0o777 == 0o700 and user_folder() == folder
    folder.chmod(0o755)
    with pytest.raises(JobError, match="only you can enter"):
        user_folder()
    folder.rmdir()
    folder.symlink_to(tmp_path)
    with pytest.raises(JobError, match="only you can enter"):
        user_folder()


def test_what_a_job_may_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """account and share exclude each other; a platform without Unix sockets is told."""

    def load(**rate: Any) -> None:
        path = tmp_path / "job.yaml"
        job = {"input": {"path": "x"}, "model": "qwen3-rerank", "output": {"path": "o"}, "rate": rate}
        path.write_bytes(orjson.dumps(job))
        load_job(path, environ={})

    load(account="a")
    with pytest.raises(JobError, match="line 1: rate: account and share exclude each other"):
        load(account="a", share="1/4")
    monkeypatch.delattr(socket, "AF_UNIX")
    with pytest.raises(JobError, match=r"rate: account needs Unix sockets.*rate\.share: 1/4"):
        load(account="a")
