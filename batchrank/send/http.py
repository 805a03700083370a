"""The only place that speaks HTTP: one attempt, its answer or its rejection."""

import time
from types import TracebackType
from typing import Self

import aiohttp
import orjson

from batchrank.errors import MalformedAnswerError
from batchrank.records import Answer, Rejection
from batchrank.retry import retry_after
from batchrank.version import __version__
from batchrank.wire import Codec
from batchrank.wire.results import error

UNREACHABLE = "unreachable"
"""The rejection code of a request that can't have arrived."""
_MESSAGE_LIMIT = 500


class Http:
    """A session with one endpoint.

    Args:
        url: where requests go.
        codec: the endpoint's wire format.
        key: the API key, None for none. It is kept in the session's headers only.
        headers: further headers.
        timeout: seconds one attempt may take.
        answer_bytes: the largest decoded answer that is read.
    """

    def __init__(
        self,
        url: str,
        codec: Codec,
        *,
        key: str | None = None,
        headers: dict[str, str] | None = None,
        timeout: float = 60,
        answer_bytes: int = 64 * 2**20,
    ) -> None:
        self._url = url
        self._codec = codec
        self._headers = {
            "Content-Type": "application/json",
            "User-Agent": f"batchrank/{__version__}",
            **({"Authorization": f"Bearer {key}"} if key else {}),
            **(headers or {}),
        }
        self._timeout = aiohttp.ClientTimeout(total=timeout)
        self._answer_bytes = answer_bytes
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(limit=0, ttl_dns_cache=300)
        self._session = aiohttp.ClientSession(
            connector=connector,
            headers=self._headers,
            timeout=self._timeout,
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._session is not None
        await self._session.close()

    async def post(self, body: bytes, documents: int) -> Answer | Rejection:
        """Send one request for so many documents, once.

        Whatever goes wrong comes back as a Rejection: code ``unreachable`` when it can't have arrived,
        ``connection`` or ``timeout`` when its fate is unknown, ``malformed`` when the answer is of no use.
        """
        assert self._session is not None
        try:
            async with self._session.post(self._url, data=body, allow_redirects=False) as response:
                data = await self._read(response)
                return self._decode(response, data, documents)
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as fault:
            return Rejection(None, UNREACHABLE, _describe(fault))
        except TimeoutError as fault:
            return Rejection(
                None, "timeout", f"no complete answer within {self._timeout.total:g} s: {_describe(fault)}"
            )
        except (aiohttp.ClientError, OSError) as fault:
            return Rejection(None, "connection", _describe(fault))

    async def _read(self, response: aiohttp.ClientResponse) -> bytes:
        parts, size = [], 0
        async for part in response.content.iter_any():
            size += len(part)
            if size > self._answer_bytes:
                response.close()
                return b""
            parts.append(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _decode(self, response: aiohttp.ClientResponse, data: bytes, documents: int) -> Answer | Rejection:
        try:
            decoded = orjson.loads(data)
        except orjson.JSONDecodeError as fault:
            decoded, problem = None, f"not JSON ({fault}): {data[:120].decode(errors='replace')!r}"
        else:
            problem = ""
        wait = retry_after(response.headers.get("Retry-After"), time.time())
        status = response.status
        if known := error(decoded):
            code, message, request_id = known
            return Rejection(status, code, message, wait, request_id)
        if status != 200:
            location = response.headers.get("Location")
            hint = (
                f"redirected to {location[:200]}, which is never followed; set endpoint.url"
                if location
                else problem
            )
            return Rejection(status, "", (hint or str(response.reason or ""))[:_MESSAGE_LIMIT], wait)
        if problem:
            return Rejection(status, "malformed", problem)
        try:
            return self._codec.answer(decoded, documents)
        except MalformedAnswerError as fault:
            return Rejection(status, "malformed", str(fault))


def _describe(fault: BaseException) -> str:
    return f"{type(fault).__name__}: {fault}"[:_MESSAGE_LIMIT]
