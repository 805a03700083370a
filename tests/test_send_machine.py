"""Sender, policy, spend and ledger through random sequences of faults, cut-offs and restarts, in virtual time."""

import random
import shutil
import tempfile
from pathlib import Path
from typing import Any

import anyio
import numpy as np
from against import KEY, PATH
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from virtual_time import VirtualTimeLoop

from batchrank.data import Candidate, Query
from batchrank.emulator.app import Emulator
from batchrank.emulator.relevance import relevance
from batchrank.emulator.settings import Settings
from batchrank.errors import BatchrankError, QueryError, StoppedError
from batchrank.job.config import Job
from batchrank.ledger.ledger import Ledger
from batchrank.merge.verdict import Verdicts
from batchrank.outcomes import Chunk, Scores
from batchrank.pipeline.assemble import engine, sharder
from batchrank.pipeline.workers import background_task
from batchrank.send.budget import Before, Taken
from batchrank.send.requests import QueryContext
from batchrank.send.spend import Spend
from batchrank.send.stats import Meter

PASSING = [
    "500", "503+html", "429-requests", "429-tokens", "429-growth", "429+after-absurd", "408", "500+in-200",
    "500+nested",
    "score-nan", "index-duplicate", "results-fewer", "json-truncated", "json-deep", "html-200", "usage-missing",
    "usage-negative", "reset-before-headers", "answer-dropped", "close-mid-body", "silence-after-headers",
    "stale-keep-alive",
]  # fmt: skip
DECIDING = ["400-inspection", "413", "400-too-large", "400-parameter", "401", "429-free-quota"]
CAP = 60_000


class Sending(RuleBasedStateMachine):
    """One account and one ledger; each rule that sends is a process of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = VirtualTimeLoop()
        self.folder = Path(tempfile.mkdtemp())
        self.faults: dict[str, float] = {}
        self.script: dict[int, str] = {}
        self.acknowledged: dict[bytes, list[float]] = {}
        self.again: set[bytes] = set()
        self.spent = 0

    @initialize(hidden=st.integers(0, 60), seed=st.integers(0, 1000))
    def open(self, hidden: int, seed: int) -> None:
        """Start an emulator that bills so many tokens a document more than it says."""
        switches: dict[str, Any] = {"faults": self.faults, "script": self.script, "silence": 1000.0}
        settings = Settings(
            seed=seed, tokenizer="bytes", overhead_tokens=hidden, latency=0.05, fault_limit=0, **switches
        )
        self.emulator = Emulator(settings, keep=True)
        self.loop.run_until_complete(self.emulator.__aenter__())
        (self.folder / "key").write_text(KEY)

    @rule(names=st.lists(st.sampled_from(PASSING), max_size=4, unique=True), share=st.floats(0.05, 0.5))
    def fail(self, names: list[str], share: float) -> None:
        """From now on requests fail in these ways."""
        self.faults.clear()
        self.faults.update(dict.fromkeys(names, share / max(1, len(names))))

    @rule(name=st.sampled_from(DECIDING), ahead=st.integers(1, 12))
    def decide(self, name: str, ahead: int) -> None:
        """One of the next requests is rejected in a way that decides something."""
        self.script[self.emulator.requests + ahead] = name

    @rule(
        first=st.integers(0, 12), count=st.integers(1, 6), size=st.integers(1, 25), seed=st.integers(0, 99),
        cut=st.none() | st.floats(0.01, 3.0), stop=st.booleans(),
    )  # fmt: skip
    def send(self, first: int, count: int, size: int, seed: int, cut: float | None, stop: bool) -> None:
        """A process asks about some queries; it may be told to stop after a while, or be cut off."""
        work = self._process(range(first, first + count), size, seed, cut, stop)
        self.loop.run_until_complete(work)

    @invariant()
    def the_cap_holds(self) -> None:
        """What was really billed is within what was counted, and that within the cap."""
        if hasattr(self, "emulator"):
            assert self.emulator.counts.tokens <= self.spent <= CAP

    @invariant()
    def nothing_acknowledged_is_asked_again(self) -> None:
        """A request whose answer was handed out never reaches the API a second time."""
        assert not self.again

    async def _process(self, which: range, size: int, seed: int, cut: float | None, stop: bool) -> None:
        job = Job.model_validate({
            "model": "qwen3-rerank", "tokenizer": "bytes", "limits": {"documents": 10},
            "endpoint": {
                "url": self.emulator.url + PATH, "api_key_file": str(self.folder / "key"), "timeout": 5,
            },
            "retry": {"max_delay": 5, "attempts": 4, "outage": 60}, "budget": {"max_tokens": CAP},
        })  # fmt: skip
        asked_before = len(self.emulator.received)
        known = set(self.acknowledged)
        outcomes: dict[int, list[object]] = {number: [] for number in which}
        ledger = Ledger(self.folder / "ledger.sqlite")
        async with background_task(ledger.serve):
            spent = await ledger.begin(1)
            async with engine(job, sharder(job), ledger, spent, Verdicts("absolute")) as parts:
                with anyio.move_on_after(None if stop or cut is None else cut):
                    async with anyio.create_task_group() as group:
                        for number in which:
                            group.start_soon(self._ask, parts, number, size, outcomes[number])
                        if stop and cut is not None:
                            await anyio.sleep(cut)
                            parts.sender.stop(StoppedError("the test says so"))
            self._judge(which, size, outcomes, cut is not None and not stop)
            again = await ledger.begin(1)
            taken = Taken(again.tokens, again.unbilled, again.lost, again.ratio, again.hidden)
            self.spent = Spend(None, before=Before(tokens=taken)).bound
            for key, values in self.acknowledged.items():
                found = (await ledger.find([key])).get(key)
                assert found is not None and found.outcome.values.tolist() == values  # type: ignore[union-attr]
        ledger.close()
        asked = {self._key(job, received.body) for received in self.emulator.received[asked_before:]}
        self.again |= known & asked
        self._acknowledge(job)

    async def _ask(self, parts: Any, number: int, size: int, outcome: list[object]) -> None:
        query = _query(number, size)
        shards = parts.sharder.shards(query)
        scores: list[Scores] = []
        try:
            for at, chunk in enumerate(shards.chunks):
                context = QueryContext(query=query, shards=shards, position=number, meter=Meter())
                scores += await parts.sender.score(context, Chunk(chunk), at, turn=0)
        except BatchrankError as error:
            parts.sender.stop(error) if not isinstance(error, QueryError) else None
            outcome.append(error)
        else:
            outcome.append(scores)

    def _judge(self, which: range, size: int, outcomes: dict[int, list[object]], cut: bool) -> None:
        """One outcome a query (none only where it was cut off), and every score the model's own."""
        for number in which:
            assert len(outcomes[number]) == 1 or (cut and not outcomes[number])
            for result in outcomes[number]:
                for scores in result if isinstance(result, list) else []:
                    query = _query(number, size)
                    right = [
                        1 / (1 + np.exp(-relevance(str(query.text), str(query.documents[i]))))
                        for i in scores.documents.tolist()
                    ]
                    assert np.allclose(scores.values, right)

    def _acknowledge(self, job: Job) -> None:
        """What the ledger holds from now on must never be asked again, nor lost."""
        import sqlite3

        from batchrank.ledger.rows import unpack

        db = sqlite3.connect(self.folder / "ledger.sqlite")
        held = dict(db.execute("SELECT key, scores FROM answers"))
        db.close()
        assert set(self.acknowledged) <= set(held)
        self.acknowledged = {key: unpack(scores).tolist() for key, scores in held.items()}

    def _key(self, job: Job, body: bytes) -> bytes:
        import hashlib

        return hashlib.sha256(f"{job.url}\n{job.wire}\n".encode() + body).digest()[:16]

    def teardown(self) -> None:
        """Close everything."""
        if hasattr(self, "emulator"):
            self.loop.run_until_complete(self.emulator.__aexit__(None, None, None))
        self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        self.loop.close()
        shutil.rmtree(self.folder)


def _query(number: int, size: int) -> Query:
    rng = random.Random(number * 100 + size)
    words = ["copy", "tree", "file", "random", "list", "socket", "thread", "lock", "queue", "event", "parse"]
    texts = [" ".join(rng.choices(words, k=6)) + f" {at}" for at in range(size)]
    return Query.of(f"q{number}", f"{rng.choice(words)} {number}", [Candidate(None, text) for text in texts])


Sending.TestCase.settings = settings(
    max_examples=15,
    stateful_step_count=8,
    deadline=None,
    derandomize=True,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
TestSending = Sending.TestCase
