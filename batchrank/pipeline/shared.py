"""Shares among a run's queries what decides about many of them, and lets whoever asks too early wait for it.

That is the verdict whether scores can be compared, which earlier queries of a part decide, and what earlier runs told
of documents, as long as it still holds.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any, TypeVar

import anyio
import numpy as np
from numpy.typing import NDArray

from batchrank.data import Positions, Rejection
from batchrank.errors import BatchrankError
from batchrank.ledger.access import Access
from batchrank.ledger.entries import Recollection
from batchrank.merge.reuse import Earlier
from batchrank.merge.trust import Standing, Trust
from batchrank.merge.verdict import Verdicts
from batchrank.outcomes import Finding, Overlap, Verdict
from batchrank.pipeline.prepare import Prepared
from batchrank.send.encoder import Encoder
from batchrank.send.requests import Past, Recall

Known = TypeVar("Known")


class Waiting:
    """Lets queries wait for what others bring."""

    def __init__(self) -> None:
        self._changed = anyio.Event()
        self._reason: BatchrankError | None = None

    def stop(self, reason: BatchrankError) -> None:
        """Let nobody wait any longer: what is missing may never come, so whoever lacks it gets the reason raised."""
        self._reason = self._reason or reason
        self.notify()

    def notify(self) -> None:
        """Let whoever waits look again."""
        self._changed.set()
        self._changed = anyio.Event()

    async def known(self, look: Callable[[], Known | None]) -> Known:
        """What a look finds, once it finds something.

        Raises:
            BatchrankError: the one given to ``stop``.
        """
        while (found := look()) is None:
            if self._reason is not None:
                raise self._reason
            await self._changed.wait()
        return found


class SharedVerdicts(Waiting):
    """Wraps the pure ``Verdicts``."""

    def __init__(self, verdicts: Verdicts) -> None:
        super().__init__()
        self.verdicts = verdicts

    async def at(self, part: int, index: int) -> Verdict:
        """The verdict that counts for the multi-chunk query with this index in its part.

        Raises:
            BatchrankError: the one given to ``stop``.
        """
        return await self.known(lambda: self.verdicts.at(part, index))

    async def before(self, part: int, preceding: int) -> Verdict:
        """The verdict that stood right after so many multi-chunk queries of a part.

        Raises:
            BatchrankError: the one given to ``stop``.
        """
        return await self.known(lambda: self.verdicts.before(part, preceding))

    def record_probe(self, part: int, index: int, probe: Overlap | None) -> None:
        """Take in a probe's evidence; None when the query ended without any."""
        self.verdicts.record_probe(part, index, probe)
        self.notify()

    def record_hub(self, part: int, index: int, hub: Overlap | None) -> None:
        """Take in a hub's evidence; None when the query had no hub."""
        self.verdicts.record_hub(part, index, hub)
        self.notify()

    def record_end(self, part: int, count: int) -> None:
        """Take in how many multi-chunk queries a part holds, now that it is known where it ends."""
        self.verdicts.record_end(part, count)
        self.notify()


CHANGED = "reuse/changed"
"""The name of the state that tells the first run whose answers are those of today's model."""


class Recollector(Waiting):
    """Gives queries what earlier runs told of their documents.

    Args:
        recall: knows what counts as told, and whether documents that were refused are asked about again.
        audit: queries of a part from one audit to the next; 0 for none.
        kept: under which name findings are kept in the ledger, so that a resumed run knows them.
    """

    def __init__(self, ledger: Access, encoder: Encoder, recall: Recall, audit: int, kept: str) -> None:
        super().__init__()
        self._ledger = ledger
        self._encoder = encoder
        self._recall = recall
        self._kept = kept
        self._audit = audit
        self._trusts: dict[int, Trust] = {}
        self._findings: list[Finding] = []
        self._aside = 0

    @property
    def findings(self) -> list[Finding]:
        """What audits found, in input order."""
        return self._findings + [one for _, trust in sorted(self._trusts.items()) for one in trust.findings]

    @property
    def aside(self) -> int:
        """How many queries left their earlier answers aside because theirs contradicted them."""
        return self._aside + sum(trust.aside for trust in self._trusts.values())

    @property
    def changed(self) -> bool:
        """Whether an audit found that the model has changed."""
        return any(finding.changed for finding in self.findings)

    async def restore(self) -> None:
        """Take in what other processes of this run found, and drop what older runs did, or an older batchrank."""
        self._trusts, self._findings, self._aside = {}, [], 0
        known = await self._ledger.load_all(self._kept)
        mine: list[tuple[int, int, str]] = []
        for name in known:
            run, *_, last = name.split("/")
            if int(run) == self._ledger.run and name.count("/") == 3:
                mine.append((int(name.split("/")[2]), int(last), name))
            else:
                await self._ledger.save(self._kept + name, None)
        for part, place, name in sorted(mine):
            audit = name.split("/")[1] == "audit"
            self._trust(part).restore(place, Finding(**known[name]), audit=audit)

    def _trust(self, part: int) -> Trust:
        """What is known of a part; no other part's findings count in it, so that it can be ranked apart from them."""
        trust = self._trusts.get(part)
        if trust is None:
            trust = self._trusts[part] = Trust(self._audit)
        return trust

    def forget(self, part: int) -> None:
        """Keep only what the summary tells of a part that is written."""
        if (trust := self._trusts.pop(part, None)) is not None:
            self._findings += trust.findings
            self._aside += trust.aside

    def note(self, prepared: Prepared) -> None:
        """Work out what tells a query's question and its documents' contents; takes a while."""
        prepared.question = self._encoder.question(prepared.query)
        prepared.contents = np.frombuffer(self._encoder.contents(prepared.query.documents), dtype="<u8")

    async def recall(self, queries: Sequence[Prepared]) -> None:
        """Look up what is known of queries, in input order, many at a time.

        Raises:
            LedgerError: the ledger can't be read.
        """
        if not queries:
            return
        past, recall = self._recall.past, self._recall
        questions = [query.question for query in queries]
        # At one time, so that it is one commit.
        told: dict[int, list[Recollection]]
        told, refused = await asyncio.gather(
            self._ledger.recollect(questions, before=past.before, since=past.since),
            self._ledger.refused(questions),
        )
        if recall.anew or recall.allow is not None:
            refused = set()
        for query in queries:
            known = [one for one in told.get(query.question, []) if one.run >= past.floor]
            assert query.contents is not None
            query.earlier = restricted(query.contents, query.query.sendable, known)
            if query.earlier:
                self._trust(query.part).expect(query.place)
                query.weight += sum(16 * len(one.documents) for one in query.earlier)
                query.oldest = min((one.at for one in query.earlier if one.at), default=0)
                if query.question in refused:
                    query.refused = await self._refused(query)

    async def _refused(self, query: Prepared) -> dict[int, Rejection]:
        """The documents that no earlier answer tells of, and that were rejected when they were asked about alone."""
        unknown = np.setdiff1d(query.query.sendable, np.concatenate([one.documents for one in query.earlier]))
        alone = {self._encoder.encode(query.query, unknown[[i]]).key: int(at) for i, at in enumerate(unknown)}
        found = await self._ledger.find(list(alone))
        known = ((at, found[key].outcome) for key, at in alone.items() if key in found)
        return {at: outcome for at, outcome in known if isinstance(outcome, Rejection)}

    async def standing(self, part: int, place: int) -> Standing:
        """How far a query may rely on earlier answers.

        Raises:
            BatchrankError: the one given to ``stop``.
        """
        trust = self._trust(part)
        return await self.known(lambda: trust.at(place))

    async def notice(self, part: int, place: int, finding: Finding, *, audit: bool) -> None:
        """Take in a finding; it is on disk before anything follows from it.

        Raises:
            LedgerError: the ledger can't be written.
        """
        trust = self._trust(part)
        trust.record(place, finding, audit=audit)
        name = f"{self._kept}{self._ledger.run}/{'audit' if audit else 'hub'}/{part}/{place}"
        await self._ledger.save(name, asdict(finding))
        if trust.changed:
            await self._ledger.save(CHANGED, self._ledger.run)
        self.notify()

    def ended(self, part: int, place: int) -> None:
        """Nobody need wait for a query any longer."""
        trust = self._trusts.get(part)
        if trust is not None:
            trust.ended(place)
            self.notify()


def restricted(
    contents: NDArray[np.uint64], sendable: Positions, told: Sequence[Recollection]
) -> list[Earlier]:
    """Earlier answers, restricted to documents that are still there, as their content tells.

    Of documents with the same content each gets its score.
    """
    if not told:
        return []
    order = sendable[np.argsort(contents[sendable], kind="stable")]
    ordered = contents[order]
    found = []
    for one in told:
        kinds, rows = np.unique(one.contents, return_index=True)
        low, high = np.searchsorted(ordered, kinds, "left"), np.searchsorted(ordered, kinds, "right")
        counts = high - low
        here = np.repeat(low - np.r_[0, np.cumsum(counts)[:-1]], counts) + np.arange(counts.sum())
        positions, values = order[here], np.repeat(one.values[rows], counts)
        if not len(positions):
            continue
        by_position = np.argsort(positions, kind="stable")
        documents = positions[by_position]
        same = np.array_equal(contents[documents], one.contents)
        restored = Earlier(documents, values[by_position], one.purpose, one.run, same, one.at, one.server)
        found.append(restored)
    return found


def past_of(state: dict[str, Any], max_age: float | None) -> Past:
    """What a run may use, from the state that it began with."""
    since = 0 if max_age is None else int(state["began"] - max_age)
    return Past(state["horizon"], state["floor"], since)
