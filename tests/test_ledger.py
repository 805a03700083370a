"""The ledger: what was acknowledged is there, for one process at a time."""

import random
import sqlite3
import stat
import subprocess
import sys
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrank.data import Answer, Rejection
from batchrank.errors import LedgerError
from batchrank.ledger.checks import lost_commits
from batchrank.ledger.entries import About, Known
from batchrank.ledger.ledger import Ledger
from batchrank.ledger.rows import DAY, pack, unpack
from batchrank.ledger.state import Searches, Spent
from batchrank.pipeline.workers import background_task

pytestmark = pytest.mark.anyio
FIRST = """
CREATE TABLE answers (
    key BLOB PRIMARY KEY, scores BLOB NOT NULL, tokens INTEGER, predicted INTEGER NOT NULL, request_id TEXT NOT NULL,
    run INTEGER NOT NULL, used INTEGER NOT NULL, digest INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE rejections (
    key BLOB PRIMARY KEY, status INTEGER, code TEXT NOT NULL, message TEXT NOT NULL, request_id TEXT NOT NULL,
    run INTEGER NOT NULL, used INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE attempts (
    key BLOB NOT NULL, kind TEXT NOT NULL, status INTEGER, code TEXT NOT NULL, message TEXT NOT NULL,
    request_id TEXT NOT NULL, predicted INTEGER NOT NULL, run INTEGER NOT NULL
);
CREATE TABLE sent (key BLOB PRIMARY KEY, predicted INTEGER NOT NULL, run INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE state (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
PRAGMA user_version = 1;
"""
ANSWER = Answer(np.array([0.1, 0.25, 1 / 3]), 79, "request-1")


@asynccontextmanager
async def opened(path: Path | None) -> AsyncIterator[Ledger]:
    ledger = Ledger(path)
    async with background_task(ledger.serve):
        yield ledger
    ledger.close()


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=30))
def test_scores_survive_to_the_last_bit(scores: list[float]) -> None:
    """Compact storage loses nothing: a resumed run sees the very same numbers."""
    values = np.array(scores, dtype=np.float64)
    assert unpack(pack(values)).tobytes() == values.tobytes()


def test_single_precision_scores_take_half_the_room() -> None:
    """What servers computed in 32 bits is stored in 32 bits."""
    assert len(pack(np.array([0.1, 0.2], dtype=np.float32).astype(np.float64))) == 1 + 8
    assert len(pack(np.array([0.1, 0.2]))) == 1 + 16


async def test_an_acknowledged_answer_is_found_by_the_next_process(tmp_path: Path) -> None:
    """put() returns only when the answer is on disk."""
    path = tmp_path / "ledger.sqlite"
    async with opened(path) as ledger:
        await ledger.begin(1)
        assert (await ledger.find([b"k"])).get(b"k") is None
        await ledger.put(b"k", ANSWER, 80)
        await ledger.put(b"r", Rejection(413, "TooLarge", "too large", None, "id"), 80)
    async with opened(path) as ledger:
        await ledger.begin(2)
        known = (await ledger.find([b"k"])).get(b"k")
        assert known is not None and known.earlier
        found = known.outcome
        assert isinstance(found, Answer) and found.values.tolist() == ANSWER.values.tolist()
        assert (found.tokens, found.request_id) == (79, "request-1")
        assert (await ledger.find([b"r"])).get(b"r") == Known(
            Rejection(413, "TooLarge", "too large", None, "id"), True
        )


async def test_what_was_in_flight_at_a_kill_becomes_ambiguous(tmp_path: Path) -> None:
    """Sent, no answer received: possibly billed, so counted, and counted once."""
    path = tmp_path / "ledger.sqlite"
    async with opened(path) as ledger:
        await ledger.begin(1)
        for key in (b"answered", b"rejected", b"lost", b"killed"):
            await ledger.sent(key, 100, 3)
        await ledger.put(b"answered", ANSWER, 100)
        ledger.unsent(b"rejected")
        await ledger.put_attempt(b"lost", "ambiguous", Rejection(None, "timeout", ""), 100, 3)
        await ledger.put_attempt(b"odd", "malformed", Rejection(200, "malformed", ""), 30, 1)
        await ledger.put_attempt(b"good", "probe", Rejection(200, "probe", ""), 7, 1)
    async with opened(path) as ledger:
        spent = await ledger.begin(1)
        assert spent == Spent(
            answers=1,
            tokens=86,
            lost={(100, 3): 2, (30, 1): 1},
            probes=1,
            ratio=0.79,
            hidden=-7,
            searches=Searches(1, (1, 3)),
        )
        assert spent.requests == 5
        assert await ledger.begin(1) == spent
        assert await ledger.begin(2) == Spent(answers=0, tokens=0)


async def test_answers_without_usage_count_as_predicted() -> None:
    """A server that names no usage doesn't make a run free: prediction and documents are kept, to reckon with."""
    async with opened(None) as ledger:
        await ledger.begin(1)
        await ledger.put(b"k", Answer(np.array([1.0, 0.5])), 55)
        assert (await ledger.begin(1)).unbilled == (55, 2)


async def test_searches_are_kept_beside_tokens(tmp_path: Path) -> None:
    """A server that bills searches: they are summed up, and come back with the answer."""
    async with opened(tmp_path / "ledger.sqlite") as ledger:
        await ledger.begin(1)
        await ledger.put(b"k", Answer(np.array([1.0]), None, "", 2), 55)
        await ledger.put(b"l", Answer(np.array([1.0]), None, "", 1), 55)
        known = (await ledger.find([b"k"])).get(b"k")
        assert known is not None and isinstance(known.outcome, Answer) and known.outcome.searches == 2
        assert (await ledger.begin(1)).searches == Searches(3, (0, 0), 2.0, 1.0)
        await ledger.put(b"m", Answer(np.ones(250), None, ""), 55)
        await ledger.put_attempt(b"good", "probe", Rejection(200, "probe", ""), 7, 1)
        assert (await ledger.begin(1)).searches == Searches(4, (3, 250), 2.0, 1.0)


async def test_a_ledger_of_the_first_version_is_brought_up_to_date(tmp_path: Path) -> None:
    """No answer is lost, nothing is asked again, and what may have been billed still counts."""
    path = tmp_path / "ledger.sqlite"
    db = sqlite3.connect(path)
    db.executescript(FIRST)
    scores = pack(ANSWER.values)
    digest = zlib.crc32(b"79", zlib.crc32(scores, zlib.crc32(b"k")))
    db.execute("INSERT INTO answers VALUES (?,?,79,80,'request-1',1,1,?)", (b"k", scores, digest))
    db.execute("INSERT INTO attempts VALUES (?,'ambiguous',NULL,'timeout','','',100,1)", (b"a",))
    db.execute("INSERT INTO sent VALUES (?,50,1)", (b"s",))
    db.commit()
    db.close()
    async with opened(path) as ledger:
        spent = await ledger.begin(1)
        assert (spent.tokens, spent.lost) == (79, {(100, 0): 1, (50, 0): 1})
        known = (await ledger.find([b"k"])).get(b"k")
        assert known is not None and known.outcome.request_id == "request-1"
        await ledger.put(b"new", Answer(np.array([1.0]), None, "", 1), 5)
    async with opened(path) as ledger:
        assert (await ledger.begin(1)).answers == 2


async def test_many_writers_share_commits(tmp_path: Path) -> None:
    """What arrives while a group is being committed forms the next group."""
    async with opened(tmp_path / "ledger.sqlite") as ledger:
        await ledger.begin(1)

        async def put(number: int) -> None:
            await ledger.put(number.to_bytes(2, "big"), ANSWER, 1)

        async with anyio.create_task_group() as group:
            for number in range(200):
                group.start_soon(put, number)
        assert (await ledger.begin(1)).answers == 200


async def test_an_outcome_is_entered_before_what_comes_after_it() -> None:
    """Whoever takes a request's place while its answer waits for the disk is not noted as sent before that answer."""
    async with opened(None) as ledger:
        await ledger.begin(1)
        await ledger.sent(b"first", 5, 1)
        durable = ledger.put(b"first", ANSWER, 5)
        await ledger.sent(b"second", 7, 1)
        in_flight = await ledger.perform(lambda db: db.execute("SELECT key FROM sent").fetchall())
        assert in_flight == [(b"second",)]
        await durable  # long since on disk
        assert (await ledger.find([b"first", b"second"])).keys() == {b"first"}


async def test_state_is_kept(tmp_path: Path) -> None:
    """The run's own notes survive with the answers."""
    async with opened(tmp_path / "ledger.sqlite") as ledger:
        await ledger.save("run", {"number": 3})
    async with opened(tmp_path / "ledger.sqlite") as ledger:
        assert await ledger.load("run") == {"number": 3}
        await ledger.save("run", None)
        assert await ledger.load("run") is None


def test_only_the_owner_may_read_it(tmp_path: Path) -> None:
    """The ledger holds what was asked and answered: mode 0600, WAL included."""
    ledger = Ledger(tmp_path / "ledger.sqlite")
    for path in tmp_path.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    ledger.close()


def test_a_second_process_fails_with_a_clear_error(tmp_path: Path) -> None:
    """One process per ledger, whatever happens to the first: the lock dies with it."""
    path = tmp_path / "ledger.sqlite"
    code = (
        "import sys; from pathlib import Path; from batchrank.ledger.ledger import Ledger\n"
        "l = Ledger(Path(sys.argv[1]))\n"
    )
    first = subprocess.Popen(
        [sys.executable, "-c", code + "print('open', flush=True); sys.stdin.read()", str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert first.stdin is not None and first.stdout is not None
    assert first.stdout.readline() == b"open\n"
    with pytest.raises(LedgerError, match="another batchrank process is using this ledger"):
        Ledger(path)
    first.kill()
    first.communicate()
    Ledger(path).close()


def test_a_damaged_ledger_is_named(tmp_path: Path) -> None:
    """A file that isn't a ledger, or no longer one, stops the run before anything is sent."""
    path = tmp_path / "ledger.sqlite"
    path.write_bytes(b"not a database, certainly not one" * 100)
    with pytest.raises(LedgerError, match=r"ledger\.sqlite: the ledger is damaged"):
        Ledger(path)


async def test_a_damaged_page_is_not_mistaken_for_a_missing_answer(tmp_path: Path) -> None:
    """A corrupted page raises; taking it for an unasked request would pay twice."""
    path = tmp_path / "ledger.sqlite"
    async with opened(path) as ledger:
        await ledger.begin(1)
        for number in range(400):
            await ledger.put(number.to_bytes(16, "big"), ANSWER, 1)
    data = bytearray(path.read_bytes())
    data[4096:] = b"\xff" * (len(data) - 4096)
    path.write_bytes(data)
    with pytest.raises(LedgerError, match="damaged"):
        async with opened(path) as ledger:
            (await ledger.find([(7).to_bytes(16, "big")])).get((7).to_bytes(16, "big"))


def test_a_ledger_of_another_version_is_refused(tmp_path: Path) -> None:
    """A newer schema isn't guessed at."""
    path = tmp_path / "ledger.sqlite"
    db = sqlite3.connect(path)
    db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(LedgerError, match="schema is version 99"):
        Ledger(path)


async def test_after_a_fault_nothing_is_acknowledged(tmp_path: Path) -> None:
    """Once a commit failed, every later call fails too: no answer is used that isn't kept."""
    async with opened(tmp_path / "ledger.sqlite") as ledger:
        await ledger.begin(1)
        with pytest.raises(LedgerError):
            await ledger.perform(lambda db: db.execute("INSERT INTO nowhere VALUES (1)"))
        with pytest.raises(LedgerError):
            await ledger.put(b"k", ANSWER, 1)


SECOND = (
    FIRST.replace("digest INTEGER NOT NULL\n", "digest INTEGER NOT NULL, searches INTEGER\n")
    .replace("run INTEGER NOT NULL\n);", "run INTEGER NOT NULL, documents INTEGER NOT NULL DEFAULT 0\n);")
    .replace("run INTEGER NOT NULL) W", "run INTEGER NOT NULL, documents INTEGER NOT NULL DEFAULT 0) W")
    .replace("version = 1", "version = 2")
)


async def test_a_ledger_of_the_second_version_is_brought_up_to_date(tmp_path: Path) -> None:
    """Rows that had no checksum get one; the day of what was spent is unknown, so it counts for its run and in all."""
    path = tmp_path / "ledger.sqlite"
    db = sqlite3.connect(path)
    db.executescript(SECOND)
    scores = pack(ANSWER.values)
    digest = zlib.crc32(b"79", zlib.crc32(scores, zlib.crc32(b"k")))
    db.execute("INSERT INTO answers VALUES (?,?,79,80,'request-1',1,1,?,NULL)", (b"k", scores, digest))
    db.execute("INSERT INTO rejections VALUES (?,400,'refused','no','',1,1)", (b"r",))
    db.execute("INSERT INTO attempts VALUES (?,'ambiguous',NULL,'timeout','','',100,1,3)", (b"a",))
    db.execute("INSERT INTO sent VALUES (?,50,1,2)", (b"s",))
    db.execute("INSERT INTO state VALUES ('run/x','{\"number\":1}')")
    db.commit()
    db.close()
    for _ in range(2):
        async with opened(path) as ledger:
            spent = await ledger.begin(1)
            assert (spent.tokens, spent.lost) == (79, {(100, 3): 1, (50, 2): 1})
            assert (await ledger.spent("total")) == spent
            assert (await ledger.spent("day")).requests == 0
            assert (await ledger.find([b"k", b"r"])).keys() == {b"k", b"r"}
            assert await ledger.load("run/x") == {"number": 1}


async def test_spending_is_known_by_run_day_and_in_all(tmp_path: Path) -> None:
    """What was in flight at a kill counts for the day on which it was sent."""
    path = tmp_path / "ledger.sqlite"
    for run, tokens in ((1, 10), (2, 30)):
        ledger = Ledger(path, now=partial(float, (19_999 + run) * DAY))
        async with background_task(ledger.serve):
            await ledger.begin(run)
            await ledger.put(bytes([run]), Answer(np.array([1.0]), tokens), 5)
            await ledger.sent(b"in flight" + bytes([run]), 100, 1)
        ledger.close()
    ledger = Ledger(path, now=lambda: 20_001.5 * DAY)
    async with background_task(ledger.serve):
        found = [await ledger.begin(2), await ledger.spent("day"), await ledger.spent("total")]
    ledger.close()
    assert [(one.tokens, sum(one.lost.values())) for one in found] == [(30, 1), (30, 1), (40, 2)]


async def kept(path: Path, entries: int = 60) -> None:
    """A ledger with rows in every table, cut off as by a kill: its log beside it."""
    ledger = Ledger(path.with_name("source.sqlite"))
    async with background_task(ledger.serve):
        await ledger.begin(1)
        for number in range(entries):
            await ledger.sent(number.to_bytes(16, "big"), 9, 3)
            about = About(number // 20 + 1, bytes(24), "pass") if number % 2 else None
            by = ledger.servers["http://gpu1/rerank", f"KEY_{number % 3}"] if number % 5 else None
            await ledger.put(number.to_bytes(16, "big"), ANSWER, 9, about, by)
        await ledger.put((0).to_bytes(16, "big"), ANSWER, 9)
        await ledger.put(b"r", Rejection(400, "refused", "no"), 9, None, 1)
        await ledger.put_attempt(b"a", "ambiguous", Rejection(None, "timeout", ""), 9, 3, 2)
        await ledger.sent(b"s", 9, 3, 3)
        await ledger.save("run/x", {"number": 1})
        for suffix in ("", "-wal"):
            path.with_name(path.name + suffix).write_bytes(
                path.with_name("source.sqlite" + suffix).read_bytes()
            )
    ledger.close()


async def content(path: Path) -> Any:
    """All that is read from a ledger to decide anything."""
    async with opened(path) as ledger:
        spent = await ledger.begin(1)
        found = await ledger.find([number.to_bytes(16, "big") for number in range(60)] + [b"r"])
        known = {
            key: (one.outcome.values.tolist() if isinstance(one.outcome, Answer) else one.outcome, one.server)
            for key, one in found.items()
        }
        recollected = await ledger.recollect([1, 2, 3], before=2)
        contents = [[(one.key, *one.contents) for one in recollected[number]] for number in (1, 2, 3)]
        return spent, known, contents, await ledger.load("run/x"), ledger.servers.by_number


@pytest.mark.parametrize("every", [5, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("suffix", ["", "-wal"])
async def test_a_flipped_bit_is_a_clear_stop_or_changes_nothing(
    tmp_path: Path, suffix: str, every: int
) -> None:
    """In the file or in its log, anywhere: never another answer, a forgotten bill, or a traceback."""
    whole = tmp_path / "whole" / "ledger.sqlite"
    whole.parent.mkdir()
    await kept(whole)
    names = [whole.name, whole.name + "-wal"]
    if not suffix:  # all of it in the main file
        Ledger(whole).close()
        names = names[:1]
    data = {name: (whole.parent / name).read_bytes() for name in names}
    path = tmp_path / "ledger.sqlite"

    async def flipped(place: int) -> Any:
        for name, known in data.items():
            changed = bytearray(known)
            if name.endswith(suffix or whole.name):
                changed[place // 8 % len(changed)] ^= 1 << place % 8
            (tmp_path / name).write_bytes(changed)
        return await content(path)

    for name, known in data.items():
        (tmp_path / name).write_bytes(known)
    expected = await content(path)
    rng = random.Random(5)
    stops = 0
    for place in [rng.randrange(8 * 10**9) for _ in range(150 // every)] + list(range(0, 8 * 36, every)):
        for left in ("ledger.sqlite", "ledger.sqlite-wal", "ledger.sqlite-shm"):
            (tmp_path / left).unlink(missing_ok=True)
        try:
            assert await flipped(place) == expected
        except LedgerError as error:
            stops += 1
            assert any(word in str(error) for word in ("estore", "wait for it", "batchrank that wrote it"))
    assert stops > 50 // every


async def test_damaged_commits_can_be_given_up(tmp_path: Path) -> None:
    """Only when asked for: then what can be read before them is taken."""
    path = tmp_path / "ledger.sqlite"
    await kept(path)
    log = path.with_name(path.name + "-wal")
    data = bytearray(log.read_bytes())
    data[len(data) // 2] ^= 1
    log.write_bytes(data)
    for _ in range(2):
        with pytest.raises(LedgerError, match=r"latest commits are damaged, so nothing is sent.*--fresh"):
            Ledger(path)
    assert log.read_bytes() == data
    ledger = Ledger(path, salvage=True)
    async with background_task(ledger.serve):
        assert 0 < (await ledger.spent("total")).answers < 60
    ledger.close()


@pytest.mark.parametrize("lost", ["emptied", "removed"])
async def test_a_log_without_its_ledger_is_a_stop(tmp_path: Path, lost: str) -> None:
    """SQLite would drop the log and begin anew."""
    path = tmp_path / "ledger.sqlite"
    await kept(path)
    path.unlink() if lost == "removed" else path.write_bytes(b"")
    with pytest.raises(LedgerError, match=r"gone, or empty, and ledger.sqlite-wal .* --fresh"):
        Ledger(path)
    assert path.with_name("ledger.sqlite-wal").stat().st_size > 0


async def test_a_commit_that_was_being_written_is_no_damage(tmp_path: Path) -> None:
    """A killed process leaves the beginning of one, at any byte: what was acknowledged before it is there."""
    path = tmp_path / "ledger.sqlite"
    await kept(path)
    log = path.with_name(path.name + "-wal")
    data = log.read_bytes()
    for lacking in (1, 2_000, 4_096, 4_100, 4_119):
        log.write_bytes(data[:-lacking])
        assert not lost_commits(log), lacking


@pytest.mark.parametrize("journal", ["WAL", "DELETE"])
def test_a_file_of_another_program_is_left_alone(tmp_path: Path, journal: str) -> None:
    """Not a bit of it is changed, its log included."""
    path = tmp_path / "theirs.sqlite"
    db = sqlite3.connect(path)
    db.execute(f"PRAGMA journal_mode = {journal}")
    db.execute("CREATE TABLE precious (x)")
    db.execute("PRAGMA application_id = 77") if journal == "WAL" else None
    db.execute("INSERT INTO precious VALUES (1)")
    db.commit()
    if journal == "WAL":
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    db.close()
    before = {one.name: (one.read_bytes(), one.stat().st_mode) for one in tmp_path.iterdir()}
    with pytest.raises(LedgerError, match=r"not a ledger of batchrank; it is left alone"):
        Ledger(path)
    assert {one.name: (one.read_bytes(), one.stat().st_mode) for one in tmp_path.iterdir()} == before


async def test_the_main_file_alone_lacks_seconds_at_most(tmp_path: Path) -> None:
    """Commits are brought to it every few seconds, also when nothing follows them."""
    async with opened(tmp_path / "ledger.sqlite") as ledger:
        await ledger.begin(1)
        for number in range(10):
            await ledger.put(bytes([number]), ANSWER, 1)
        await anyio.sleep(5)
        (tmp_path / "copy.sqlite").write_bytes((tmp_path / "ledger.sqlite").read_bytes())
    async with opened(tmp_path / "copy.sqlite") as ledger:
        assert (await ledger.begin(1)).answers == 10


async def test_a_copy_holds_all_and_replaces_nothing(tmp_path: Path) -> None:
    """One file, readable by the owner alone; a file that is there stays."""
    await kept(tmp_path / "ledger.sqlite")
    ledger = Ledger(tmp_path / "ledger.sqlite")
    ledger.copy(tmp_path / "copy.sqlite")
    with pytest.raises(LedgerError, match=r"copy.sqlite: the ledger can't be copied: File exists"):
        ledger.copy(tmp_path / "copy.sqlite")
    ledger.close()
    assert stat.S_IMODE((tmp_path / "copy.sqlite").stat().st_mode) == 0o600
    assert not (tmp_path / "copy.sqlite-wal").exists()
    assert await content(tmp_path / "copy.sqlite") == await content(tmp_path / "ledger.sqlite")
