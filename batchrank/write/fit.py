"""Whether the job's output format can hold a query's ids: asked before anything is paid for that can't be written."""

from collections.abc import Sequence

from batchrank.errors import QueryError
from batchrank.job.sections import Output
from batchrank.write.outputs import OUTPUTS


def refuse_ids(output: Output | None, query_id: str, doc_ids: Sequence[str]) -> None:
    """Refuse a query with an id that the output's columns can't hold.

    Raises:
        QueryError: an id is empty or holds white space, and the format sets columns apart by it.
    """
    if output is None or output.path == "-" or not OUTPUTS[output.format].spaceless:
        return
    names = [query_id, *doc_ids]
    if " ".join(names).split() == names:
        return
    wrong = next(name for name in names if name.split() != [name])
    what = "the query's id" if query_id.split() != [query_id] else f"the id of document {wrong!r}"
    raise QueryError(
        "id-with-space",
        f"{what} is empty or holds white space, which parts the columns of a {output.format} file; choose "
        "output.format: parquet or jsonl, or change the id",
    )
