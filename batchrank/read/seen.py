"""Which query ids came already, and where."""

import sqlite3

from batchrank.errors import InputError, Place


class SeenIds:
    """Exact, and bounded in memory: SQLite keeps the ids in an anonymous temporary file, about 50 bytes each."""

    _CACHE_KIB = 8192

    def __init__(self) -> None:
        # The reader may be driven from one thread after another, never from two at a time.
        self._database = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._database.execute(f"PRAGMA cache_size = -{self._CACHE_KIB}")
        self._database.execute("PRAGMA journal_mode = OFF")
        self._database.execute(
            "CREATE TABLE seen (id BLOB PRIMARY KEY, file INTEGER, unit TEXT, number INTEGER) WITHOUT ROWID"
        )
        self._database.execute("BEGIN")
        self._files: dict[str, int] = {}

    def add(self, query_id: str, place: Place) -> Place | None:
        """Note an id; return where it came first if it is not new.

        Raises:
            InputError: the temporary file can't be written.
        """
        key = query_id.encode("utf-8", "surrogatepass")
        file = self._files.setdefault(place.file, len(self._files))
        try:
            new = self._database.execute(
                "INSERT INTO seen VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
                (key, file, place.unit, place.number),
            )
            if new.rowcount:
                return None
            found = self._database.execute("SELECT file, unit, number FROM seen WHERE id = ?", (key,))
            file, unit, number = found.fetchone()
        except sqlite3.Error as error:
            raise InputError(
                f"the list of query ids seen, which finds duplicates, can't be kept in a temporary file: {error}; "
                "free some space, or set SQLITE_TMPDIR to a folder that has some"
            ) from error
        return Place(list(self._files)[file], unit, number)

    def close(self) -> None:
        """Drop the list."""
        self._database.close()
