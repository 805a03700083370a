"""Sets up connections (TLS, their number, route and key) and reads what comes back where it is no answer."""

import base64
import errno
import math
import os
import ssl
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import anyio.to_thread
import orjson

from batchrank.data import Answer, Rejection
from batchrank.errors import JobError
from batchrank.send.retry import BAD_KEY, retry_after
from batchrank.wire.answers import error, said, visible

if TYPE_CHECKING:
    import aiohttp


def tls_context(
    *, ca_file: str | None = None, client_cert: str | None = None, client_key: str | None = None
) -> ssl.SSLContext:
    """The context; the server's certificate is always verified.

    Args:
        ca_file: what is trusted instead of the system's certificates, or of those that ``SSL_CERT_FILE`` names.
        client_cert: the certificate to show to a server that asks for one.
        client_key: its key, where it isn't in the same file.

    Raises:
        JobError: a file can't be used; names the key.
    """
    _present("environment, SSL_CERT_FILE", None if ca_file else os.environ.get("SSL_CERT_FILE"))
    _present("endpoint.ca_file", ca_file)
    try:
        context = ssl.create_default_context(cafile=ca_file)
    except OSError as error:
        raise JobError(f"endpoint.ca_file: {ca_file} holds no certificate in PEM form: {error}") from None
    context.set_alpn_protocols(["http/1.1"])
    if client_cert is not None:
        _present("endpoint.client_cert", client_cert)
        _present("endpoint.client_key", client_key)
        _show(context, client_cert, client_key)
    return context


def _present(source: str, path: str | None) -> None:
    """A file that isn't there would be passed over in silence, or without its name."""
    if path is None:
        return
    try:
        with Path(path).open("rb"):
            pass
    except OSError as error:
        raise JobError(f"{source}: {path} can't be read: {error.strerror}") from None


class _EncryptedError(Exception):
    """Raised instead of asking for a password on the terminal."""


def _show(context: ssl.SSLContext, certificate: str, key: str | None) -> None:
    def password() -> str:
        raise _EncryptedError

    try:
        context.load_cert_chain(certificate, key, password)
    except _EncryptedError:
        raise JobError(
            f"endpoint.client_key: the key in {key or certificate} is encrypted; write it without a password "
            "(openssl pkey -in KEY -out PLAIN), readable by you alone"
        ) from None
    except OSError as error:
        hint = "" if key else ", or name its key in endpoint.client_key"
        raise JobError(
            f"endpoint.client_cert: {certificate} and its key can't be used: {error}; write both as PEM{hint}"
        ) from None


_WANTED = 8192
"""File descriptors to ask the system for: far more than requests are ever in flight; more would only cost it memory."""
_RESERVE = 96
"""Descriptors that are left for files: input, output, ledger, libraries, and connections that are being closed."""


def open_files() -> float:
    """How many files and connections this process may have open, after raising that as far as the system lets it."""
    try:
        import resource
    except ImportError:  # a system without such limits
        return math.inf
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _WANTED if hard == resource.RLIM_INFINITY else min(hard, _WANTED)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            soft = wanted
        except (ValueError, OSError):  # macOS says "infinite" and means less
            pass
    return math.inf if soft == resource.RLIM_INFINITY else soft


def connections(files: float, *, each: int = 1) -> float:
    """How many connections that leaves room for, at least one; ``each`` of them takes so many descriptors."""
    return max(1, (files - _RESERVE) // each) if files < math.inf else math.inf


def out_of_files(fault: BaseException) -> str | None:
    """What to tell of a fault that comes from too few descriptors; None for any other."""
    number = getattr(fault, "errno", None) or getattr(getattr(fault, "os_error", None), "errno", None)
    if number == errno.EMFILE:
        return (
            f"this process may have {open_files():,.0f} files and connections open, and has; raise that limit "
            "(ulimit -n), or set rate.concurrency lower"
        )
    if number == errno.ENFILE:
        return "this machine has as many files and connections open as it can; set rate.concurrency lower"
    return None


MESSAGE_LIMIT = 500
"""Characters of a server's words that are kept, where they are no error in a known shape."""


def retry_wait(response: "aiohttp.ClientResponse") -> float | None:
    """Seconds that the API asks to wait; None when it asks nothing."""
    # The one use of the wall clock: HTTP-dates mean nothing else.
    return retry_after(response.headers.get("Retry-After"), time.time())


def refusal(
    response: "aiohttp.ClientResponse", data: bytes, problem: str, hide: Callable[[str], str]
) -> Rejection:
    """Anything but a good answer: the API's error in any of its shapes, a redirect, a page, or no use at all.

    Args:
        response: its status and headers.
        data: its body.
        problem: what is wrong with it as an answer; empty for nothing.
        hide: takes secrets out of a text.
    """
    status, wait = response.status, retry_wait(response)
    try:
        decoded = orjson.loads(data)
    except orjson.JSONDecodeError:
        decoded = None
    location = response.headers.get("Location") if 300 <= status < 400 else None
    if location is not None:
        message = f"redirected to {hide(location)[:200]!r}, which is never followed; set endpoint.url"
        return Rejection(status, "", message, wait)
    if known := error(decoded):
        code, message, request_id = map(hide, known)
        return Rejection(status, code, message, wait, request_id)
    text = said(decoded) or visible(data)
    if 200 <= status < 300:
        problem = problem or "no answer"
        return Rejection(
            status, "malformed", (f"{problem}: {text!r}" if text else problem)[:MESSAGE_LIMIT], wait
        )
    return Rejection(status, "", (text or str(response.reason or ""))[:MESSAGE_LIMIT], wait)


def proxy_parts(address: str | None) -> tuple[str | None, dict[str, str]]:
    """A proxy's address without user and password, and those two for the proxy."""
    if address is None:
        return None, {}
    parts = urlsplit(address)
    bare = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    if not parts.username and not parts.password:
        return bare, {}
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    said = base64.b64encode(f"{user}:{password}".encode()).decode()
    return bare, {"Proxy-Authorization": f"Basic {said}"}


_KNOWN_404 = ("modelnotfound", "model_not_found", "workspacenotfound")
"""Codes of a 404 that is about a model or a workspace, and not about the path."""


class Key:
    """An API key, which may be replaced while a run goes on.

    Args:
        value: the key; None where the server needs none.
        name: the variable or file that it comes from, by which it is told.
        newer: reads it again; None where it can't change.
    """

    def __init__(
        self, value: str | None, name: str = "", newer: Callable[[], str | None] | None = None
    ) -> None:
        self.value = value
        self.name = name
        self._newer = newer

    async def renewed(self, refused: str | None) -> bool:
        """Whether there is another value by now than the one that was refused."""
        if self._newer is not None and self.value == refused:
            with suppress(JobError):  # it is being written, or gone: what the server said is to be told
                self.value = await anyio.to_thread.run_sync(self._newer) or self.value
        return self.value != refused


@dataclass(frozen=True, slots=True)
class Route:
    """Where a request goes, and with which key."""

    url: str
    key: str | None


class Routes:
    """The address of now, and the second chances of requests that were refused on an older route.

    A request gets one at once, as the same attempt, because neither refusal is billed:

    1. 401, and there is another key by now (keys of an hour are replaced while a run goes on): with that key.
    2. 404, and nothing was accepted before: by the other path that the vendor's hosts are known to have. What doesn't
       answer 404 is used from then on.

    Args:
        url: where requests go at first.
        other_url: the same endpoint by its other path, None where there is none.

    Attributes:
        url: where requests go now.
        notice: what the user should know of it when the run has ended; None for nothing.
    """

    def __init__(self, url: str, *, other_url: str | None = None) -> None:
        self.url = url
        self.notice: str | None = None
        self._other_url = other_url
        self.accepted = False

    async def second(self, route: Route, key: Key, outcome: Answer | Rejection) -> Route | None:
        """The route of a second chance, if what came back gives one."""
        if isinstance(outcome, Answer):
            self.accepted = True
            return None
        if outcome.status == 401 or outcome.code.lower() in BAD_KEY:
            return replace(route, key=key.value) if await key.renewed(route.key) else None
        if outcome.status != 404 or self.accepted or outcome.code.lower() in _KNOWN_404:
            return None
        if route.url != self.url:
            return replace(route, url=self.url)  # another request learnt it meanwhile
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
            was, now = _bare(self.url), _bare(route.url)
            self.url, self._other_url = route.url, None
            self.notice = f"{was} answered 404, and {now} was used instead: set endpoint.url: {now}"
        return True


def _bare(url: str) -> str:
    """An address without its query, which may hold a secret."""
    return urlsplit(url)._replace(query="").geturl()
