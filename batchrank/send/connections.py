"""Decides where requests go and with which key, and learns both anew where a refusal says that they are wrong."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

import anyio.to_thread

from batchrank.errors import JobError
from batchrank.requests import Answer, Rejection

_BAD_KEY = ("invalidapikey", "invalid_api_key")
"""What stands for a 401 where errors come inside a 200."""
_KNOWN_404 = ("modelnotfound", "model_not_found", "workspacenotfound")
"""What is not found there is not the path."""


@dataclass(frozen=True, slots=True)
class Route:
    """Where a request goes, and with which key."""

    url: str
    key: str | None


class Routes:
    """The route of now, and the second chances of requests that were refused on an older one.

    A request gets one at once, as the same attempt, because neither refusal is billed:

    1. 401, and there is another key by now (keys of an hour are replaced while a run goes on): with that key.
    2. 404, and nothing was accepted before: by the other path that the vendor's hosts are known to have. What doesn't
       answer 404 is used from then on.

    Args:
        route: where requests go at first.
        other_url: the same endpoint by its other path, None where there is none.
        newer_key: reads the key again; None where it can't change.

    Attributes:
        current: where requests go now.
        notice: what the user should know of it when the run has ended; None for nothing.
    """

    def __init__(
        self, route: Route, *, other_url: str | None = None, newer_key: Callable[[], str | None] | None = None
    ) -> None:
        self.current = route
        self.notice: str | None = None
        self._other_url = other_url
        self._newer_key = newer_key
        self._accepted = False

    async def second(self, route: Route, outcome: Answer | Rejection) -> Route | None:
        """The route of a second chance, if what came back gives one."""
        if isinstance(outcome, Answer):
            self._accepted = True
            return None
        if outcome.status == 401 or outcome.code.lower() in _BAD_KEY:
            return await self._with_newer_key(route)
        if outcome.status != 404 or self._accepted or outcome.code.lower() in _KNOWN_404:
            return None
        if route.url != self.current.url:
            return self.current  # another request learnt it meanwhile
        return replace(route, url=self._other_url) if self._other_url else None

    def learn(self, route: Route, outcome: Answer | Rejection) -> bool:
        """Learn from a second chance; False where the other path is no better, and the first refusal is to be told."""
        if route.url != self._other_url:
            return True
        status = 200 if isinstance(outcome, Answer) else outcome.status
        if status == 404:
            self._other_url = None
            return False
        if status is not None:
            was, now = _bare(self.current.url), _bare(route.url)
            self.current, self._other_url = replace(self.current, url=route.url), None
            self.notice = f"{was} answered 404, and {now} was used instead: set endpoint.url: {now}"
        return True

    async def _with_newer_key(self, route: Route) -> Route | None:
        if self._newer_key is not None and self.current.key == route.key:
            try:
                key = await anyio.to_thread.run_sync(self._newer_key)
            except JobError:  # it is being written, or gone: what the server said is to be told
                key = None
            if key:
                self.current = replace(self.current, key=key)
        return None if self.current.key == route.key else replace(route, key=self.current.key)


def _bare(url: str) -> str:
    """An address without its query, which may hold a secret."""
    return urlsplit(url)._replace(query="").geturl()
