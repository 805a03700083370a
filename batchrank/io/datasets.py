"""Makes a folder of files of a dataset that ir_datasets knows by name, which is then read as any BEIR folder is.

ir_datasets downloads to a cache of its own (``IR_DATASETS_HOME``), and checks what it downloads. The folder is made
once, below the user's cache folder, and renamed into place when it is whole.
"""

import difflib
import logging
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import orjson
import zstandard

from batchrank.errors import InputError, MissingExtraError, install_line
from batchrank.io.storage import NAMED

log = logging.getLogger(__name__)
_BEIR = "beir/"


@lru_cache(maxsize=64)
def folder_of(address: str) -> str:
    """The folder with a dataset's corpus, queries, judgements and first stage; made if it isn't there.

    Raises:
        MissingExtraError: ir_datasets isn't installed.
        InputError: it knows no such dataset, can't get it, or there is no room for it.
    """
    name = address.removeprefix(NAMED).strip("/")
    try:
        import ir_datasets
    except ImportError:
        raise MissingExtraError(f"input: {address} needs ir_datasets: {install_line('datasets')}") from None
    dataset, name = _found(ir_datasets, name)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "batchrank" / "datasets"
    folder = cache / name.replace("/", "-")
    if folder.is_dir():
        return str(folder)
    try:
        cache.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(prefix=".", dir=cache))
        try:
            log.info("getting the dataset %s; it will be in %s", name, folder)
            _write(dataset, made)
            made.rename(folder)
        except OSError:
            if not folder.is_dir():  # another process may have made it meanwhile
                raise
        finally:
            shutil.rmtree(made, ignore_errors=True)
    except Exception as error:  # it downloads by several libraries, and each has errors of its own
        raise InputError(
            f"input: the dataset {name} can't be had: {type(error).__name__}: {error}; see that the network is up and "
            f"that there is room in {cache} and in IR_DATASETS_HOME"
        ) from error
    return str(folder)


def _found(library: Any, name: str) -> tuple[Any, str]:
    """A dataset with its whole name: of BEIR's, whose parts are its splits, the test's where none is named."""
    for whole in ([f"{name}/test"] if name.startswith(_BEIR) and name.count("/") == 1 else []) + [name]:
        try:
            found = library.load(whole)
        except KeyError:
            continue
        if found.has_docs() and found.has_queries():
            return found, whole
    known = sorted(str(one) for one in library.registry)
    inside = [one for one in known if one.startswith(f"{name}/")]
    close = inside or difflib.get_close_matches(name, known, n=3)
    raise InputError(
        f"input: ir_datasets knows no dataset {name!r} with documents and queries"
        + (f"; did you mean {', '.join(close[:5])}?" if close else "; see https://ir-datasets.com")
    )


def _write(dataset: Any, folder: Path) -> None:
    with (
        (folder / "corpus.jsonl.zst").open("wb") as file,
        zstandard.ZstdCompressor().stream_writer(file) as corpus,
    ):
        for document in dataset.docs_iter():
            title = getattr(document, "title", None) or ""
            text = getattr(document, "text", None)
            record = {"_id": document.doc_id, "title": title if text is not None else "", "text": text}
            if text is None:
                record["text"] = document.default_text()
            corpus.write(orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE))
    with (folder / "queries.jsonl").open("wb") as file:
        for query in dataset.queries_iter():
            record = {"_id": query.query_id, "text": query.default_text()}
            file.write(orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE))
    if dataset.has_qrels():
        rows = ((qrel.query_id, qrel.doc_id, qrel.relevance) for qrel in dataset.qrels_iter())
        _table(folder / "qrels" / "test.tsv", ("query-id", "corpus-id", "score"), rows)
    if dataset.has_scoreddocs():
        with (folder / "first-stage.trec").open("w", encoding="utf-8") as run:
            run.writelines(_run(dataset.scoreddocs_iter()))


def _table(path: Path, header: Iterable[str], rows: Iterable[Iterable[object]]) -> None:
    path.parent.mkdir()
    with path.open("w", encoding="utf-8") as file:
        for row in (header, *rows):
            file.write("\t".join(map(str, row)) + "\n")


def _run(scored: Iterable[Any]) -> Iterator[str]:
    """Lines of a run; ranks are left out of account where there are scores, so each is 0."""
    for one in scored:
        yield f"{one.query_id} Q0 {one.doc_id} 0 {one.score} ir_datasets\n"
