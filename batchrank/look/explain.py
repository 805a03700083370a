"""Tells why a document stands where it does in a ranking, with the requests that say so."""

import difflib
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import anyio
import numpy as np

from batchrank.data import Answer, Rejection
from batchrank.errors import BatchrankError, InputError
from batchrank.io.address import Where
from batchrank.look.explanation import Explanation, Fact, Held, Order, Proof, sent
from batchrank.look.proof import Link, Proofs, Told
from batchrank.look.rankings import Listing, Rankings, Row
from batchrank.look.replay import Findings, Replayed, replay
from batchrank.look.silent import Asked
from batchrank.look.source import Origin, as_text, origin, queries
from batchrank.outcomes import ABSOLUTE

_UNPROVEN: dict[str, Proof] = {"rrf": "fusion", "raw": "raw"}
"""Merge methods that prove nothing."""


def explain(
    folder: Where, query_id: str, doc_id: str, *, against: str | None = None, known: Origin | None = None
) -> Explanation:
    """Tell why a document stands where it does.

    Args:
        folder: the output folder.
        query_id: the query.
        doc_id: the document.
        against: another document; why it stands above or below that is told too.
        known: the job, where it is given; by default the one in the summary.

    Raises:
        InputError: there is no such query or document, or the output can't be read.
    """
    listing = Rankings(folder).required(query_id)
    source = known or origin(folder)
    notes = [] if source.note is None else [source.note]
    findings = _findings(source, listing, notes)
    found = _Explainer(listing, findings, source).explain(doc_id, against)
    found.notes = [*notes, *findings.notes]
    return found


def _findings(source: Origin, listing: Listing, notes: list[str]) -> Findings:
    """What the ledger tells of the query; nothing where input or job are not at hand."""
    if source.job is None:
        return Findings()
    if source.hidden:
        notes.append(
            "the summary doesn't show all of endpoint.body, so the answers can't be looked up: name the job file "
            "instead of the folder"
        )
        return Findings()
    try:
        place = next(queries(source.job, [listing.query_id], placed=True), None)
        if place is None:
            notes.append("the query is no longer in the input, so its requests can't be made again")
            return Findings()
        return anyio.run(replay, source.job, place, listing)
    except BatchrankError as error:
        notes.append(f"the ranking can't be made again: {error}{source.hint}")
        return Findings()


class _Explainer:
    """Explains documents of one ranking."""

    def __init__(self, listing: Listing, findings: Findings, source: Origin) -> None:
        self._listing = listing
        self._replayed = replayed = findings.replayed
        self._prepared = prepared = replayed.prepared if replayed is not None else findings.prepared
        self._job, self._query = source.job, findings.query
        self._rows = {row.doc_id: row for row in listing.rows}
        self._order = list(replayed.ranking.doc_ids) if replayed else [row.doc_id for row in listing.rows]
        self._ranks = {name: rank for rank, name in enumerate(self._order, 1)}
        self._at = {} if prepared is None else {name: i for i, name in enumerate(prepared.source.doc_ids)}
        self._findings, self._told = findings, _told(findings)
        self._proofs = (
            Proofs(self._told, len(prepared.query)) if prepared is not None and self._told else None
        )

    def explain(self, doc_id: str, against: str | None) -> Explanation:
        """Tell all of one document."""
        rank = self._rank(doc_id)
        listing, replayed, record = self._listing, self._replayed, self._listing.record
        row = self._rows.get(doc_id) or Row(doc_id, rank)
        prepared = self._prepared
        position = self._at.get(doc_id)
        found = Explanation(
            query_id=listing.query_id,
            query=listing.query if prepared is None else as_text(prepared.source.text),
            doc_id=doc_id, rank=rank, documents=len(self._order),
            before=row.before if position is None else position + 1,
            score=self._score(doc_id), raw_score=row.raw_score,
            certified=listing.certified, top_k=None if self._job is None else self._job.merge.top_k,
            method=record.get("method"), verdict=record.get("verdict"), replayed=replayed is not None,
            reused=record.get("reused"), oldest=_iso(record.get("oldest")),
        )  # fmt: skip
        others = [self._order[at - 1] for at in (rank - 1, rank + 1) if 1 <= at <= len(self._order)]
        if against is not None and against not in (*others, doc_id):
            self._rank(against)
            others.append(against)
        found.orders = [self._why(*sorted((doc_id, other), key=self._ranks.__getitem__)) for other in others]
        if prepared is not None and position is not None:
            found.requests = self._requests(doc_id)
            found.sent = sent(prepared, position, self._job, self._query)
        if replayed is not None and position is not None:
            found.refused, found.attempts = _troubles(self._findings, self._place(doc_id))
            found.unscored = None if found.score is not None else _no_score(replayed, position)
        return found

    def _rank(self, doc_id: str) -> int:
        if doc_id in self._ranks:
            return self._ranks[doc_id]
        near = difflib.get_close_matches(doc_id, self._order[:50_000], 5, 0.5)
        hint = f"; did you mean {', '.join(map(repr, near))}?" if near else ""
        cut = "" if self._replayed else ", as far as the output holds it"
        raise InputError(
            f"document {doc_id!r}: it is not in the ranking of query {self._listing.query_id!r}{cut}{hint}"
        )

    def _score(self, doc_id: str) -> float | None:
        if self._replayed is None:
            return self._rows[doc_id].score
        value = float(self._replayed.ranking.scores[self._ranks[doc_id] - 1])
        return value if np.isfinite(value) else None

    def _place(self, doc_id: str) -> int:
        """The position that is sent for a document: that of its best passage, where it was split."""
        position = self._at[doc_id]
        prepared = self._prepared
        if prepared is None or prepared.passages is None:
            return position
        own = np.flatnonzero(prepared.passages.owners == position)
        if self._replayed is None:
            return int(own[0])
        order = self._replayed.merged.order
        return int(order[np.isin(order, own)][0])

    def _name(self, place: int) -> str:
        prepared = self._prepared
        assert prepared is not None
        owner = place if prepared.passages is None else int(prepared.passages.owners[place])
        return str(prepared.source.doc_ids[owner])

    def _why(self, upper: str, lower: str) -> Order:
        """Why one document stands above another."""
        proof, chain, evidence = self._proof(upper, lower)
        return Order(
            upper, self._ranks[upper], self._score(upper), lower, self._ranks[lower], self._score(lower), proof,
            [self._fact(link) for link in chain], [self._fact(link) for link in evidence],
        )  # fmt: skip

    def _proof(self, upper: str, lower: str) -> tuple[Proof, Sequence[Link], Sequence[Link]]:
        """The kind of proof, its chain, and else what requests say.

        1. One has no score: it stands last.
        2. Its answers aren't known.
        3. There is a chain, of links that are all ties or not.
        4. The scores are comparable: the raw ones tell. Each is of the request that asked about the document first.
        5. Nothing proves it; what requests say that held both is shown.
        """
        if self._score(lower) is None and self._replayed is not None:
            return "unscored", (), ()
        proofs = self._proofs
        if proofs is None:
            return "unknown", (), ()
        places = self._place(upper), self._place(lower)
        chain = proofs.chain(*places)
        if chain:
            if all(link.tie for link in chain):
                return "tie", chain, ()
            return ("request" if len(chain) == 1 else "chain"), chain, ()
        between = proofs.between(*places)
        if self._replayed is None:
            return "unknown", (), between
        merged = self._replayed.ranking.merge
        if merged.method == "raw" and merged.verdict in ABSOLUTE:
            first = [self._first(place) for place in places]
            return "comparable", [Link(first[0][0], places[0], first[0][1], places[1], first[1][1])], between
        if merged.method in _UNPROVEN:
            return _UNPROVEN[merged.method], (), between
        return ("estimate" if proofs.consistent else "contradiction"), (), between

    def _first(self, place: int) -> tuple[int, float]:
        """The request that a document's raw score is from."""
        assert self._replayed is not None
        merged = self._replayed.merged
        raw = float(merged.raw_scores[merged.order == place][0])
        number = next((i for i, one in enumerate(self._told) if one.score(place) == raw), 0)
        return number, raw

    def _fact(self, link: Link) -> Fact:
        names = self._name(link.upper), self._name(link.lower)
        return Fact(link.request + 1, names[0], link.upper_score, names[1], link.lower_score, link.tie)

    def _requests(self, doc_id: str) -> list[Held]:
        place, replayed = self._place(doc_id), self._replayed
        rounds: dict[tuple[int, str], int] = {}
        for one in replayed.asked if replayed is not None else ():
            kind = one.round, one.purpose
            rounds[kind] = max(rounds.get(kind, 0), one.chunk)
        return [
            Held(
                number=number,
                purpose=one.purpose,
                round=one.round or None,
                chunk=one.chunk or None,
                chunks=rounds.get((one.round, one.purpose)),
                documents=len(one.documents),
                rank=one.rank(place),
                score=one.score(place),
                run=one.run,
                earlier=replayed is None or one.run != replayed.run,
                at=_iso(one.at),
                tokens=one.tokens,
                request_id=one.request_id or None,
                key=one.key or None,
                server=one.server[0] or None,
                key_name=one.server[1] or None,
            )
            for number, one in enumerate(self._told, 1)
        ]


def _told(findings: Findings) -> list[Told]:
    """The answers that the ranking rests on: the query's own, then those of earlier runs as far as they serve."""
    replayed = findings.replayed
    found = (
        [_of_request(one, findings) for one in replayed.asked if isinstance(one.known.outcome, Answer)]
        if replayed
        else []
    )
    recalled = replayed.prepared.earlier if replayed and replayed.merged.recalled else findings.known
    for old in recalled:
        server = findings.server(old.server)
        found.append(Told(old.documents, old.values, old.purpose, old.run, old.at, server=server))
    # An earlier answer to a request that is asked again as it was is found in both ways.
    different = {one.documents.tobytes() + one.values.tobytes(): one for one in reversed(found)}
    return list(different.values())[::-1]


def _of_request(one: Asked, findings: Findings) -> Told:
    known = one.known
    assert isinstance(known.outcome, Answer)
    return Told(
        one.documents, known.outcome.values, one.purpose, known.run, known.at, one.round, one.chunk,
        one.key.hex(), known.outcome.request_id, known.outcome.tokens,
        server=findings.server(known.server),
    )  # fmt: skip


def _troubles(findings: Findings, place: int) -> tuple[list[str], list[str]]:
    """How requests with a document were refused, how tries of them failed, and by which server."""
    replayed = findings.replayed
    assert replayed is not None
    mine = [one for one in replayed.asked if place in one.documents]
    refused = [
        f"{len(one.documents):,} documents: {one.known.outcome}{findings.by(one.known.server)}"
        for one in mine
        if isinstance(one.known.outcome, Rejection)
    ]
    keys = {one.key for one in mine}
    return refused, [
        f"{a.kind}: {a.rejection}{findings.by(a.server)}" for a in replayed.attempts if a.key in keys
    ]


def _no_score(replayed: Replayed, position: int) -> str:
    """Why a document has no score."""
    prepared = replayed.prepared
    name = prepared.source.doc_ids[position]
    lost = dict(prepared.meter.lost)
    places = (
        [position]
        if prepared.passages is None
        else np.flatnonzero(prepared.passages.owners == position).tolist()
    )
    for place in places:
        if (why := lost.get(place) or prepared.refused.get(place)) is not None:
            return f"no request with it was accepted: {why}"
    for fault in prepared.faults:
        if f"document {name!r} " in fault.message:
            return fault.message.partition("without a score: ")[2] or fault.message
    return "its text is blank, so it was never sent"


def _iso(at: Any) -> str | None:
    """A time as ISO 8601, UTC; of a record, which may hold one already, or of seconds since 1970."""
    if isinstance(at, datetime):
        return at.astimezone(UTC).isoformat()
    if isinstance(at, int | float) and at:
        return datetime.fromtimestamp(at, UTC).isoformat()
    return at or None
