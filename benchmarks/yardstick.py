"""The least that the same sending takes: a straight pipeline, which ``straight.py`` holds batchrank against.

    python benchmarks/yardstick.py URL DATA.parquet FOLDER [all]    # prints the CPU seconds of each thread as JSON

Parquet in, tokens counted exactly where bytes don't prove that a request fits (``all``: every document's), a SHA-256 of
each body as its key, a ledger with an intent before each request and its answer after it, a ranking per query in input
order, Parquet out. What is in the ledger isn't asked again. There are no retries, no limiter, no merge, no budget, no
checks of the input, no second table of queries: whoever needs those needs batchrank. Four threads:

1. The reader decodes a few queries at a time, counts, encodes and hashes, and hands them to the ledger to be looked up.
2. The ledger's thread takes what has come meanwhile from one list: a transaction, with one ``executemany`` a table.
3. The event loop sends 32 requests at a time. A request crosses three awaits: its intent, the response, the body.
   Its answer goes from the decoded list into an array in two comprehensions; nobody waits for its commit, as it is the
   ledger's thread that passes it on.
4. The writer takes 64 queries at a time, with one concatenation a column.
"""

import asyncio
import gc
import hashlib
import os
import queue
import sqlite3
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import uvloop

from batchrank.tokens import BytesCounter, counter

FLIGHT = 32
_READ, _WRITE = 8, 64
"""Queries that are read, and written, at a time."""
_UNWRITTEN = 256
"""Queries that may be under way: what bounds the memory."""
_BUDGET = 117_600
"""Tokens of a request of qwen3-rerank, less the headroom that batchrank keeps by default."""
_COUNTED = 64
"""Documents that are counted at a time until those left are proven to fit."""
_TABLES = """
PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
CREATE TABLE IF NOT EXISTS sent (key BLOB PRIMARY KEY, tokens INTEGER, documents INTEGER) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS answers (key BLOB PRIMARY KEY, scores BLOB, tokens INTEGER, id TEXT) WITHOUT ROWID;
"""
RANKING = pa.schema({
    "query_id": pa.string(), "doc_id": pa.string(), "rank": pa.int32(), "score": pa.float64(),
    "raw_score": pa.float64(), "first_stage_rank": pa.int32(), "first_stage_score": pa.float64(),
    "certified": pa.bool_(),
})  # fmt: skip


@dataclass(slots=True, eq=False)
class Item:
    """One query: what is sent, what it is ranked by, and its scores once they are known."""

    position: int
    query_id: str
    body: bytes
    key: bytes
    tokens: int
    doc_ids: Any
    first_scores: Any
    scores: Any = None


Intent = asyncio.Future[None]


class Ledger:
    """Intents and answers, committed in groups: what arrives during a commit forms the next group.

    ``committed`` is told, in the ledger's thread, of a group's intents, answered queries and queries looked up.
    """

    def __init__(self, path: Path, committed: Callable[[list[Intent], list[Item], list[Item]], None]) -> None:
        self._committed = committed
        self._entries: list[tuple[str, Any, Any]] = []
        self._some = threading.Event()
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._db.executescript(_TABLES)

    def add(self, kind: str, row: Any, whose: Any) -> None:
        """Have an entry in the next group; in whatever thread."""
        self._entries.append((kind, row, whose))
        if not self._some.is_set():
            self._some.set()

    def run(self) -> None:
        """Commit groups until there is an entry of the kind ``end``."""
        entries = self._entries
        while True:
            self._some.wait()
            self._some.clear()
            group = entries[:]  # appending is atomic: it comes into this group, or stays for the next one
            del entries[: len(group)]
            self._commit(group)
            if group and group[-1][0] == "end":
                self._db.close()
                return

    def _commit(self, group: list[tuple[str, Any, Any]]) -> None:
        db = self._db
        sent = [(row, future) for kind, row, future in group if kind == "sent"]
        answers = [(row, item) for kind, row, item in group if kind == "answer"]
        read = [item for kind, _, items in group if kind == "read" for item in items]
        db.execute("BEGIN IMMEDIATE")
        if answers:
            db.executemany("INSERT OR REPLACE INTO answers VALUES (?,?,?,?)", [row for row, _ in answers])
            db.executemany("DELETE FROM sent WHERE key = ?", [row[:1] for row, _ in answers])
        if sent:
            db.executemany("INSERT OR REPLACE INTO sent VALUES (?,?,?)", [row for row, _ in sent])
        if read:
            wanted = f"SELECT key, scores FROM answers WHERE key IN ({','.join('?' * len(read))})"
            known = dict(db.execute(wanted, [item.key for item in read]).fetchall())
            for item in read:
                if item.key in known:
                    item.scores = np.frombuffer(known[item.key])
        db.execute("COMMIT")
        self._committed([future for _, future in sent], [item for _, item in answers], read)


class Straight:
    """The pipeline from one Parquet file to one folder; ``count_all``: every document's tokens are counted."""

    def __init__(self, url: str, data: Path, folder: Path, *, count_all: bool) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._url, self._data, self._folder = url, data, folder
        self._ready: asyncio.Queue[Item | None] = asyncio.Queue()
        self._room = threading.Semaphore(_UNWRITTEN)
        self._done: dict[int, Item] = {}
        self._next = 0
        self._ranked: list[Item] = []
        self._to_write: queue.SimpleQueue[list[Item]] = queue.SimpleQueue()
        self._ledger = Ledger(folder / "ledger.sqlite", self._committed)
        self._count, self._count_all = counter("qwen").count, count_all
        self._total = -1

    async def run(self) -> dict[str, float]:
        """Rank it all; the CPU seconds of each thread."""
        began, taken = time.thread_time(), {}

        def timed(name: str, stage: Callable[[], None]) -> None:
            stage()
            taken[name] = time.thread_time()

        self._loop = asyncio.get_running_loop()
        stages = {"reader": self._read, "ledger": self._ledger.run, "writer": self._write}
        threads = [threading.Thread(target=timed, args=stage, daemon=True) for stage in stages.items()]
        for thread in threads:
            thread.start()
        connector, jar = aiohttp.TCPConnector(limit=0), aiohttp.DummyCookieJar()
        headers = {"Content-Type": "application/json"}
        async with aiohttp.ClientSession(connector=connector, cookie_jar=jar, headers=headers) as session:
            await asyncio.gather(*(self._send(session) for _ in range(FLIGHT)))
        self._ledger.add("end", None, None)
        self._to_write.put(self._ranked)
        self._to_write.put([])
        taken["loop"] = time.thread_time() - began
        for thread in threads:
            await asyncio.to_thread(thread.join)
        return taken

    def _read(self) -> None:
        position = 0
        with pq.ParquetFile(self._data, pre_buffer=False, buffer_size=1 << 20) as file:
            for batch in file.iter_batches(_READ, use_threads=False):
                candidates = batch.column("candidates")
                flat = candidates.flatten()
                texts = flat.field("text").to_pylist()
                ids, scores = flat.field("doc_id"), flat.field("score").to_numpy()
                ends = np.cumsum(candidates.value_lengths().to_numpy()).tolist()
                names, queries = batch.column("query_id").to_pylist(), batch.column("query").to_pylist()
                items = []
                for name, query, start, end in zip(names, queries, [0, *ends], ends, strict=False):
                    documents = texts[start:end]
                    body = orjson.dumps({"model": "qwen3-rerank", "query": query, "documents": documents})
                    key = hashlib.sha256(body).digest()[:16]
                    part = ids.slice(start, end - start), scores[start:end]
                    items.append(Item(position, name, body, key, self._tokens(query, documents), *part))
                    position += 1
                    self._room.acquire()
                self._ledger.add("read", None, items)
        self._loop.call_soon_threadsafe(self._end, position)

    def _tokens(self, query: str, documents: list[str]) -> int:
        """What the request is expected to cost: the query is billed with each document."""
        of_query = int(self._count([query])[0])
        if self._count_all:
            return int(self._count(documents).sum()) + of_query * len(documents)
        sizes = BytesCounter().count(documents) + of_query
        for first in range(0, len(documents), _COUNTED):
            if sizes.sum() <= _BUDGET:
                break
            some = slice(first, first + _COUNTED)
            sizes[some] = self._count(documents[some]) + of_query
        return int(sizes.sum())

    def _end(self, total: int) -> None:
        """In the loop: there is no more to read; what was read may still be on its way through the ledger."""
        self._total = total
        self._passed([], [], [])

    def _committed(self, sent: list[Intent], answered: list[Item], read: list[Item]) -> None:
        self._loop.call_soon_threadsafe(self._passed, sent, answered, read)

    def _passed(self, sent: list[Intent], answered: list[Item], read: list[Item]) -> None:
        """In the loop: what a group of the ledger lets go on."""
        for future in sent:
            future.set_result(None)
        for item in read:
            if item.scores is None:
                self._ready.put_nowait(item)
        self._done |= {item.position: item for item in (*answered, *read) if item.scores is not None}
        while (found := self._done.pop(self._next, None)) is not None:
            self._ranked.append(found)
            self._next += 1
            if len(self._ranked) == _WRITE:
                self._to_write.put(self._ranked)
                self._ranked = []
        if self._next == self._total:
            for _ in range(FLIGHT):
                self._ready.put_nowait(None)

    async def _send(self, session: aiohttp.ClientSession) -> None:
        while (item := await self._ready.get()) is not None:
            intent = self._loop.create_future()
            self._ledger.add("sent", (item.key, item.tokens, len(item.doc_ids)), intent)
            await intent
            async with session.post(self._url, data=item.body) as response:
                answer = orjson.loads(await response.read())
            results = answer["results"]
            item.scores = scores = np.full(len(item.doc_ids), np.nan)
            scores[[r["index"] for r in results]] = [r["relevance_score"] for r in results]
            if len(results) != len(scores) or not np.isfinite(scores).all():
                raise ValueError(f"{item.query_id}: not every document has a score")
            row = (item.key, scores.tobytes(), answer["usage"]["total_tokens"], answer["id"])
            self._ledger.add("answer", row, item)

    def _write(self) -> None:
        temporary, path = self._folder / ".ranking.tmp", self._folder / "ranking-00000.parquet"
        kept: dict[str, Any] = {
            "compression": "zstd",
            "use_dictionary": ["query_id"],
            "write_page_checksum": True,
        }
        with temporary.open("wb") as file:
            with pq.ParquetWriter(file, RANKING, **kept) as writer:
                while items := self._to_write.get():
                    writer.write_table(_table(items))
                    self._room.release(len(items))
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(path)


def _table(items: list[Item]) -> Any:
    """The rankings of some queries, best first."""
    counts = [len(item.scores) for item in items]
    starts = np.repeat(np.cumsum([0, *counts[:-1]]), counts)
    order = np.concatenate([np.argsort(-item.scores, kind="stable") for item in items])
    rows = order + starts
    scores = np.concatenate([item.scores for item in items])[rows]
    columns = [
        pa.array([item.query_id for item in items]).take(pa.array(np.repeat(np.arange(len(items)), counts))),
        pa.concat_arrays([item.doc_ids for item in items]).take(pa.array(rows)),
        pa.array((np.arange(1, len(rows) + 1) - starts).astype(np.int32)),
        pa.array(scores),
        pa.array(scores),
        pa.array((order + 1).astype(np.int32)),
        pa.array(np.concatenate([item.first_scores for item in items])[rows]),
        pa.array(np.ones(len(rows), dtype=bool)),
    ]
    return pa.Table.from_arrays(columns, schema=RANKING)


def main() -> None:
    """Run it, with the process set up as batchrank's is."""
    url, data, folder, *more = sys.argv[1:]
    # All others would wait for a thread that has failed.
    threading.excepthook = lambda fault: (traceback.print_exception(fault.exc_value), os._exit(1))
    sys.setswitchinterval(0.0002)
    gc.freeze()
    gc.set_threshold(100_000, 20, 20)
    pipeline = Straight(url, Path(data), Path(folder), count_all=more == ["all"])
    print(orjson.dumps(uvloop.run(pipeline.run())).decode())


if __name__ == "__main__":
    main()
