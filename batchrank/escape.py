"""Escapes what could steer a terminal, because servers and datasets can say anything: titles, colours, forged lines."""

_CONTROLS = [*range(0x20), *range(0x7F, 0xA0)]
_DIRECTIONS = [0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)]
"""What turns the order of the letters around it, so that a name reads as another one."""
_LINES = [0x2028, 0x2029]
_UNSEEN = [*range(0xFFF9, 0xFFFC), *range(0xE0000, 0xE0080)]
"""Annotations and tags, which no terminal shows."""
_SURROGATES = range(0xD800, 0xE000)
"""Halves of a pair, which no stream in UTF-8 can carry."""
_SHORT = {ord("\n"): "\\n", ord("\r"): "\\r", ord("\t"): "\\t"}


def _escape(code: int) -> str:
    if code <= 0xFF:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


def _in_json(code: int) -> str:
    """JSON has but one form of escape, of which letters beyond the first 65,536 take two."""
    units = chr(code).encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[i : i + 2].hex()}" for i in range(0, len(units), 2))


_ALL = [*_CONTROLS, *_DIRECTIONS, *_LINES, *_UNSEEN, *_SURROGATES]
_ONE_LINE = {code: _escape(code) for code in _ALL} | _SHORT
_SEVERAL = {code: text for code, text in _ONE_LINE.items() if code != ord("\n")} | {ord("\n"): "\n  "}
_JSON = {code: _in_json(code) for code in _ALL if code not in (ord("\n"), ord(" "))}


def escaped(text: str, *, lines: bool = False) -> str:
    r"""A text that prints as what it is: control characters, changes of direction and the like as ``\x1b``, ``\u202e``.

    Args:
        text: whatever somebody else may have had a hand in.
        lines: keep its lines, each but the first indented, so that none can pass for a line of ours.
    """
    return text.translate(_SEVERAL if lines else _ONE_LINE)


def escaped_json(text: str) -> str:
    r"""The same JSON, with what could steer a terminal written as ``\u009b``."""
    return text.translate(_JSON)
