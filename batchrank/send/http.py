"""The only place that speaks HTTP: one attempt, its answer or its rejection."""

import io
import time
from dataclasses import replace
from types import TracebackType
from typing import Self

import aiohttp
import orjson

from batchrank.errors import MalformedAnswerError
from batchrank.records import Answer, Rejection
from batchrank.retry import retry_after
from batchrank.send.outage import UNREACHABLE
from batchrank.send.secrets import Secrets
from batchrank.version import __version__
from batchrank.wire import Codec
from batchrank.wire.rejections import error, said, visible

_MESSAGE_LIMIT = 500
_DIRECT = 2**20
"""Bytes of a body that are written at once; a larger one goes out piece by piece, so that the event loop goes on."""
_NO_ANSWER = (204, 206)
"""Statuses of success that hold no answer: nothing, or a part."""


class Http:
    """A session with one endpoint.

    Servers have been seen to repeat the key in their errors: nothing that comes out of here holds it, or the value
    of any further header.

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
        self._secrets = Secrets([*([key] if key else []), *(headers or {}).values()])
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
        ``certificate`` when the server isn't who it should be, ``connection`` or ``timeout`` when its fate is unknown,
        ``malformed`` when the answer is of no use.
        """
        assert self._session is not None
        try:
            payload = body if len(body) <= _DIRECT else io.BytesIO(body)
            async with self._session.post(self._url, data=payload, allow_redirects=False) as response:
                data = await self._read(response)
                return self._decode(response, data, documents)
        except aiohttp.ClientConnectorCertificateError as fault:
            return self._lost("certificate", f"can't be verified: {fault.certificate_error}")
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as fault:
            return self._lost(UNREACHABLE, _named(fault))
        except TimeoutError:
            return self._lost("timeout", f"no complete answer within {self._timeout.total:g} s")
        except (aiohttp.ClientError, OSError) as fault:
            return self._lost("connection", _named(fault))

    async def _read(self, response: aiohttp.ClientResponse) -> bytes | None:
        """The decoded body; None when it is larger than any answer can be."""
        parts, size = [], 0
        async for part in response.content.iter_any():
            size += len(part)
            if size > self._answer_bytes:
                response.close()
                return None
            parts.append(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _decode(
        self, response: aiohttp.ClientResponse, data: bytes | None, documents: int
    ) -> Answer | Rejection:
        if data is None:
            problem = f"the answer is larger than {self._answer_bytes:,} bytes"
            return Rejection(response.status, "malformed", problem, _wait(response))
        decoded, problem = _json(data)
        # Scores of every document are an answer, whatever a gateway puts around them. Without documents nothing tells
        # an empty answer from an error, so that is looked for first.
        if _succeeded(response.status) and not problem and (documents or not error(decoded)):
            try:
                answer = self._codec.answer(decoded, documents)
            except MalformedAnswerError as fault:
                problem = str(fault)
            else:
                return replace(answer, request_id=self._secrets.hide(answer.request_id))
        return self._refused(response, self._secrets.hide_bytes(data), problem)

    def _refused(self, response: aiohttp.ClientResponse, data: bytes, problem: str) -> Rejection:
        """Anything but a good answer: the API's error in any of its shapes, a redirect, a page, or no use at all."""
        status, wait = response.status, _wait(response)
        decoded, broken = _json(data)
        location = response.headers.get("Location") if 300 <= status < 400 else None
        if location is not None:
            where = self._secrets.hide(location)[:200]
            return Rejection(
                status, "", f"redirected to {where!r}, which is never followed; set endpoint.url", wait
            )
        if known := error(decoded):
            code, message, request_id = map(self._secrets.hide, known)
            return Rejection(status, code, message, wait, request_id)
        text = said(decoded) or visible(data)
        if 200 <= status < 300:
            problem = problem or broken or "no answer"
            return Rejection(
                status, "malformed", self._hide(f"{problem}: {text!r}" if text else problem), wait
            )
        return Rejection(status, "", self._hide(text or str(response.reason or "")), wait)

    def _lost(self, code: str, message: str) -> Rejection:
        return Rejection(None, code, self._hide(message))

    def _hide(self, text: str) -> str:
        return self._secrets.hide(self._secrets.hide(text)[:_MESSAGE_LIMIT])


def _json(data: bytes) -> tuple[object, str]:
    """The decoded body, or None and what is wrong with it. Nesting deeper than the decoder allows is wrong."""
    try:
        return orjson.loads(data), ""
    except orjson.JSONDecodeError as fault:
        return None, f"not JSON ({fault})"


def _succeeded(status: int) -> bool:
    return 200 <= status < 300 and status not in _NO_ANSWER


def _wait(response: aiohttp.ClientResponse) -> float | None:
    # The one use of the wall clock: HTTP-dates mean nothing else.
    return retry_after(response.headers.get("Retry-After"), time.time())


def _named(fault: BaseException) -> str:
    return f"{type(fault).__name__}: {fault}"
