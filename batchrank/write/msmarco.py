"""MS MARCO's run format: query id, document id and rank, with tabs between, one line a document."""

from typing import BinaryIO

import orjson

from batchrank.outcomes import Ranking
from batchrank.write.formats import refuse_spaces
from batchrank.write.rows_ import merge_row


class MsMarcoWriter:
    """A run, and beside it one JSON line a query."""

    def __init__(self, files: tuple[BinaryIO, ...]) -> None:
        self._run, self._queries = files

    def add(self, ranking: Ranking) -> None:
        """Write one query's lines.

        Raises:
            OutputError: an id is empty or holds white space.
        """
        query = ranking.query_id
        refuse_spaces(query, f"query {query!r}: its id")
        for document in ranking.doc_ids:
            refuse_spaces(document, f"query {query!r}, document {document!r}: the document's id")
        lines = [f"{query}\t{document}\t{rank}\n" for rank, document in enumerate(ranking.doc_ids, 1)]
        self._run.write("".join(lines).encode())
        self._queries.write(
            orjson.dumps({"query_id": query} | merge_row(ranking), option=orjson.OPT_APPEND_NEWLINE)
        )

    def finish(self) -> None:
        """Nothing is held back."""
