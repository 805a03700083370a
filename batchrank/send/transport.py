"""Speaks HTTP, as the only module that does: one attempt, its answer or its rejection."""

import asyncio
import io
import math
import ssl
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import replace
from types import TracebackType
from typing import Self

import aiohttp
import orjson

from batchrank.data import Answer, Rejection
from batchrank.errors import MalformedAnswerError
from batchrank.job.secrets import Secrets, in_address
from batchrank.send.connections import (
    MESSAGE_LIMIT,
    Key,
    Route,
    Routes,
    out_of_files,
    proxy_parts,
    refusal,
    retry_wait,
)
from batchrank.send.health import FREE, UNREACHABLE, Bound, Room
from batchrank.version import __version__
from batchrank.wire import Codec
from batchrank.wire.answers import error

_DIRECT = 2**20
"""Bytes of a body that are written at once; a larger one goes out piece by piece, so that the event loop goes on."""
_PROXY_AUTH = "the proxy asks for a user and a password, or refuses those it got; correct endpoint.proxy"
_CLIENT_CERT = "the server refuses the client's certificate, or asks for one; correct endpoint.client_cert"
_WANTS_CERTIFICATE = (
    "CERTIFICATE_REQUIRED", "ALERT_UNKNOWN_CA", "ALERT_BAD_CERTIFICATE", "ALERT_CERTIFICATE_EXPIRED",
)  # fmt: skip
"""TLS alerts by which a server refuses a client before it reads a word."""
_HEADER_BYTES = 2**16
"""The longest header of an answer that is read: gateways send some that are longer than a client's usual 8 kB."""
_NO_ANSWER = (204, 206)
"""Statuses of success that hold no answer: nothing, or a part."""
_LAST_LOOK = 0.1
"""Seconds to read what has arrived when the time is over."""
_LATE = 0.5
"""Seconds by which a timer of a loop that is well is never late: if it is, nobody has read for a while."""
_AWAKE = 2.0
"""Seconds to read then: hundreds of answers may wait, and the rest of a long one is still on its way."""
_LOOKS = 3
"""Looks at most, so that a loop that is always late gives up too."""


class _Deadline:
    """Cancels a block when its time is over, but not before what has arrived is read, because that is paid for.

    Attributes:
        timer: what looks next whether the time is over.
        late: whether a look came late: this process was held up, so the time tells nothing of the server.
    """

    def __init__(self, limit: asyncio.Timeout, seconds: float) -> None:
        self._limit = limit
        self._loop = asyncio.get_running_loop()
        self._looks = 0
        self.late = False
        self._due = self._loop.time() + seconds
        self.timer = self._loop.call_at(self._due, self._expire)

    def _expire(self) -> None:
        now = self._loop.time()
        late = now - self._due > _LATE
        self.late = self.late or late
        if self._looks >= _LOOKS or (self._looks and not late):
            self._limit.reschedule(now)
            return
        self._looks += 1
        self._due = now + (_AWAKE if late else _LAST_LOOK)
        self.timer = self._loop.call_at(self._due, self._expire)


class Http:
    """A session with one endpoint.

    Servers have been seen to repeat the key in their errors: nothing that comes out of here holds it, a key that it was
    changed for, the value of any further header, the address's query, or the proxy's password.

    Args:
        url: where requests go.
        codec: the endpoint's wire format.
        key: the API key that requests have which are given none, None for none.
        auth: ``bearer``, or the name of the header that holds the key.
        headers: further headers; one that is named as the key's replaces it.
        other_url: the same endpoint by its other path, None where there is none.
        proxy: the address of the proxy to go through, perhaps with a user and a password.
        tls: whom to trust, and what to show; None for the system's ways.
        secrets: what must not come out of here besides.
        timeout: seconds one attempt may take.
        answer_bytes: the largest decoded answer that is read, whatever its documents can need.
    """

    def __init__(
        self,
        url: str,
        codec: Codec,
        *,
        key: Key | str | None = None,
        auth: str = "bearer",
        headers: dict[str, str] | None = None,
        other_url: str | None = None,
        proxy: str | None = None,
        tls: ssl.SSLContext | None = None,
        secrets: Secrets | None = None,
        timeout: float = 60,
        answer_bytes: int = 64 * 2**20,
    ) -> None:
        self._key = key if isinstance(key, Key) else Key(key)
        self._routes = Routes(url, other_url=other_url)
        self._codec = codec
        self._auth = auth
        self._headers = {
            "Content-Type": "application/json",
            "User-Agent": f"batchrank/{__version__}",
            **(headers or {}),
        }
        self._proxy, self._proxy_headers = proxy_parts(proxy)
        self._tls = tls
        values = [*(headers or {}).values(), *in_address(proxy or ""), *in_address(url)]
        self._secrets = Secrets(values) | (secrets or Secrets())
        self._key_headers: dict[str | None, dict[str, str]] = {}  # of keys that the secrets hold
        self._seconds = timeout
        # Only connecting is left to aiohttp: a request that waits for a connection can't have arrived.
        self._timeout = aiohttp.ClientTimeout(total=None, connect=timeout, ceil_threshold=math.inf)
        self._answer_bytes = answer_bytes
        self._small = min(FREE, answer_bytes)
        self._room = Room()
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(limit=0, ttl_dns_cache=300, ssl=self._tls or True)
        self._session = aiohttp.ClientSession(
            connector=connector,
            headers=self._headers,
            timeout=self._timeout,
            cookie_jar=aiohttp.DummyCookieJar(),
            max_line_size=_HEADER_BYTES,
            max_field_size=_HEADER_BYTES,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._session is not None
        await self._session.close()

    async def post(self, body: bytes, documents: int, key: Key | None = None) -> Answer | Rejection:
        """Send one request for so many documents, once, but for the second chances that ``Routes`` tells.

        It has the key that is given, else the session's.

        Whatever goes wrong comes back as a Rejection: code ``unreachable`` when it can't have arrived,
        ``certificate`` when the server isn't who it should be, ``connection`` or ``timeout`` when its fate is unknown,
        ``held-up`` when it is, and this process was suspended meanwhile, ``malformed`` when the answer is unusable.
        """
        key = key or self._key
        route = Route(self._routes.url, key.value)
        outcome = await self._attempt(route, body, documents)
        if isinstance(outcome, Answer):
            self._routes.accepted = True
            return outcome
        while (other := await self._routes.second(route, key, outcome)) is not None:
            first, route = outcome, other
            outcome = await self._attempt(route, body, documents)
            if not self._routes.learn(route, outcome):
                return first
        return outcome

    @property
    def notice(self) -> str | None:
        """What the user should know when the run has ended, and do about it; None for nothing."""
        return None if self._routes.notice is None else self._secrets.hide(self._routes.notice)

    async def _attempt(self, route: Route, body: bytes, documents: int) -> Answer | Rejection:
        if route.key not in self._key_headers:
            self._key_headers[route.key] = self._key_header(route.key)
            self._secrets = self._secrets.also(route.key) if route.key else self._secrets
        limit = asyncio.timeout(None)
        deadline = _Deadline(limit, self._seconds)
        try:
            async with limit, self._posting(route, body) as response:
                if response.status == 407 and self._proxy:
                    return Rejection(407, "", _PROXY_AUTH)
                length, encoding = response.content_length, response.headers.get("Content-Encoding")
                if length is not None and length <= self._small and encoding is None:
                    return self._decode(response, await response.read(), "", documents)
                async with AsyncExitStack() as held:
                    bound = Bound(body, documents, self._answer_bytes)
                    data, problem = await self._read(response, bound, held)
                    return self._decode(response, data, problem, documents)
        except aiohttp.ClientConnectorCertificateError as fault:
            return self._lost("certificate", f"can't be verified: {fault.certificate_error}")
        except aiohttp.ClientHttpProxyError as fault:
            if fault.status == 407:
                return Rejection(407, "", _PROXY_AUTH)
            return self._lost(
                UNREACHABLE, f"the proxy refused to connect: HTTP {fault.status} {fault.message}"
            )
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as fault:
            return self._lost(UNREACHABLE, out_of_files(fault) or _named(fault))
        except TimeoutError:
            if deadline.late:
                return self._lost("held-up", "no complete answer in time, while this process was held up")
            return self._lost("timeout", f"no complete answer within {self._seconds:g} s")
        except (aiohttp.ClientError, OSError) as fault:
            return self._broken(fault)
        finally:
            deadline.timer.cancel()

    def _posting(self, route: Route, body: bytes) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        assert self._session is not None
        # The proxy of a tunnel is asked to connect, and sees nothing of the request.
        tunnel = route.url.startswith("https:")
        headers = self._key_headers[route.key]
        return self._session.post(
            route.url,
            data=body if len(body) <= _DIRECT else io.BytesIO(body),
            headers=headers if tunnel or not self._proxy_headers else headers | self._proxy_headers,
            proxy=self._proxy,
            proxy_headers=dict(self._proxy_headers) if tunnel else None,
            allow_redirects=False,
        )

    def _broken(self, fault: BaseException) -> Rejection:
        """A connection that broke: with the request's fate unknown, unless it can't have been read."""
        if (why := out_of_files(fault)) is not None:
            return self._lost(UNREACHABLE, why)
        if any(alert in str(fault) for alert in _WANTS_CERTIFICATE):
            return self._lost("certificate", _CLIENT_CERT)
        return self._lost("connection", _named(fault))

    def _key_header(self, key: str | None) -> dict[str, str]:
        name = "Authorization" if self._auth == "bearer" else self._auth
        if key is None or name.lower() in map(str.lower, self._headers):
            return {}
        return {name: f"Bearer {key}" if self._auth == "bearer" else key}

    async def _read(
        self, response: aiohttp.ClientResponse, bound: Bound, held: AsyncExitStack
    ) -> tuple[bytes | None, str]:
        """The decoded body; or None, and why no answer can be like that. The memory that it takes stays reserved."""
        parts, size, asked = [], 0, False
        async for part in response.content.iter_any():
            size += len(part)
            if problem := bound.passed(size, response.content.total_compressed_bytes or 0):
                response.close()
                return None, problem
            if size > FREE and not asked:
                await held.enter_async_context(self._room.taken(bound.bytes))
                asked = True
            parts.append(part)
        data = parts[0] if len(parts) == 1 else b"".join(parts)
        problem = bound.crowded(data)
        return (data, "") if problem is None else (None, problem)

    def _decode(
        self, response: aiohttp.ClientResponse, data: bytes | None, problem: str, documents: int
    ) -> Answer | Rejection:
        if data is None:
            return Rejection(response.status, "malformed", problem, retry_wait(response))
        try:
            decoded = orjson.loads(data)
            # Scores of every document are an answer, whatever a gateway puts around them. Without documents nothing
            # tells an empty answer from an error, so that is looked for first.
            if (
                200 <= response.status < 300
                and response.status not in _NO_ANSWER
                and (documents or not error(decoded))
            ):
                answer = self._codec.answer(decoded, documents)
                shown = self._secrets.hide(answer.request_id)
                return answer if shown == answer.request_id else replace(answer, request_id=shown)
        except orjson.JSONDecodeError as fault:
            problem = f"not JSON ({fault})"
        except MalformedAnswerError as fault:
            problem = str(fault)
        why = refusal(response, self._secrets.hide_bytes(data), problem, self._secrets.hide)
        return replace(why, message=self._secrets.hide(why.message))

    def _lost(self, code: str, message: str) -> Rejection:
        return Rejection(None, code, self._hide(message))

    def _hide(self, text: str) -> str:
        return self._secrets.hide(self._secrets.hide(text)[:MESSAGE_LIMIT])


def _named(fault: BaseException) -> str:
    return f"{type(fault).__name__}: {fault}"
