"""What the ledger knows of an answer beyond its request: its question, its documents, its age, and what was paid."""

import random
import sqlite3
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_ledger import FIRST, SECOND

from batchrank.data import Answer, Purpose, Rejection
from batchrank.errors import LedgerError
from batchrank.ledger.entries import About, Recollection
from batchrank.ledger.ledger import Ledger
from batchrank.ledger.paid import drop
from batchrank.ledger.rows import DAY, pack
from batchrank.ledger.schema import third_answer_checksum
from batchrank.pipeline.workers import background_task

pytestmark = pytest.mark.anyio
NOON = 20_000 * DAY + DAY // 2
"""A time, in seconds since 1970."""


@asynccontextmanager
async def opened(path: Path | None = None, *, run: int = 1, now: float = NOON) -> AsyncIterator[Ledger]:
    ledger = Ledger(path, now=lambda: now)
    async with background_task(ledger.serve):
        await ledger.begin(run)
        yield ledger
    ledger.close()


def answer(*scores: float, tokens: int | None = 10, searches: int | None = None) -> Answer:
    return Answer(np.array(scores), tokens, "", searches)


def about(question: int, *contents: int, purpose: Purpose = "pass") -> About:
    return About(question, np.array(contents, dtype="<u8").tobytes(), purpose)


def told(one: Recollection) -> tuple[Any, ...]:
    return one.contents.tolist(), one.values.tolist(), one.purpose, one.run, one.at


async def test_an_answer_is_recollected_by_its_question(tmp_path: Path) -> None:
    """With its documents by content, in the order of its request, why it was asked, when, and by which run."""
    path = tmp_path / "ledger.sqlite"
    async with opened(path) as ledger:
        await ledger.put(b"k", answer(0.5, 0.25), 9, about(-7, 2**64 - 1, 3))
        await ledger.put(b"h", answer(0.125), 9, about(-7, 3, purpose="hub"))
        await ledger.put(b"o", answer(0.5), 9, about(8, 3))
        await ledger.put(b"n", answer(0.5), 9)
    async with opened(path, run=2) as ledger:
        found = await ledger.recollect([-7, 9, 0], before=2)
        assert list(found) == [-7]
        assert [told(one) for one in found[-7]] == [
            ([3], [0.125], "hub", 1, NOON),
            ([2**64 - 1, 3], [0.5, 0.25], "pass", 1, NOON),
        ]


async def test_only_earlier_runs_and_young_answers_count(tmp_path: Path) -> None:
    """A run decides by what was known when it began, also when it is resumed; what is too old is no answer."""
    path = tmp_path / "ledger.sqlite"
    for run in (1, 2, 3):
        async with opened(path, run=run, now=NOON + run) as ledger:
            await ledger.put(bytes([run]), answer(1.0), 9, about(5, run))
    async with opened(path, run=3) as ledger:

        async def runs(before: int, since: int) -> list[int]:
            return [one.run for one in (await ledger.recollect([5], before=before, since=since)).get(5, [])]

        assert await runs(3, 0) == [1, 2]
        assert await runs(4, NOON + 2) == [2, 3]
        assert await runs(2, NOON + 2) == []


async def test_many_questions_at_one_time_by_many_callers(tmp_path: Path) -> None:
    """Each gets the answers to its own."""
    path = tmp_path / "ledger.sqlite"
    async with opened(path) as ledger:
        for number in range(1, 1_400):
            ledger.put(number.to_bytes(2, "big"), answer(1.0), 9, about(number, number))
    async with opened(path, run=2) as ledger:
        found: dict[int, dict[int, list[Recollection]]] = {}

        async def ask(part: int) -> None:
            found[part] = await ledger.recollect(range(1 + part, 1_400, 3), before=2)

        async with anyio.create_task_group() as group:
            for part in range(3):
                group.start_soon(ask, part)
        for part in range(3):
            assert found[part].keys() == set(range(1 + part, 1_400, 3))
            assert all(one[0].contents.tolist() == [number] for number, one in found[part].items())


async def test_what_is_recollected_counts_as_used(tmp_path: Path) -> None:
    """So compaction keeps it, as what is found by its request."""
    path = tmp_path / "ledger.sqlite"
    async with opened(path) as ledger:
        await ledger.put(b"k", answer(1.0), 9, about(5, 1))
        await ledger.put(b"l", answer(1.0), 9, about(6, 1))
    async with opened(path, run=2) as ledger:
        await ledger.recollect([5], before=2)
        assert await ledger.perform(lambda db: drop(db, "used < ?", (2,))) == 1
        assert (await ledger.find([b"k", b"l"])).keys() == {b"k"}


async def test_an_answer_tells_its_age() -> None:
    """Whoever finds it decides whether it is too old."""
    async with opened() as ledger:
        await ledger.put(b"k", answer(1.0), 9)
        known = (await ledger.find([b"k"])).get(b"k")
        assert known is not None and known.at == NOON


@pytest.mark.parametrize(
    "change",
    [
        "question = question + 1",
        "contents = zeroblob(16)",
        "contents = NULL",
        "purpose = 1",
        "at = at + 1",
        "known = 2",
        "scores = CAST(scores || x'00000000' AS BLOB), contents = SUBSTR(contents, 1, 12)",
    ],
)
async def test_a_changed_value_is_damage(tmp_path: Path, change: str) -> None:
    """Whatever decides about an answer's reuse is covered by its checksum."""
    path = tmp_path / "ledger.sqlite"
    async with opened(path) as ledger:
        await ledger.put(b"k", answer(1.0, 0.5), 9, about(5, 1, 2))
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute(f"UPDATE answers SET {change}")
    with pytest.raises(LedgerError, match=r"row 1 of answers is corrupt.*Restore it from a backup"):
        Ledger(path)


async def test_a_flipped_bit_where_the_questions_are_found_is_damage(tmp_path: Path) -> None:
    """An answer that can't be found would be paid again: the index is compared with the answers."""
    path = tmp_path / "ledger.sqlite"
    async with opened(path) as ledger:
        for number in range(30):
            await ledger.put(bytes([number]) * 16, answer(1.0), 9, about(0x0102030405060700 + number, 1))
    data = path.read_bytes()
    rng = random.Random(3)
    places = [at for at in range(len(data)) if data[at : at + 7] == bytes(range(1, 8))]
    assert len(places) == 60  # in its row and in the index
    for place in places:
        changed = bytearray(data)
        changed[place + rng.randrange(7)] ^= 1 << rng.randrange(8)
        path.write_bytes(changed)
        with pytest.raises(LedgerError, match="damaged"):
            Ledger(path)


THIRD = (
    SECOND.replace("searches INTEGER\n", "searches INTEGER, day INTEGER NOT NULL DEFAULT 0\n")
    .replace("used INTEGER NOT NULL\n", "used INTEGER NOT NULL, digest INTEGER NOT NULL DEFAULT 0\n")
    .replace(
        "documents INTEGER NOT NULL DEFAULT 0",
        "documents INTEGER NOT NULL DEFAULT 0, day INTEGER NOT NULL DEFAULT 0, digest INTEGER NOT NULL DEFAULT 0",
    )
    .replace("value BLOB NOT NULL)", "value BLOB NOT NULL, digest INTEGER NOT NULL DEFAULT 0)")
    .replace("version = 2", "version = 3")
)
SCORES = pack(np.array([0.5, 0.25]))
OLD_DIGEST = zlib.crc32(b"79", zlib.crc32(SCORES, zlib.crc32(b"k")))


def first(db: sqlite3.Connection) -> None:
    db.executescript(FIRST)
    db.execute("INSERT INTO answers VALUES (?,?,79,80,'one',1,1,?)", (b"k", SCORES, OLD_DIGEST))
    db.execute("INSERT INTO rejections VALUES (?,400,'refused','no','',1,1)", (b"r",))


def second(db: sqlite3.Connection) -> None:
    db.executescript(SECOND)
    db.execute("INSERT INTO answers VALUES (?,?,79,80,'one',1,1,?,NULL)", (b"k", SCORES, OLD_DIGEST))
    db.execute("INSERT INTO rejections VALUES (?,400,'refused','no','',1,1)", (b"r",))


def third(db: sqlite3.Connection) -> None:
    db.executescript(THIRD)
    db.execute("PRAGMA application_id = 0x62726B31")
    digest = third_answer_checksum(b"k", SCORES, 79, 80, "one", 1, 20_000, None)
    db.execute("INSERT INTO answers VALUES (?,?,79,80,'one',1,1,?,NULL,20000)", (b"k", SCORES, digest))
    digest = zlib.crc32(repr((b"r", 400, "refused", "no", "", 1)).encode())
    db.execute("INSERT INTO rejections VALUES (?,400,'refused','no','',1,1,?)", (b"r", digest))


FOURTH = """
CREATE TABLE answers (
    key BLOB PRIMARY KEY, run INTEGER NOT NULL, used INTEGER NOT NULL, known INTEGER NOT NULL,
    day INTEGER NOT NULL DEFAULT 0, at INTEGER NOT NULL DEFAULT 0, tokens INTEGER, predicted INTEGER NOT NULL,
    searches INTEGER, question INTEGER, purpose INTEGER, digest INTEGER NOT NULL, request_id TEXT NOT NULL,
    scores BLOB NOT NULL, contents BLOB
);
CREATE INDEX questions ON answers (question);
CREATE TABLE rejections (
    key BLOB PRIMARY KEY, status INTEGER, code TEXT NOT NULL, message TEXT NOT NULL, request_id TEXT NOT NULL,
    run INTEGER NOT NULL, used INTEGER NOT NULL, digest INTEGER NOT NULL DEFAULT 0, question INTEGER
) WITHOUT ROWID;
CREATE INDEX refused ON rejections (question);
CREATE TABLE attempts (
    key BLOB NOT NULL, kind TEXT NOT NULL, status INTEGER, code TEXT NOT NULL, message TEXT NOT NULL,
    request_id TEXT NOT NULL, predicted INTEGER NOT NULL, run INTEGER NOT NULL, documents INTEGER NOT NULL DEFAULT 0,
    day INTEGER NOT NULL DEFAULT 0, digest INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE sent (
    key BLOB PRIMARY KEY, predicted INTEGER NOT NULL, run INTEGER NOT NULL, documents INTEGER NOT NULL DEFAULT 0,
    day INTEGER NOT NULL DEFAULT 0, digest INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE TABLE state (name TEXT PRIMARY KEY, value BLOB NOT NULL, digest INTEGER NOT NULL DEFAULT 0) WITHOUT ROWID;
CREATE TABLE paid (
    run INTEGER NOT NULL, day INTEGER NOT NULL, answers INTEGER NOT NULL, tokens INTEGER NOT NULL,
    predicted INTEGER NOT NULL, documents INTEGER NOT NULL, searches INTEGER NOT NULL, expected INTEGER NOT NULL,
    unnamed INTEGER NOT NULL, ratio REAL, hidden REAL, search_ratio REAL, search_hidden REAL, digest INTEGER NOT NULL,
    PRIMARY KEY (run, day)
) WITHOUT ROWID;
PRAGMA application_id = 0x62726B31;
PRAGMA user_version = 4;
"""
CONTENTS = np.array([1, 2], dtype="<u8").tobytes()


def digest_of(*values: Any) -> int:
    """The digest of a row before schema 5, but for answers."""
    return zlib.crc32(repr(values).encode())


def fourth(
    db: sqlite3.Connection,
    question: int | None = None,
    purpose: int | None = None,
    contents: bytes | None = None,
) -> None:
    db.executescript(FOURTH)
    facts = [b"k", 1, 1, 20_000, 20_000 * DAY, 79, 80, None, question, purpose, "one"]
    lengths = len(SCORES), None if contents is None else len(contents)
    digest = zlib.crc32(repr((facts, lengths)).encode(), zlib.crc32(contents or b"", zlib.crc32(SCORES)))
    columns = "key, run, known, day, at, tokens, predicted, searches, question, purpose, request_id, scores, contents"
    db.execute(
        f"INSERT INTO answers ({columns}, digest, used) VALUES ({','.join('?' * 15)})",
        (*facts, SCORES, contents, digest, 1),
    )
    row = (b"r", 400, "refused", "no", "", 1)
    db.execute(
        "INSERT INTO rejections VALUES (?,?,?,?,?,?,1,?,?)", (*row, digest_of(*row, question), question)
    )


def written(path: Path, make: Callable[[sqlite3.Connection], object]) -> None:
    with closing(sqlite3.connect(path)) as db:
        make(db)
        db.commit()


@pytest.mark.parametrize(
    ("make", "at"), [(first, 0), (second, 0), (third, 20_000 * DAY), (fourth, 20_000 * DAY)]
)
async def test_an_older_ledger_goes_on(
    tmp_path: Path, make: Callable[[sqlite3.Connection], object], at: int
) -> None:
    """No answer is lost; one serves document by document once it is known what it is about, from the next run on."""
    path = tmp_path / "ledger.sqlite"
    written(path, make)
    async with opened(path, run=2) as ledger:
        assert ledger.legacy
        assert (await ledger.spent("total")).tokens == 79
        found = await ledger.find([b"k", b"r"])
        assert {key: (one.earlier, one.at) for key, one in found.items()} == {
            b"k": (True, at),
            b"r": (True, 0),
        }
        ledger.adopt(b"k", b"new", about(5, 1, 2))
        await ledger.adopt(b"r", b"other", about(6, 1))
        assert (await ledger.find([b"k", b"r"])) == {}
        found = await ledger.find([b"new", b"other"])
        assert found[b"other"].outcome == Rejection(400, "refused", "no")
        assert found[b"new"].earlier and await ledger.recollect([5], before=2) == {}
    async with opened(path, run=3) as ledger:
        assert not ledger.legacy
        assert (await ledger.spent("total")).tokens == 79
        (one,) = (await ledger.recollect([5], before=3))[5]
        assert told(one) == ([1, 2], [0.5, 0.25], "pass", 1, at)


async def test_a_ledger_of_the_fourth_version_lacks_nothing_but_servers(tmp_path: Path) -> None:
    """Every row is found and whole, and tells no server; what comes next tells its own."""
    path = tmp_path / "ledger.sqlite"
    lost, sent = (b"a", "ambiguous", None, "timeout", "", "", 100, 1, 3, 20_000), (b"s", 50, 1, 2, 20_000)
    paid = (1, 20_000, 1, 7, 0, 0, 0, 1, 1, None, None, None, None)

    def whole(db: sqlite3.Connection) -> None:
        fourth(db, 5, 0, CONTENTS)
        db.execute(f"INSERT INTO attempts VALUES ({','.join('?' * 11)})", (*lost, digest_of(*lost)))
        db.execute("INSERT INTO sent VALUES (?,?,?,?,?,?)", (*sent, digest_of(*sent)))
        db.execute(f"INSERT INTO paid VALUES ({','.join('?' * 14)})", (*paid, digest_of(*paid)))
        db.execute("INSERT INTO state VALUES ('run/x','{}',?)", (digest_of("run/x", "{}"),))

    written(path, whole)
    for run in (1, 2):
        async with opened(path, run=run) as ledger:
            total = await ledger.spent("total")
            assert (total.tokens, total.lost) == (86 + 10 * (run - 1), {(100, 3): 1, (50, 2): 1})
            (one,) = (await ledger.recollect([5], before=2))[5]
            assert told(one) == ([1, 2], [0.5, 0.25], "pass", 1, 20_000 * DAY) and one.server is None
            found = await ledger.find([b"k", b"r"])
            assert [found[key].server for key in (b"k", b"r")] == [None, None]
            assert found[b"r"].outcome == Rejection(400, "refused", "no") and not ledger.legacy
            assert await ledger.load("run/x") == {}
            by = ledger.servers["http://gpu1/rerank", "KEY_A"]
            await ledger.put(b"new", answer(1.0), 9, about(6, 1), by)
            assert (await ledger.find([b"new"]))[b"new"].server == by == 1


@pytest.mark.parametrize("table", ["answers", "rejections"])
async def test_damage_is_not_carried_into_the_new_schema(tmp_path: Path, table: str) -> None:
    """A row that doesn't match its checksum stops the change, which leaves the file as it was."""
    path = tmp_path / "ledger.sqlite"
    written(path, third)
    written(path, lambda db: db.execute(f"UPDATE {table} SET request_id = 'other'"))
    for _ in range(2):
        with pytest.raises(LedgerError, match="corrupt"):
            Ledger(path)
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (3,)
        assert db.execute("SELECT COUNT(*) FROM answers").fetchone() == (1,)


async def test_what_is_known_already_is_not_replaced_by_what_is_adopted(tmp_path: Path) -> None:
    """Two entries of one request: that of today's key stands, and nothing is lost."""
    path = tmp_path / "ledger.sqlite"
    written(path, third)
    async with opened(path, run=2) as ledger:
        await ledger.put(b"new", answer(1.0, tokens=5), 9, about(5, 1))
        await ledger.put(b"other", Rejection(413, "large", ""), 9)
        ledger.adopt(b"k", b"new", about(5, 1, 2))
        await ledger.adopt(b"r", b"other", None)
        found = await ledger.find([b"k", b"new", b"r", b"other"])
        assert len(found) == 4 and isinstance(found[b"new"].outcome, Answer)
        assert found[b"new"].outcome.tokens == 5
        assert found[b"other"].outcome == Rejection(413, "large", "")
    Ledger(path).close()


COSTS = st.tuples(
    st.integers(1, 300),
    st.one_of(st.none(), st.integers(0, 500)),
    st.one_of(st.none(), st.integers(0, 9)),
)
"""Documents, tokens and searches of an answer."""


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 3), COSTS), max_size=12), st.data())
async def test_what_was_paid_stays_known(entries: list[tuple[int, int, Any]], data: st.DataObject) -> None:
    """Replaced or dropped: spending by run, by day and in all is that of a ledger that kept every answer."""
    times = {1: NOON, 2: NOON, 3: NOON + DAY}
    now = [float(NOON)]
    ledger, everything = (Ledger(None, now=lambda: now[0]) for _ in range(2))

    async def spent(run: int) -> list[Any]:
        return [[await one.begin(run), await one.spent("day"), await one.spent("total")] for one in both]

    both = ledger, everything
    async with background_task(ledger.serve), background_task(everything.serve):
        for number, (key, run, (documents, tokens, searches)) in enumerate(entries):
            now[0] = times[run]
            ledger.run = everything.run = run
            one = Answer(np.ones(documents), tokens, "", searches)
            await ledger.put(bytes([key]), one, 70)
            await everything.put(bytes([number]), one, 70)
            if data.draw(st.booleans()):
                await ledger.perform(partial(drop, where="key <= ?", values=(bytes([key]),)))
        for run in (1, 2, 3):
            now[0] = times[run]
            kept, expected = await spent(run)
            assert kept == expected
    ledger.close()
    everything.close()


async def test_what_was_paid_has_a_checksum(tmp_path: Path) -> None:
    """A forgotten bill would let a cap be passed."""
    path = tmp_path / "ledger.sqlite"
    async with opened(path) as ledger:
        await ledger.put(b"k", answer(1.0), 9)
        await ledger.put(b"k", answer(0.5), 9)
        assert (await ledger.spent("run")).answers == 2
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("UPDATE paid SET tokens = 0")
    with pytest.raises(LedgerError, match="row 1 of paid is corrupt"):
        Ledger(path)


async def test_a_scored_pair_takes_few_bytes(tmp_path: Path) -> None:
    """Twelve for its content and score, and little around them: a ledger of a hundred million pairs fits a disk."""
    for documents, most in ((500, 13), (100, 15)):
        path = tmp_path / f"{documents}.sqlite"
        rng = np.random.default_rng(documents)
        async with opened(path) as ledger:
            scores = rng.random(documents, dtype=np.float32).astype(np.float64)
            for number in range(500):
                one = Answer(scores, 70_000, "8b1b7c1c-4c4b-9c5f-a7c4-3f6b0e2d9a10")
                asked = About(int(rng.integers(1, 2**62)), rng.bytes(8 * documents), "pass")
                ledger.put(number.to_bytes(2, "big") + rng.bytes(14), one, 70_000, asked)
        assert path.stat().st_size / 500 / documents < most
