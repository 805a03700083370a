"""Arrow IPC files and streams, which are Feather of version 2 and what ``datasets`` and Polars keep: read by batch."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa

from batchrank.io.storage import filesystem
from batchrank.read import detect as foreign
from batchrank.read.base import Source
from batchrank.read.pieces import Piece, pieces
from batchrank.read.plain import is_list, plain_schema

_END = b"\xff\xff\xff\xff\0\0\0\0"
# Rows of a batch that are decoded at a time: some writers make a single batch of a whole table.
_SLICE_ROWS = 4096


class Opened:
    """An IPC file or stream.

    Attributes:
        schema: with the types that ``plain`` tells.
        share: how much was read, from 0 to 1.
    """

    def __init__(self, file: Any) -> None:
        magic = foreign.ARROW[0]
        self._file, self._indexed = file, file.read_at(len(magic), 0) == magic
        file.seek(0)  # reading at a place moves the position of some remote files
        self._stored = (pa.ipc.open_file if self._indexed else pa.ipc.open_stream)(file).schema
        self.schema = plain_schema(self._stored)
        self.share = 0.0

    def pieces(
        self, wanted: Callable[[str], bool], *, rows: int, documents: int, size: int
    ) -> Iterator[Piece]:
        """The rows in pieces, decoded, of at most so many rows; of columns, whatever is in the wanted ones.

        The batches of the file are as large as their writer made them; ``documents`` and ``size`` change nothing.
        """
        names = [
            i for i, field in enumerate(self._stored) if any(map(wanted, _leaves(field.name, field.type)))
        ]
        first = 1
        for batch in self._batches(pa.ipc.IpcReadOptions(included_fields=names)):
            _validate(batch)
            for start in range(0, batch.num_rows, min(rows, _SLICE_ROWS)):
                part = batch.slice(start, min(rows, _SLICE_ROWS))
                yield from pieces(part, first)
                first += part.num_rows

    def _batches(self, options: Any) -> Iterator[Any]:
        self._file.seek(0)
        if self._indexed:
            reader = pa.ipc.open_file(self._file, options=options)
            for i in range(reader.num_record_batches):
                yield reader.get_batch(i)
                self.share = (i + 1) / reader.num_record_batches
            return
        for batch in pa.ipc.open_stream(self._file, options=options):
            yield batch
            self.share = self._file.tell() / self._file.size()
        if self._file.read_at(len(_END), self._file.size() - len(_END)) != _END:
            raise OSError("the stream ends without its end mark: what wrote it may have been stopped")


def _leaves(name: str, type_: Any) -> Iterator[str]:
    """The paths below a column, named as Parquet names them."""
    if isinstance(type_, pa.BaseExtensionType):
        yield from _leaves(name, type_.storage_type)
    elif pa.types.is_struct(type_):
        for field in type_:
            yield from _leaves(f"{name}.{field.name}", field.type)
    elif is_list(type_):
        yield from _leaves(f"{name}.list.element", type_.value_type)
    else:
        yield name


def _validate(batch: Any) -> None:
    """Refuse offsets that lead out of their buffers: following them would end the process.

    Raises:
        pyarrow.ArrowInvalid: the batch is damaged.
    """
    try:
        batch.validate(full=True)
    except pa.ArrowInvalid as error:
        if "UTF8" not in str(error):  # which is found, row by row, by whoever needs the text
            raise


@contextmanager
def table(source: Source) -> Iterator[Opened]:
    """A file or stream to be read in pieces; from this machine's disk it is mapped, not loaded.

    Raises:
        ForeignError: it is of another format.
        OSError: it can't be opened.
        pyarrow.ArrowException: it is damaged.
    """
    system, path = filesystem(source.path or "")
    with pa.memory_map(path) if system is None else system.open_input_file(path) as file:
        head = file.read_at(min(file.size(), foreign.HEAD), 0)
        if (known := foreign.told(head)) is not None:
            raise known
        if head and not head.startswith(foreign.ARROW):
            raise foreign.ForeignError(
                f"the file is no Arrow file, although its name says so; it begins with {head[:8]!r}: set input.format, "
                "or see what wrote it",
            )
        yield Opened(file)
