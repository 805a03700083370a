"""Prepares a query to be sent: encodes its images, splits or cuts long texts, and packs its documents in chunks."""

from dataclasses import dataclass, field, replace

from batchrank.data import Content, Query, Rejection, Request
from batchrank.errors import JobError, QueryError, install_line
from batchrank.io.media import Sources
from batchrank.job.config import Job
from batchrank.merge.reuse import Earlier
from batchrank.outcomes import Failure
from batchrank.send.requests import QueryContext
from batchrank.send.stats import Meter
from batchrank.shard.chunks import QueryShards, Sharder
from batchrank.shard.long import Cut, Cutter, Passages, Splitter, deeper, too_long
from batchrank.tokens import Counter
from batchrank.wire import tailored
from batchrank.write.formats import holds_texts, needs_plain_ids, refuse_ids

OVERHEAD_BYTES = 250
"""What a document holds in memory besides its text: two string objects and its share of lists and arrays."""


@dataclass(slots=True, eq=False, kw_only=True)
class Prepared(QueryContext):
    """A query from its preparation to its ranking.

    Attributes:
        source: the query that is ranked, its images and videos as they are sent; requests are made of ``query``.
        shards: its chunks.
        top_k: the depth that must be exact.
        passages: what is sent in its documents' place, when some were cut into passages.
        faults: its documents that can't be sent.
        truncated: its documents (and its own text) that are cut before they are sent, or by the API, as far as that can
            be told exactly.
        visual: whether images or videos are sent, which cost more than text.
        part: its part's number, place: its place in it, from 0, and last: whether the part ends with it.
        multi_chunk_index: its place among its part's queries of more than one chunk, from 0; None with a single chunk.
        preceding: how many queries of more than one chunk came before it in its part.
        sequence: its number among all that ``Flow`` admitted.
        weight: bytes it holds in memory, roughly.
        earlier: what earlier runs told of its documents.
        oldest: when the oldest answer of those was given, in seconds since 1970; 0 where nobody knows.
        refused: documents that none of those tells of, and that were refused when they were asked about alone, by
            position.
    """

    source: Query
    shards: QueryShards
    top_k: int
    passages: Passages | None = None
    faults: list[Failure] = field(default_factory=list)
    truncated: int = 0
    visual: bool = False
    part: int = 0
    place: int = 0
    last: bool = False
    multi_chunk_index: int | None = None
    preceding: int = 0
    sequence: int = 0
    weight: int = 0
    earlier: list[Earlier] = field(default_factory=list)
    oldest: int = 0
    refused: dict[int, Rejection] = field(default_factory=dict)

    def weigh(self) -> None:
        """Tell its ``weight``: its texts, what each document takes besides, and the request that was made ahead."""
        body = 0 if self.whole is None else len(self.whole.body)
        self.weight = self.shards.text_bytes + OVERHEAD_BYTES * len(self.query.documents) + body


class Preparer:
    """Prepares the queries of a job, in a worker thread.

    Raises:
        JobError: ``image_root`` is no folder, or long documents can't be told without an exact tokenizer.
        MissingExtraError: cutting long documents needs an extra that isn't installed.
    """

    def __init__(self, job: Job, sharder: Sharder) -> None:
        self._sharder = sharder
        self._output = job.output if needs_plain_ids(job.output) else None
        self._card = job.card.name
        self._codec = tailored(job.wire, job.template, job.endpoint.body)
        self._carries_media = False
        self._sources = Sources(job.card, job.image_root)
        self._top_k = job.merge.top_k
        self._long = job.limits.long_documents
        self._splitter: Splitter | None = None
        self._cutter = _cutter(job, sharder)
        self._texts = holds_texts(job.output)
        self._document_tokens = job.card.item_tokens - _around_document(job, sharder)
        if self._long != "truncate" and not sharder.counter.exact:
            raise JobError(
                f"limits.long_documents: {self._long} needs exact token counts, and tokenizer: {sharder.counter.name} "
                f"only bounds them; install the vocabulary: {install_line('qwen')} (or name a tokenizer file)"
            )
        if self._long == "split":
            if job.limits.passage_overlap >= self._document_tokens:
                raise JobError(
                    f"limits.passage_overlap: must be below {self._document_tokens}, what the prompt of "
                    "endpoint.template leaves of limits.item_tokens"
                )
            self._splitter = Splitter(sharder.counter, self._document_tokens, job.limits.passage_overlap)

    def prepare(self, query: Query, position: int = 0) -> Prepared:
        """Prepare one query, which stands at a position among all that is read.

        Raises:
            QueryError: it, or none of its documents, can be sent, or the output can't hold its ids.
            JobError: it holds an image or a video, and the wire format carries texts only.
        """
        if self._output is not None:
            refuse_ids(self._output, query.id, query.doc_ids)
        given = query
        query, faults, visual = self._encoded(query)
        if self._long == "error":
            refuse_long(query, self._sharder.counter, self._document_tokens)
        passages = self._splitter.passages(query) if self._splitter else None
        whole = passages.query if passages else query
        spared = self._cutter.spared
        if visual or len(whole.text) > spared or max(map(len, whole.documents), default=0) > spared:  # type: ignore[arg-type]
            cut = self._cutter.cut(whole)
            if self._long == "error":
                _refuse_cut(cut)
        else:
            cut = Cut(whole)
        shards = self._sharder.shards(cut.query)
        if self._texts:
            query = _texts_of(given) if visual or faults else given
        elif passages is None:
            query = cut.query  # what isn't sent need not be kept either
        return Prepared(
            query=cut.query,
            shards=shards,
            position=position,
            meter=Meter(chunks=len(shards.chunks)),
            source=query,
            top_k=deeper(self._top_k, passages) if passages else self._top_k,
            passages=passages,
            faults=faults,
            truncated=self._truncated(cut, shards, passages),
            visual=visual,
        )

    def _truncated(self, cut: Cut, shards: QueryShards, passages: Passages | None) -> int:
        positions = set(cut.documents)
        if passages is not None:
            positions = {int(passages.owners[position]) for position in positions}
        elif self._sharder.counter.exact and shards.truncated != 0:
            positions |= set(
                too_long(cut.query, self._sharder.counter, self._sharder.limits.item_tokens).tolist()
            )
        return len(positions) + cut.of_query

    def _encoded(self, query: Query) -> tuple[Query, list[Failure], bool]:
        """A query with its images and videos ready to be sent, the documents that can't be, and whether it has any.

        1. All is text: the query as it is.
        2. A document that can't be sent (an image that can't be read, is too large, of a format the model doesn't take,
           or lies outside ``image_root``) is left blank, so that it is ranked last, and told.
        3. A query that can't be sent fails.
        """
        if isinstance(query.text, str) and set(map(type, query.documents)) <= {str}:
            return query, [], False
        text = query.text if isinstance(query.text, str) else self._sources.query(_given(query.text))
        documents: list[Content] = []
        faults: list[Failure] = []
        first: QueryError | None = None
        for name, item in zip(query.doc_ids, query.documents, strict=True):
            try:
                documents.append(item if isinstance(item, str) else self._sources.document(_given(item)))
            except QueryError as error:
                documents.append("")
                first = first or error
                message = f"document {name!r} is ranked last, without a score: {error}"
                faults.append(Failure(query.place, query.id, error.cause, message))
        whole = replace(query, text=text, documents=documents)
        if first is not None and not len(whole.sendable):
            raise QueryError(first.cause, f"none of its documents can be sent; the first: {first}")
        visual = any(not isinstance(item, str) for item in (text, *documents))
        if visual and not self._carries_media:
            self._codec.body(Request(self._card, text, documents))  # raises where the wire carries text only
            self._carries_media = True
        return whole, faults, visual


def _texts_of(query: Query) -> Query:
    """A query with the documents that are texts: of images and videos nothing is written, so they needn't be held."""
    documents = [item if isinstance(item, str) else type(item)("") for item in query.documents]
    return replace(query, documents=documents)


def _cutter(job: Job, sharder: Sharder) -> Cutter:
    """What cuts the texts that a job's API would refuse; the card's limit is in whatever unit leaves the least text."""
    return Cutter(
        characters=job.card.item_characters,
        in_bytes=job.limits.item_characters is None,
        item_tokens=job.card.item_tokens,
        counter=sharder.counter,
        template=job.template,
        instruct=job.said_instruct,
    )


def _around_document(job: Job, sharder: Sharder) -> int:
    """Tokens of the prompt around a document."""
    if job.template is None:
        return 0
    return int(sharder.counter.count(job.template.around_document(job.said_instruct)).sum())


def _refuse_cut(cut: Cut) -> None:
    if not cut.documents and not cut.of_query:
        return
    what = f"document {cut.query.doc_ids[cut.documents[0]]!r}" if cut.documents else "the query's own text"
    raise QueryError(
        "too-long",
        f"{what} is longer than the API takes (limits.item_characters, limits.item_tokens); shorten it, or set "
        "limits.long_documents to truncate or split",
    )


def _given(item: Content) -> object:
    return item if isinstance(item, str) else {item.kind: item.value}


def refuse_long(query: Query, counter: Counter, tokens: int) -> None:
    """Let a query with a document of more than so many tokens fail.

    Raises:
        QueryError: cause ``too-long``, naming the first such document.
    """
    long = too_long(query, counter, tokens)
    if len(long):
        more = f" (and {len(long) - 1} more)" if len(long) > 1 else ""
        raise QueryError(
            "too-long",
            f"document {query.doc_ids[long[0]]!r}{more} is longer than {tokens} tokens, where the API cuts it; "
            "shorten it, or set limits.long_documents to truncate or split",
        )
