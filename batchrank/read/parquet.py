"""Reads Parquet by record batch, so that no whole file, row group or dictionary of long texts is in memory."""

import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pyarrow as pa

from batchrank.errors import InputError
from batchrank.io import opening as foreign
from batchrank.io.storage import filesystem
from batchrank.read.arrow import Array
from batchrank.read.base import Source
from batchrank.read.pieces import Piece, pieces, plain_schema, too_large

# Column chunks are read through a window of this many bytes instead of as a whole.
_WINDOW = 1024 * 1024
_ENCRYPTED_MAGIC = b"PARE"
_SIGNATURE = 28
"""Bytes after the metadata in the footer of a file whose columns are encrypted and whose footer isn't."""

# A column that takes no more than this once it is decoded needs no care.
_HARMLESS = 64 * 1024 * 1024
# So many times what is stored, and a column is kept encoded until its sizes are known.
_BLOWN_UP = 16
# So many reads make a batch of a row group in which long texts could stand together.
_STEPS = 8
# Rows at a time of a column of prefixes and suffixes, whose decoded size nothing tells beforehand.
_PREFIXED_ROWS = 256


class Opened:
    """A Parquet file.

    Attributes:
        schema: with the types that ``plain`` tells.
        share: how much was read, from 0 to 1.
    """

    def __init__(self, file: Any, source: Any) -> None:
        self.share = 0.0
        self._file, self._source = file, source
        self._encoded: dict[tuple[str, ...], Any] = {}
        self.schema = plain_schema(file.schema_arrow)
        self._rows = max(int(file.metadata.num_rows), 1)
        self._paths = [file.schema.column(i).path for i in range(len(file.schema))]

    def pieces(
        self, wanted: Callable[[str], bool], *, rows: int, documents: int, size: int
    ) -> Iterator[Piece]:
        """The rows in pieces, decoded, with what is wanted only.

        Args:
            wanted: whether a column is, by its path with dots between.
            rows: a piece has no more rows.
            documents: nor, about, more values in any column.
            size: nor, about, more bytes; a single row may exceed both.

        Raises:
            pyarrow.ArrowNotImplementedError: pyarrow leaves out rows.
        """
        leaves = [i for i, path in enumerate(self._paths) if wanted(path)]
        names = [self._paths[i] for i in leaves]
        first, due = 1, 1
        for number in range(self._file.num_row_groups):
            group = self._file.metadata.row_group(number)
            chunks = [group.column(i) for i in leaves]
            count = max(group.num_rows, 1)
            values = max((chunk.num_values for chunk in chunks), default=1) / count
            stored = sum(chunk.total_uncompressed_size for chunk in chunks) / count
            most = min(rows, documents / max(values, 1), size / max(stored, 1))
            # Others would do no harm even if the longest value that they can hold stood in all of their rows.
            harmful = [
                chunk for chunk in chunks if chunk.num_values * chunk.total_uncompressed_size > _HARMLESS
            ]
            file = self._file
            if harmful:
                if any("DELTA_BYTE_ARRAY" in chunk.encodings for chunk in harmful):
                    most = min(most, _PREFIXED_ROWS)
                file = self._reader(number, harmful)
            # Long texts may stand together: few rows at a time are decoded then, and put together where they are short.
            uneven = file is self._file and stored * count > _HARMLESS
            step = most / _STEPS if uneven else most
            # In this thread: handing columns to others and waking them would take longer than decoding them.
            batches = file.iter_batches(
                batch_size=max(int(step), 1), row_groups=[number], columns=names, use_threads=False
            )
            for batch in _gathered(batches, most, size) if uneven else batches:
                yield from pieces(batch, first)
                first += batch.num_rows
                self.share = (first - 1) / self._rows
            due += group.num_rows
            if first != due:
                # pyarrow 26 ends without a word at a single row whose list of dictionary values spans several pages.
                raise pa.ArrowNotImplementedError(
                    f"row group {number + 1} has {group.num_rows} rows, {due - first} of which pyarrow leaves out"
                )

    def _reader(self, number: int, chunks: Sequence[Any]) -> Any:
        """The file; opened so that it leaves those of the columns encoded that could blow up in decoding."""
        doubtful = tuple(chunk.path_in_schema for chunk in chunks if _is_doubtful(chunk))
        if not doubtful or self._source is None:
            return self._file
        encoded = self._leaving(doubtful)
        longest = _longest(encoded, number, doubtful)
        blown_up = tuple(
            chunk.path_in_schema for chunk in chunks if _blows_up(chunk, longest.get(chunk.path_in_schema, 0))
        )
        return self._leaving(blown_up) if blown_up else self._file

    def _leaving(self, paths: tuple[str, ...]) -> Any:
        if paths not in self._encoded:
            self._encoded[paths] = _parquet(self._source, read_dictionary=paths, metadata=self._file.metadata)
        return self._encoded[paths]


def _gathered(batches: Iterable[Any], rows: float, size: int) -> Iterator[Any]:
    """Batches put together up to about so many rows and bytes."""
    held: list[Any] = []
    count = taken = 0
    for batch in batches:
        if held and (count + batch.num_rows > rows or taken + batch.nbytes > size):
            yield held[0] if len(held) == 1 else pa.concat_batches(held)
            held, count, taken = [], 0, 0
        held.append(batch)
        count, taken = count + batch.num_rows, taken + batch.nbytes
    if held:
        yield held[0] if len(held) == 1 else pa.concat_batches(held)


def _is_doubtful(chunk: Any) -> bool:
    """Whether the column has a dictionary of texts, each of which may be meant many times."""
    encoded = any(
        "DICTIONARY" in encoding for encoding in chunk.encodings
    )  # not all writers tell where it is
    return encoded and chunk.physical_type == "BYTE_ARRAY"


def _blows_up(chunk: Any, longest: int) -> bool:
    """Whether it could; where the first row has no text the dictionary stays unknown, and the worst is assumed."""
    size = chunk.num_values * (longest or chunk.total_uncompressed_size)
    return bool(size > _HARMLESS and size > _BLOWN_UP * chunk.total_uncompressed_size)


def _longest(encoded: Any, number: int, paths: tuple[str, ...]) -> dict[str, int]:
    """The length of the longest text in the dictionary of each of these columns of a row group."""
    found: dict[str, int] = {}
    for path in paths:
        batch = next(encoded.iter_batches(batch_size=1, row_groups=[number], columns=[path]), None)
        if batch is not None:
            found[path] = _longest_below(batch.column(0))
    return found


def _longest_below(array: Array) -> int:
    """The longest text in the one dictionary below lists and structs."""
    import pyarrow.compute as pc

    while not pa.types.is_dictionary(array.type):
        if pa.types.is_struct(array.type):
            array = array.field(0)
        elif isinstance(array.type, pa.BaseExtensionType):
            array = array.storage
        else:
            array = array.values
    lengths = pc.max(pc.binary_length(array.dictionary)).as_py()
    return int(lengths or 0)


@contextmanager
def opened(source: Source) -> Iterator[Any]:
    """A Parquet file as pyarrow has it, to be read through a small window and checked.

    Raises:
        ForeignError: it is of another format, or encrypted, at which pyarrow would end the process.
        OSError: it can't be opened.
        pyarrow.ArrowException: it is damaged.
    """
    with _bytes_of(source) as file:
        yield _checked(file)


@contextmanager
def table(source: Source) -> Iterator[Opened]:
    """A Parquet file to be read in pieces; raises what ``opened`` does."""
    with _bytes_of(source) as file:
        yield Opened(_checked(file), file)


def _bytes_of(source: Source) -> Any:
    system, path = filesystem(source.path or "")
    return pa.OSFile(path) if system is None else system.open_input_file(path)


def _checked(file: Any) -> Any:
    size = file.size()
    head = file.read_at(min(size, foreign.HEAD), 0)
    tail = file.read_at(8, size - 8) if size >= 8 else b""
    if tail[4:] == _ENCRYPTED_MAGIC:
        raise foreign.encrypted()
    if size and foreign.PARQUET not in (head[:4], tail[4:]):
        raise foreign.no_parquet(head)
    parquet = _parquet(file)
    if struct.unpack("<I", tail[:4])[0] == parquet.metadata.serialized_size + _SIGNATURE:
        raise foreign.encrypted()
    return parquet


def _parquet(file: Any, **options: Any) -> Any:
    import pyarrow.parquet as pq

    return pq.ParquetFile(
        file, pre_buffer=False, buffer_size=_WINDOW, page_checksum_verification=True, **options
    )


def batches(file: Any, rows: int, size: int, *columns: str) -> Iterator[Any]:
    """Batches of whole columns of a file that is ``opened``, of so many rows and bytes at most, decoded.

    Raises:
        InputError: a single row is too large.
    """
    names = set(columns)
    table = Opened(file, None)
    for piece in table.pieces(
        lambda path: path.partition(".")[0] in names, rows=rows, documents=rows, size=size
    ):
        if piece.bytes is not None:
            raise InputError(f"row {piece.first}: {too_large(piece.bytes)}")
        yield piece.rows
