"""A text file that appears complete or not at all."""

from pathlib import Path

from batchrank.io.atomic import Folder


def write_text(path: str | Path, text: str) -> None:
    """Write a file in UTF-8, durably and as a whole, in place of an older one.

    Raises:
        OutputError: it can't be written.
    """
    path = Path(path)
    folder = Folder(path.parent)
    try:
        file = folder.create(path.name)
        try:
            # An id that came from Python may hold half a surrogate pair, which no file can.
            file.write(text.encode("utf-8", "replace"))
            file.publish()
        finally:
            file.discard()
        folder.sync()
    finally:
        folder.close()
