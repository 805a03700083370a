"""Decides which requests fail and how, from a seed and the requests alone, so that every fault can be repeated.

What decides is the seed, the request's content, and how often that request has come.

A fault is named ``<base>`` or, for refusals, ``<base>+<twist>+...``. There are four kinds:

1. refusals (``429-requests``, ``503``, ...): nothing is computed and nothing billed; see ``rejections``;
2. answers with wrong content (``score-nan``, ``index-missing``, ...): computed and billed; see ``answer``;
3. answers whose body is broken (``json-truncated``, ...): computed and billed; see ``answer``;
4. connections that break (``reset-before-headers``, ``slow-loris``, ...): see ``delivery``.

A request may meet several: its first refusal, else all wrong contents and the first broken connection.
"""

import difflib
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from typing import Protocol

from batchrank.emulator.answers import BODY_FAULTS, DELIVERY_FAULTS, RESULT_FAULTS, UNBILLED_DELIVERIES
from batchrank.emulator.refusals import REJECTIONS, Rejection
from batchrank.errors import JobError

TWISTS = {
    "after-seconds": "sends Retry-After in seconds",
    "after-date": "sends Retry-After as an HTTP-date",
    "after-absurd": "sends a Retry-After of a year",
    "after-garbage": "sends a Retry-After that is no time at all",
    "nested": "puts the error into an error object",
    "in-200": "sends the error with HTTP status 200",
    "html": "sends a gateway's HTML page",
}
"""What a refusal's name may be followed by."""

_YEAR = 365 * 24 * 3600
"""Seconds; no server means a pause so long, so a client must not believe it."""
_BASES = (*REJECTIONS, *RESULT_FAULTS, *BODY_FAULTS, *DELIVERY_FAULTS)

FAULTS: tuple[str, ...] = (
    *_BASES,
    *(
        f"{base}+{after}"
        for base in ("429", "429-requests", "503")
        for after in TWISTS
        if after.startswith("after-")
    ),
    *(
        "500+in-200",
        "429-tokens+in-200",
        "429-requests+nested",
        "500+nested",
        "502+html",
        "503+html",
        "500+html+in-200",
    ),
)
"""Every base, and the usual twists."""


def check_fault(name: str) -> None:
    """Check a fault's name.

    Raises:
        JobError: no such fault, or the twist doesn't go with it.
    """
    base, *twists = name.split("+")
    if base not in _BASES:
        close = difflib.get_close_matches(base, _BASES, n=3) or sorted(_BASES)
        raise JobError(f"emulator: unknown fault {name!r}; did you mean one of: {', '.join(close)}?")
    for twist in twists:
        if twist not in TWISTS or base not in REJECTIONS:
            raise JobError(f"emulator: {name!r}: only refusals take a twist, one of: {', '.join(TWISTS)}")


class FaultSettings(Protocol):
    """The switches that faults follow; ``Settings`` tells what they mean."""

    @property
    def seed(self) -> int: ...  # noqa: D102
    @property
    def faults(self) -> Mapping[str, float]: ...  # noqa: D102
    @property
    def fault_limit(self) -> int: ...  # noqa: D102
    @property
    def script(self) -> Mapping[int, str]: ...  # noqa: D102
    @property
    def retry_seconds(self) -> float: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class Fate:
    """What happens to one request.

    Attributes:
        names: the faults as named.
        rejection: its refusal.
        results: wrong contents, by name.
        bodies: broken bodies, by name.
        delivery: a broken connection, by name.
    """

    names: tuple[str, ...] = ()
    rejection: Rejection | None = None
    results: tuple[str, ...] = ()
    bodies: tuple[str, ...] = ()
    delivery: str | None = None

    @property
    def billed(self) -> bool:
        """Whether the answer is computed, so that it costs."""
        return self.rejection is None and self.delivery not in UNBILLED_DELIVERIES


@dataclass(slots=True)
class Fates:
    """Decides requests' fates; remembers how often each content came, if any fault is drawn."""

    settings: FaultSettings
    _times_failed: dict[bytes, int] = field(default_factory=dict)
    _times_seen: dict[bytes, int] = field(default_factory=dict)

    def draw(self, number: int, content: bytes) -> Fate:
        """The fate of the request with this number (from 1) and this digest of its content."""
        scripted = self.settings.script.get(number)
        if scripted is not None:
            return self.named(scripted)
        if not self.settings.faults:
            return Fate()
        seen = self._times_seen[content] = self._times_seen.get(content, 0) + 1
        failed = self._times_failed.get(content, 0)
        if self.settings.fault_limit and failed >= self.settings.fault_limit:
            return Fate()
        rng = rng_for(self.settings.seed, content, f"fault {seen}")
        names = [name for name, probability in self.settings.faults.items() if rng.random() < probability]
        if names:
            self._times_failed[content] = failed + 1
        return self.named(",".join(names)) if names else Fate()

    def named(self, names: str) -> Fate:
        """The fate that consists of these faults, joined by commas."""
        listed = tuple(names.split(","))
        refusals = [self._rejection(name) for name in listed if name.split("+")[0] in REJECTIONS]
        deliveries = [name for name in listed if name in DELIVERY_FAULTS]
        return Fate(
            names=listed,
            rejection=refusals[0] if refusals else None,
            results=tuple(name for name in listed if name in RESULT_FAULTS),
            bodies=tuple(name for name in listed if name in BODY_FAULTS),
            delivery=deliveries[0] if deliveries else None,
        )

    def _rejection(self, name: str) -> Rejection:
        base, *twists = name.split("+")
        rejection = REJECTIONS[base]
        for twist in twists:
            if twist == "nested":
                rejection = replace(rejection, shape="nested")
            elif twist == "in-200":
                rejection = replace(rejection, shape="in-200")
            elif twist == "html":
                rejection = replace(rejection, html=True)
            else:
                rejection = with_retry_after(rejection, twist, self.settings.retry_seconds)
        return rejection


def with_retry_after(rejection: Rejection, how: str, seconds: float) -> Rejection:
    """The refusal with a Retry-After header, by one of the ``after-`` twists."""
    from email.utils import formatdate  # which takes a few milliseconds to import

    values = {
        "after-seconds": f"{seconds:g}",
        "after-date": formatdate(time.time() + seconds, usegmt=True),
        "after-absurd": str(_YEAR),
        "after-garbage": "soon",
    }
    return replace(rejection, headers=(*rejection.headers, ("Retry-After", values[how])))


def rng_for(seed: int, content: bytes, purpose: str) -> random.Random:
    """Random numbers that follow from the seed, a content's digest and what they are for."""
    key = blake2b(content, digest_size=8, key=seed.to_bytes(16, "big", signed=True), person=b"batchrank")
    key.update(purpose.encode())
    return random.Random(int.from_bytes(key.digest(), "big"))  # noqa: S311 - reproducible on purpose
