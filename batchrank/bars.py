"""Draws how far work has come, on terminals and in notebooks: all bars are drawn here, so that they look alike.

Elsewhere nothing is drawn. rich is imported when something is, because short commands and jobs of a scheduler need none
of it.
"""

import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec
from types import TracebackType
from typing import TYPE_CHECKING, Any, TextIO

from batchrank.errors import escaped

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.text import Text

_REFRESH = 4
"""Drawings a second: enough for the eye, and next to no work."""
_QUIET = 0.5
"""Seconds after which work is worth a bar."""
_SURE = 0.01
"""The least share by which the rest is told: before, it would be a guess."""
_WIDEST = 60
"""Columns of the widest bar, roughly: a longer one tells no more."""
_BESIDE = 60
"""Columns of what stands beside it."""
_LEAST = 10
"""Columns of the shortest bar, and of the shortest text."""
_NAMES = 15
"""Columns of a label and a percentage."""
_THIN = str.maketrans("━╸╺", "─╴╶")
_UNTITLED = ("", "dumb", "linux", "unknown")
"""Terminals without a title, or that would print what sets it."""


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar.

    Attributes:
        label: what it is about, a word or two.
        share: the part that is done, 0 to 1; None where that isn't known: then something moves.
        text: what stands after it.
        thin: whether it is a minor one.
    """

    label: str
    share: float | None
    text: str = ""
    thin: bool = False


def duration(seconds: float) -> str:
    """Seconds for people: ``3.2 s``, ``4 min 10 s``, ``2 h 5 min``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def to_go(share: float | None, elapsed: float) -> str:
    """How long the rest takes at the pace so far; how long it has taken, where the share isn't known."""
    if share is None or share < _SURE:
        return duration(elapsed)
    return f"about {duration(elapsed * (1 - share) / share)} to go"


def plain_console(
    stream: TextIO,
    *,
    shown: Callable[[str], str] = escaped,
    width: int | None = None,
    soft_wrap: bool = False,
) -> "Console":
    """A console that shows every text as what it is: no markup, no codes of others.

    Args:
        stream: where it writes.
        shown: makes a text safe to show.
        width: columns where the stream is no terminal.
        soft_wrap: leave long lines as they are.
    """
    from rich.console import Console

    class Plain(Console):
        def render_str(self, text: str, **options: Any) -> "Text":  # be it printed alone or in a table
            return super().render_str(shown(text), **options)

    return Plain(
        file=stream,
        width=None if stream.isatty() else width,
        soft_wrap=soft_wrap,
        markup=False,
        emoji=False,
        highlight=False,
    )


def drawing_console(wanted: bool | None, shown: Callable[[str], str] = escaped) -> "Console | None":
    """Where a program that uses the library draws: on stderr where that is a terminal, or in its notebook.

    Args:
        wanted: False for nowhere; True for a terminal's lines even where stderr is none.
        shown: makes a text safe to show.
    """
    notebook = "ipykernel" in sys.modules and find_spec("ipywidgets") is not None
    if wanted is False or not (wanted or notebook or sys.stderr.isatty()):
        return None
    return plain_console(sys.stderr, shown=shown)


def drawable(console: "Console | None") -> bool:
    """Whether something can be drawn there in place."""
    if console is None:
        return False
    return console.is_jupyter or (console.is_terminal and not console.is_dumb_terminal)


def drawn(bars: Sequence[Bar], lines: Sequence[str] = ()) -> "RenderableType":
    """Bars below one another, and lines below them."""
    from rich.console import Group

    return Group(_Grid(bars), *lines)


class _Grid:
    """Bars with their labels and texts; where there is little room, a text is cut before its bar is."""

    def __init__(self, bars: Sequence[Bar]) -> None:
        self._bars = bars

    def __rich_console__(self, console: "Console", options: Any) -> Iterator[Any]:
        from rich.progress_bar import ProgressBar
        from rich.table import Table

        width = min(options.max_width, _WIDEST + _BESIDE)
        grid = Table.grid(padding=(0, 1), expand=True)
        grid.width = width
        grid.add_column(no_wrap=True)
        grid.add_column(ratio=1)
        grid.add_column(justify="right", no_wrap=True)
        grid.add_column(no_wrap=True, overflow="ellipsis", max_width=max(_LEAST, width - _LEAST - _NAMES))
        for bar in self._bars:
            known = bar.share is not None
            line = ProgressBar(
                total=1.0 if known else None, completed=min(1.0, bar.share or 0.0), pulse=not known
            )
            percent = f"{min(1.0, bar.share):.0%}" if bar.share is not None else ""
            grid.add_row(bar.label, _Thin(line) if bar.thin else line, percent, bar.text)
        yield grid


class _Thin:
    """A bar of thin lines, so that a minor one is seen to be that."""

    def __init__(self, bar: Any) -> None:
        self._bar = bar

    def __rich_console__(self, console: "Console", options: Any) -> Iterator[Any]:
        from rich.segment import Segment

        for segment in console.render(self._bar, options):
            yield Segment(segment.text.translate(_THIN), segment.style, segment.control)


class Screen:
    """A part of the terminal that is drawn anew in place, and gone in the end; with it, the terminal's title.

    Args:
        console: where; see ``drawable``.
        look: what to draw, asked for by a thread four times a second; without it, ``show`` draws.
    """

    def __init__(self, console: "Console", look: "Callable[[], RenderableType] | None" = None) -> None:
        from rich.live import Live

        self._console = console
        self._live = Live(
            console=console,
            transient=True,
            auto_refresh=look is not None,
            refresh_per_second=_REFRESH,
            get_renderable=look,
            redirect_stdout=sys.stdout is not None and sys.stdout.isatty(),
        )
        self._titled = console.is_terminal and os.environ.get("TERM", "") not in _UNTITLED

    def __enter__(self) -> "Screen":
        self._live.start(refresh=False)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()
        if self._titled and self._title_kept:
            # Terminals that keep no titles are left without one, as most start.
            self._console.set_window_title("")
            self._write("\x1b[23;0t")

    _title_kept = False

    def show(self, bars: Sequence[Bar], lines: Sequence[str] = (), title: str = "") -> None:
        """Draw; a title goes to where the terminal's window has its own."""
        self._live.update(drawn(bars, lines), refresh=True)
        if title and self._titled:
            if not self._title_kept:
                self._title_kept = True
                self._write("\x1b[22;0t")
            self._console.set_window_title(escaped(title))

    def say(self, line: str) -> None:
        """Print a line above what is drawn."""
        self._console.print(line, soft_wrap=True)

    def _write(self, code: str) -> None:
        self._console.file.write(code)
        self._console.file.flush()


@contextmanager
def working(
    console: "Console | None", look: Callable[[], Bar], *, after: float | None = None
) -> Iterator[None]:
    """Draw a bar while the block runs, once that takes a while; what it is about may change meanwhile.

    Args:
        console: where; None, or one that can't be drawn on, for nowhere.
        look: the bar as it is now; how long the rest takes is added.
        after: seconds before anything is drawn; None for as long as short work takes.
    """
    if console is None or not drawable(console):
        yield
        return
    started = time.monotonic()

    def drawing() -> "RenderableType":
        elapsed = time.monotonic() - started
        if elapsed < (_QUIET if after is None else after):
            return ""
        bar = look()
        return drawn([replace(bar, text=", ".join(filter(None, [bar.text, to_go(bar.share, elapsed)])))])

    with Screen(console, drawing):
        yield
