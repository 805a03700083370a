"""Holds all errors, with when each is raised, the exit codes that they end with, and what makes their messages safe.

Messages quote servers and data, which may hold what steers a terminal.
"""

import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from functools import cache


class ExitCode(IntEnum):
    """What a command ends with, so that a scheduler knows what to do; the README's table explains each code."""

    COMPLETE = 0
    FAILED = 1
    USAGE = 2
    FAILED_QUERIES = 3
    INPUT = 4
    GATE = 5
    STOPPED = 75
    HANGUP = 129
    INTERRUPTED = 130
    TERMINATED = 143

    @classmethod
    def of_signal(cls, number: int) -> "ExitCode":
        """The code of a run that SIGHUP, SIGINT or SIGTERM ended, as shells tell it: 128 and the signal's number."""
        return cls(128 + number)

    @property
    def complete(self) -> bool:
        """Whether the output is complete, though queries may be missing from it, or it may have failed the gate."""
        return self in (ExitCode.COMPLETE, ExitCode.FAILED_QUERIES, ExitCode.GATE)

    @property
    def interrupted(self) -> bool:
        """Whether a signal ended it."""
        return self >= ExitCode.HANGUP


class BatchrankError(Exception):
    """The root of all errors batchrank raises on purpose; its text is meant for the user."""

    exit_code = ExitCode.FAILED

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        """Let it be told to another process, whatever its subclass is made of."""
        return _restored, (type(self), self.args, self.__dict__)


def _restored(
    kind: type[BatchrankError], args: tuple[object, ...], state: dict[str, object]
) -> BatchrankError:
    error = kind.__new__(kind)
    error.args = args
    error.__dict__.update(state)
    return error


class JobError(BatchrankError):
    """Raised when a job file, an environment variable or ``--set`` can't be understood or used."""

    exit_code = ExitCode.USAGE


class UnknownModelError(JobError):
    """Raised when a job names a model that has no card, or one that its vendor discontinued."""


class MissingExtraError(JobError):
    """Raised when a feature needs an optional dependency that is missing; names the install line."""


def install_line(extra: str) -> str:
    """The command that installs an extra for the interpreter that runs; other ones may come first on ``PATH``."""
    return f"{shlex.quote(sys.executable)} -m pip install 'batchrank[{extra}]'"


class InputError(BatchrankError):
    """Raised when the input as a whole is unusable: no such file, ambiguous columns, no query that can be ranked."""

    exit_code = ExitCode.INPUT


class UnsortedError(InputError):
    """Raised when the pairs of one query don't follow one another, and ``input.sort`` isn't set."""


class OutputError(BatchrankError):
    """Raised when rankings can't be written: no permission, disk full, a file that isn't ours."""


class StoreAwayError(OutputError):
    """Raised when the store that the output goes to has failed for too long; the run can go on where it stopped."""

    exit_code = ExitCode.STOPPED


class RunStoppedError(BatchrankError):
    """Raised when an answer means that no request of this run can succeed: bad key, unpaid account."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where in the input something stands.

    ``unit`` says what ``number`` counts from 1: ``line`` (JSONL), ``row`` (Parquet), ``query`` (an iterable).
    """

    file: str
    unit: str
    number: int

    def __str__(self) -> str:
        return f"{self.file}, {self.unit} {self.number}"


class QueryError(BatchrankError):
    """Raised when one query can't be ranked; the rest of the run goes on and the query becomes a dead letter.

    ``cause`` is a short stable word for machines, the text is for people.
    """

    exit_code = ExitCode.FAILED_QUERIES

    def __init__(self, cause: str, message: str, *, attempts: int = 0) -> None:
        super().__init__(message)
        self.cause = cause
        self.attempts = attempts


class MalformedAnswerError(BatchrankError):
    """Raised by a wire codec when an answer doesn't score each document of its request exactly once."""


class LedgerError(BatchrankError):
    """Raised when the ledger can't be opened, read or written: in use, disk full, damaged, gone."""


class StoppedError(BatchrankError):
    """Raised when a run ended early but can go on where it stopped: budget, outage, interruption."""

    exit_code = ExitCode.STOPPED


class BudgetReachedError(StoppedError):
    """Raised when the next request could pass a cap.

    A day's cap begins anew tomorrow (exit code 75, as ``later``); any other one has to be raised by a person (1).
    """

    def __init__(self, message: str, *, later: bool = False) -> None:
        super().__init__(message)
        self.exit_code = ExitCode.STOPPED if later else ExitCode.FAILED


class QuotaError(StoppedError):
    """Raised when the API says that the account's quota is used up, and when it will be there again."""


class OutageError(StoppedError):
    """Raised when no request has succeeded for a long time, or too many answers are lost for those that arrive."""


class TimeReachedError(StoppedError):
    """Raised when the time is up that a run was given (``--max-time``, ``--until``)."""


class InterruptedRunError(StoppedError):
    """Raised when a signal asked the run to stop; ``signal`` is its number."""

    def __init__(self, message: str, signal: int) -> None:
        super().__init__(message)
        self.signal = signal
        self.exit_code = ExitCode.of_signal(signal)


class TooManyFailuresError(BatchrankError):
    """Raised when more queries failed than the job allows, or all, and an earlier complete output would be lost."""


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


@cache  # the tables are made when something is printed, as each takes a millisecond
def _table(escape: Callable[[int], str]) -> dict[int, str]:
    return {code: escape(code) for code in (*_CONTROLS, *_DIRECTIONS, *_LINES, *_UNSEEN, *_SURROGATES)}


@cache
def _text_table(lines: bool) -> dict[int, str]:
    return _table(_escape) | _SHORT | ({ord("\n"): "\n  "} if lines else {})


@cache
def _json_table() -> dict[int, str]:
    return {code: text for code, text in _table(_in_json).items() if code != ord("\n")}


def escaped(text: str, *, lines: bool = False) -> str:
    r"""A text that prints as what it is: control characters, changes of direction and the like as ``\x1b``, ``\u202e``.

    Args:
        text: whatever somebody else may have had a hand in.
        lines: keep its lines, each but the first indented, so that none can pass for a line of ours.
    """
    return text.translate(_text_table(lines))


def escaped_json(text: str) -> str:
    r"""The same JSON, with what could steer a terminal written as ``\u009b``."""
    return text.translate(_json_table())
