"""x"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO, Protocol, TypeAlias

import orjson

from batchrank.outcomes import Ranking
from batchrank.write.rows_ import merge_row, ranking_rows


class PartWriter(Protocol):
    """Writes the files of one output part, in memory bounded whatever the part's size."""

    def add(self, ranking: Ranking) -> None:
        """Take the next ranking.

        Raises:
            OutputError: the format can't hold it.
        """

    def finish(self) -> None:
        """Write what is still held back; the files themselves stay open."""


MakeWriter: TypeAlias = Callable[..., PartWriter]


@dataclass(frozen=True, slots=True)
class OutputFormat:
    """How rankings are written.

    Attributes:
        kinds: the files of one part, in the order in which ``writer`` takes them: (stem, suffix).
        single: all rankings go into one part, whatever its size.
        texts: whether rankings must hold the query and the documents themselves.
        dataset: whether ``writer`` takes the dataset's ``subset`` and ``split`` by name.
        spaceless: whether ids must be free of white space, which sets columns apart.
    """

    kinds: tuple[tuple[str, str], ...]
    writer: MakeWriter
    single: bool = False
    texts: bool = False
    dataset: bool = False
    spaceless: bool = False


class JsonlWriter:
    """One line a query: its id, its ranking, and how that was made."""

    def __init__(self, files: tuple[BinaryIO, ...]) -> None:
        (self._file,) = files

    def add(self, ranking: Ranking) -> None:
        """Write one line."""
        self._file.write(line(ranking))

    def finish(self) -> None:
        """Nothing is held back."""


def line(ranking: Ranking) -> bytes:
    """The line of one query, with its line end."""
    data = {"query_id": ranking.query_id, "ranking": ranking_rows(ranking), "merge": merge_row(ranking)}
    return orjson.dumps(data, option=orjson.OPT_APPEND_NEWLINE)
