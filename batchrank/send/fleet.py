"""Deals requests out to the servers of one model, and takes out those that fail until they answer again.

An endpoint at one address is a fleet of one. The last server in service is never taken out: when it fails too, that is
the endpoint's outage, which ``health`` tells and the whole run waits out.
"""

import asyncio
import logging
import math
from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from batchrank.data import Rejection
from batchrank.job.endpoint import bare_address
from batchrank.send.concurrency import ConcurrencyLimit
from batchrank.send.retry import Action, slows

if TYPE_CHECKING:
    from batchrank.send.transport import Http

log = logging.getLogger(__name__)

_IN_A_ROW = 3
"""Failures in a row after which a server is taken out: one may be a bad document's, two a coincidence."""
_FIRST_PAUSE = 1.0
"""Seconds from a server's being taken out to its first probe: most that restart are back in a moment."""
_LONGEST_REST = 60.0
"""Seconds that a server rests at most which answers probes and fails with all else: each try may be billed."""


class Replica:
    """One server of a fleet.

    Attributes:
        http: what asks it.
        places: how many requests it may have in flight, and how many it has.
        name: its address as far as it tells the fleet's servers apart; never an address's query.
        url: its address as the ledger notes it.
        key_name: the name of the API key that it is asked with where a request is given none.
        requests: requests that came to an end there, and ``failures`` those of them that failed, 429s apart.
        out: whether it is taken out, so that only probes are sent there; ``outs`` tells how often it was.
        went_out: set while it is out.
        pause: seconds to the next probe while it is out.
        failed_in_a_row: failures of its own without an answer between them.
        trial: requests that it may have in flight until it has answered one after it was out; 0 for no trial.
        back_at: when it came back last.
        why: how it failed last.
    """

    def __init__(
        self, http: "Http", places: ConcurrencyLimit, name: str = "", *, url: str = "", key_name: str = ""
    ) -> None:
        self.http = http
        self.places = places
        self.name, self.url, self.key_name = name, url, key_name
        self.requests = self.failures = self.outs = 0
        self.out = False
        self.went_out = asyncio.Event()
        self.pause = _FIRST_PAUSE
        self.failed_in_a_row = 0
        self.trial = 0
        self.back_at = -math.inf
        self.why: Rejection | None = None

    @property
    def limit(self) -> int:
        """Requests that it may have in flight now."""
        return self.trial or self.places.limit

    def state(self) -> dict[str, Any]:
        """How it stands, as plain data."""
        return {
            "name": self.name,
            "requests": self.requests,
            "failures": self.failures,
            "in_flight": self.places.busy,
            "outs": self.outs,
            "out": str(self.why) if self.out else None,
        }


class Fleet:
    """The servers, and how many requests all of them may have in flight.

    Attributes:
        replicas: all servers.
        busy: requests in flight, at servers that are out too.
        limit: requests that may be in flight now.
        most: requests that may ever be in flight.
        queries: queries that may be under way, so that a request is always at hand and no more documents are held.

    Args:
        replicas: the servers, at least one.
        fixed: so many requests in flight for all of them together, dealt out among those in service; None where each
            server's own limit counts alone.
    """

    def __init__(self, replicas: Sequence[Replica], fixed: int | None = None) -> None:
        self.replicas = tuple(replicas)
        self._serving = list(replicas)
        self._fixed = fixed
        self._turn = 0
        self.busy = 0
        self._deal()
        self.most = fixed or sum(replica.places.most for replica in replicas)

    @property
    def serving(self) -> int:
        """Servers in service."""
        return len(self._serving)

    @property
    def room(self) -> bool:
        """Whether one more request may be in flight."""
        if self.busy < self.limit:
            for one in self._serving:
                if one.places.busy < (one.trial or one.places.limit):
                    return True
        return False

    def choose(self, met: Collection[Replica] = (), *, full: bool = False) -> Replica | None:
        """The least busy server, by what it may have in flight; of several such one after the other.

        Args:
            met: servers that the request failed at, which are asked again only once there is no other in service.
            full: whether it may be one that has no room.

        Returns:
            None where none of those that come into question has room.
        """
        candidates = [one for one in self._serving if one not in met] if met else self._serving
        candidates = candidates or self._serving
        self._turn += 1
        best, least = None, math.inf
        for number in range(len(candidates)):
            one = candidates[(self._turn + number) % len(candidates)]
            busy, limit = one.places.busy, one.trial or one.places.limit
            if busy / limit < least and (full or busy < limit):
                best, least = one, busy / limit
        return best

    def take(self, replica: Replica) -> None:
        """One request more is in flight there."""
        replica.places.busy += 1
        self.busy += 1

    def leave(self, replica: Replica) -> None:
        """One request less is."""
        replica.places.busy -= 1
        self.busy -= 1

    def others(self, met: Collection[Replica]) -> bool:
        """Whether there is a server in service that a request has not failed at."""
        return any(one not in met for one in self._serving)

    def answered(
        self, replica: Replica, now: float, latency: float, rate: float, *, waiting: bool, probe: bool
    ) -> None:
        """Learn that a server answered after so many seconds; only a probe's answer brings it back.

        Args:
            replica: the server.
            now: the time, seconds.
            latency: how long it took, seconds.
            rate: requests a second that the quota allows.
            waiting: whether requests wait for their turn.
            probe: whether it was a probe.
        """
        replica.requests += 1
        before, trial = replica.places.limit, replica.trial
        share = 1 / max(1, len(self._serving))
        replica.places.succeeded(now, latency, rate, waiting=waiting, share=share)
        if replica.out:
            if probe:
                self._bring_back(replica, now)
            return
        replica.failed_in_a_row = 0
        if not probe:
            replica.trial, replica.pause = 0, _FIRST_PAUSE
        if trial or replica.places.limit != before:
            self._count()

    def failed(
        self, replica: Replica, why: Rejection, action: Action, sent: float, *, excused: bool = False
    ) -> None:
        """Learn that a request failed at a server, and take that out if it is the server's fault and not the last.

        1. Nobody is there, or somebody else: at once, and so when it fails on trial.
        2. Nothing usable came, an error of its own or a denial, some times in a row: then.
        3. What it refused for a reason shows that it works; a 429 and a suspended process of ours show nothing, nor
           does what was sent before it came back, or is ``excused`` as the key's fault.
        """
        replica.requests += 1
        if slows(action) or why.code == "held-up" or excused:
            return
        replica.failures += 1
        if sent < replica.back_at:
            return
        hopeless = why.code in ("unreachable", "certificate")
        if not hopeless and action not in (Action.RETRY, Action.ACCESS):
            replica.failed_in_a_row = 0
            return
        replica.failed_in_a_row += 1
        replica.why = why
        if not replica.out and (hopeless or replica.trial or replica.failed_in_a_row >= _IN_A_ROW):
            self._take_out(replica)

    def struggled(self, replica: Replica, now: float) -> None:
        """Learn that a server did not cope: a time-out or a broken connection."""
        replica.places.struggled(now)
        self._count()

    def states(self) -> list[dict[str, Any]]:
        """How each of several servers stands; nothing where there is one, as all that is told is of it."""
        return [one.state() for one in self.replicas] if len(self.replicas) > 1 else []

    @property
    def notices(self) -> Iterator[str]:
        """What the user should know of the servers when the run has ended."""
        for one in self.replicas:
            if one.http.notice is not None:
                yield one.http.notice
            if one.outs:
                often = "once" if one.outs == 1 else f"{one.outs:,} times"
                ended = "is still out" if one.out else "came back"
                yield (
                    f"{one.name} was taken out {often}, as requests failed there, and {ended}; the last failure: "
                    f"{one.why}. The other replicas took over"
                )

    def _take_out(self, replica: Replica) -> None:
        if len(self._serving) < 2:
            return
        if replica.trial:
            replica.pause = min(2 * replica.pause, _LONGEST_REST)
        self._serving.remove(replica)
        replica.out, replica.trial = True, 0
        replica.outs += 1
        replica.went_out.set()
        log.warning(
            "%s is taken out, and asked every few seconds whether it works: %s", replica.name, replica.why
        )
        self._deal()

    def _bring_back(self, replica: Replica, now: float) -> None:
        self._serving.append(replica)
        replica.out, replica.failed_in_a_row, replica.back_at = False, 0, now
        replica.trial = max(1, replica.places.busy)  # the probe's place, besides those that hang from before
        replica.went_out.clear()
        log.warning("%s answers again", replica.name)
        for other in [*self._serving]:  # one that was the last in service, and failing
            if other.failed_in_a_row >= _IN_A_ROW:
                self._take_out(other)
        self._deal()

    def _deal(self) -> None:
        """Deal a fixed number out among the servers in service; rounded up, as the sum is kept besides."""
        if self._fixed is not None:
            for one in self._serving:
                one.places.fix(math.ceil(self._fixed / len(self._serving)))
        self._count()

    def _count(self) -> None:
        limit = sum([one.limit for one in self._serving])
        self.limit = limit if self._fixed is None else min(limit, self._fixed)
        self.queries = self.limit + self.limit // 4 + 24


def names(urls: Sequence[str]) -> list[str]:
    """What each address is called: its host and port; its path too, and then a number, where that tells too little."""
    parts = [urlsplit(url) for url in urls]
    found = [one.netloc for one in parts]
    if len(set(found)) < len(found):
        found = [one.netloc + one.path for one in parts]
    return _apart(found)


def addresses(urls: Sequence[str]) -> list[str]:
    """Each address without its query, which may hold a secret; numbered where that leaves some alike."""
    return _apart([bare_address(url) for url in urls])


def _apart(found: list[str]) -> list[str]:
    if len(set(found)) < len(found):
        found = [f"{name} ({number})" for number, name in enumerate(found, 1)]
    return found
