"""Text in UTF-16 or UTF-32 -> UTF-8, because Windows tools write the first and every reader here takes the last.

What the text is written in is told by its byte order mark. Without one, a zero byte beside the first character tells:
JSON and columns begin with a character of ASCII.
"""

import codecs
import io
from typing import Any

BUFFER = 1 << 16
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def encoding_of(start: bytes) -> str | None:
    """What a text that begins so is written in; None for UTF-8, which is read as it is."""
    for mark, name in _MARKS:
        if start.startswith(mark):
            return name
    if len(start) >= 2 and start[0] and not start[1]:
        return "utf-32-le" if start[2:4] == b"\0\0" else "utf-16-le"
    if len(start) >= 2 and start[1] and not start[0]:
        return "utf-16-be"
    return None


def in_utf8(text: io.BufferedReader) -> io.BufferedReader:
    """A text in UTF-8, whatever it is written in.

    Raises:
        OSError: from reading what is returned: the text is not what its start says.
    """
    encoding = encoding_of(text.peek(4)[:4])
    return text if encoding is None else io.BufferedReader(_Recoded(text, encoding), BUFFER)


class _Recoded(io.RawIOBase):
    def __init__(self, source: io.BufferedReader, encoding: str) -> None:
        self._source, self._encoding = source, encoding
        self._decoder = codecs.getincrementaldecoder(encoding)()
        self._ready = memoryview(b"")
        self._ended = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        while not self._ready and not self._ended:
            data = self._source.read(BUFFER)
            self._ended = not data
            try:
                self._ready = memoryview(self._decoder.decode(data, final=self._ended).encode())
            except UnicodeError as error:
                raise OSError(f"its {self._encoding.upper()} text is cut off or corrupt ({error})") from error
        count = min(len(buffer), len(self._ready))
        buffer[:count] = self._ready[:count]
        self._ready = self._ready[count:]
        return count
