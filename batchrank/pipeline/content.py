"""A query as read -> what is sent for it: images encoded, long documents cut, then sharded."""

from dataclasses import dataclass, field, replace

from batchrank.errors import JobError, QueryError
from batchrank.formats.fit import refuse_ids
from batchrank.job import Job
from batchrank.media import Sources
from batchrank.passages import Passages, Splitter, deeper, refuse_long, too_long
from batchrank.records import Content, Failure, Query
from batchrank.shard import QueryShards, Sharder


@dataclass(frozen=True, slots=True, eq=False)
class Ready:
    """A query ready to be sent.

    Attributes:
        query: the query, its images and videos as they are sent.
        shards: its chunks.
        top_k: the depth that must be exact.
        passages: what is sent in its documents' place, when some were cut.
        faults: its documents that can't be sent.
        truncated: its documents that the API will cut; 0 where that can't be told exactly.
        visual: whether images or videos are sent, which cost more than text.
    """

    query: Query
    shards: QueryShards
    top_k: int
    passages: Passages | None = None
    faults: list[Failure] = field(default_factory=list)
    truncated: int = 0
    visual: bool = False

    @property
    def sent(self) -> Query:
        """The query that requests are made of."""
        return self.passages.query if self.passages else self.query


class Preparer:
    """Prepares the queries of a job, in a worker thread.

    Raises:
        JobError: ``image_root`` is no folder, or long documents can't be told without an exact tokenizer.
        MissingExtraError: cutting long documents needs an extra that isn't installed.
    """

    def __init__(self, job: Job, sharder: Sharder) -> None:
        self._sharder = sharder
        self._output = job.output
        self._sources = Sources(job.card, job.image_root)
        self._top_k = job.merge.top_k
        self._long = job.limits.long_documents
        self._splitter: Splitter | None = None
        if self._long != "truncate" and not sharder.counter.exact:
            raise JobError(
                f"limits.long_documents: {self._long} needs exact token counts, and tokenizer: {sharder.counter.name} "
                "only bounds them; pip install 'batchrank[qwen]', or name a tokenizer file"
            )
        if self._long == "split":
            self._splitter = Splitter(sharder.counter, job.card.item_tokens, job.limits.passage_overlap)

    def prepare(self, query: Query) -> Ready:
        """Prepare one query.

        Raises:
            QueryError: it, or none of its documents, can be sent, or the output can't hold its ids.
        """
        refuse_ids(self._output, query.id, query.doc_ids)
        query, faults, visual = self._encoded(query)
        if self._long == "error":
            refuse_long(query, self._sharder.counter, self._sharder.limits.item_tokens)
        passages = self._splitter.passages(query) if self._splitter else None
        if passages is None:
            shards = self._sharder.shards(query)
            return Ready(query, shards, self._top_k, None, faults, self._truncated(query, shards), visual)
        top_k = deeper(self._top_k, passages)
        return Ready(query, self._sharder.shards(passages.query), top_k, passages, faults, 0, visual)

    def _truncated(self, query: Query, shards: QueryShards) -> int:
        counter = self._sharder.counter
        if not counter.exact or shards.truncated == 0:
            return 0
        return len(too_long(query, counter, self._sharder.limits.item_tokens))

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
        return whole, faults, visual


def _given(item: Content) -> object:
    return item if isinstance(item, str) else {item.kind: item.value}
