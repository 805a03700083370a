"""Serves the emulator: an HTTP server on the loopback interface that answers as the rerank APIs do."""

import asyncio
import json
import math
import uuid
from collections.abc import Callable
from contextlib import AsyncExitStack
from hashlib import blake2b
from types import TracebackType
from typing import Self

import orjson
from aiohttp import web
from aiohttp.typedefs import Handler

from batchrank.emulator.answers import BODY_FAULTS, RESULT_FAULTS, Delivery, hang_up
from batchrank.emulator.endpoints import Asked, Endpoint, routes, value_of
from batchrank.emulator.model import Model, Work
from batchrank.emulator.quota import Counts, Limits, Quota, Received
from batchrank.emulator.refusals import REJECTIONS, RejectedError, Rejection, with_retry_after
from batchrank.emulator.settings import Fate, Fates, Settings, rng_for

_PAGE = "<!DOCTYPE html><html><head><title>{0}</title></head><body><h1>{0} {1}</h1></body></html>"


class Emulator:
    """The rerank APIs on loopback, while the context is open.

    Attributes:
        settings: the switches.
        counts: what has been seen and done so far.
        received: every request, if ``keep`` was given.
    """

    def __init__(
        self, settings: Settings | None = None, *, host: str = "127.0.0.1", port: int = 0, keep: bool = False
    ) -> None:
        self.settings = settings or Settings()
        self.counts = Counts()
        self.received: list[Received] = []
        self._host, self._port, self._keep = host, port, keep
        self._model = Model(self.settings)
        self._fates = Fates(self.settings)
        self._delivery = Delivery(self.settings)
        self._quotas: dict[tuple[str, str], Quota] = {}  # each key is an account of its own
        self._workers = asyncio.Semaphore(self.settings.concurrency or 2**31)
        self._stack = AsyncExitStack()
        self._base = ""

    @property
    def url(self) -> str:
        """The base address, such as ``http://127.0.0.1:8123``; the paths are those of the APIs."""
        return self._base

    @property
    def requests(self) -> int:
        """Requests that came in so far."""
        return self.counts.requests

    async def __aenter__(self) -> Self:
        largest = self.settings.body_bytes or max(card.body_bytes for card in self.settings.cards.values())
        app = web.Application(client_max_size=largest)
        for path, endpoint in routes(self.settings.api).items():
            app.router.add_post(path, self._handler(endpoint))
        runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.0)
        await runner.setup()
        self._stack.push_async_callback(runner.cleanup)
        await web.TCPSite(runner, self._host, self._port).start()
        host, port = runner.addresses[0][:2]
        self._base = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    def _handler(self, endpoint: Endpoint) -> Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            self.counts.open += 1
            self.counts.most_open = max(self.counts.most_open, self.counts.open)
            try:
                return await self._answer(request, endpoint)
            finally:
                self.counts.open -= 1

        return handle

    async def _answer(self, request: web.Request, endpoint: Endpoint) -> web.StreamResponse:
        """Answer one request.

        1. Its connection is stale: it is dropped unread.
        2. It is refused by the key, a fault, a limit or a quota, in this order: not billed.
        3. Its fault leaves it unanswered before anything is computed: not billed.
        4. Otherwise it is billed, scored, perhaps spoilt, and sent, perhaps badly.
        """
        now = asyncio.get_running_loop().time()
        self.counts.requests += 1
        self.counts.arrivals.append(now)
        number = self.counts.requests
        request_id = str(
            uuid.UUID(int=rng_for(self.settings.seed, b"", f"id {number}").getrandbits(128), version=4)
        )
        if self._delivery.is_stale(request):
            self.counts.statuses[0] += 1
            return hang_up(request)
        try:
            body = await self._read(request, number, now)
            content = blake2b(body, digest_size=16, key=request.path.encode()[:64]).digest()
            fate = self._fate(number, content)
            self._check_key(request, endpoint)
            if fate.rejection is not None:
                raise RejectedError(fate.rejection)
            asked = endpoint.read(body)
            fate = self._poisoned(asked, fate)
            if fate.rejection is not None:
                raise RejectedError(fate.rejection)
            work = self._admit(asked, endpoint, len(body), request.headers.get("Authorization", ""))
        except RejectedError as error:
            await self._wait(f"refusal {number}".encode())
            return self._refuse(error.rejection, endpoint, request_id)
        if fate.billed:
            self._bill(work, content)
        async with self._workers:
            await self._wait(content)
            response = self._respond(endpoint, work, content, fate, request_id)
        self.counts.statuses[200 if fate.delivery in (None, "stale-keep-alive") else 0] += 1
        return await self._delivery.send(request, response, fate.delivery)

    async def _read(self, request: web.Request, number: int, now: float) -> bytes:
        try:
            body = await request.read()
        except web.HTTPRequestEntityTooLarge:
            raise RejectedError(REJECTIONS["413"]) from None
        if self._keep:
            self.received.append(Received(number, now, request.path, dict(request.headers), body))
        return body

    def _check_key(self, request: web.Request, endpoint: Endpoint) -> None:
        if endpoint.dialect.keyless and not self.settings.keys:
            return
        scheme, _, key = request.headers.get("Authorization", "").partition(" ")
        known = not self.settings.keys or key in self.settings.keys
        if scheme.lower() != "bearer" or not key.strip() or not known:
            raise RejectedError(REJECTIONS["401"])

    def _fate(self, number: int, content: bytes) -> Fate:
        fate = self._fates.draw(number, content)
        self.counts.faults.update(fate.names)
        return fate

    def _poisoned(self, asked: Asked, fate: Fate) -> Fate:
        for text, names in self.settings.poison.items():
            if any(text in value_of(item) for item in (asked.query, *asked.documents)):
                self.counts.faults.update(names.split(","))
                return self._fates.named(names)
        return fate

    def _admit(self, asked: Asked, endpoint: Endpoint, body_bytes: int, key: str) -> Work:
        card, own = self._model.card(asked.model, endpoint.wire), self.settings
        work = self._model.accept(asked, card, endpoint.dialect, body_bytes)
        account = card.name, key
        if account not in self._quotas:
            rpm, tpm = (card.rpm if own.rpm is None else own.rpm), (card.tpm if own.tpm is None else own.tpm)
            self._quotas[account] = Quota(Limits(rpm, tpm, own.per_second, own.growth, own.growth_start))
        refusal = self._quotas[account].admit(asyncio.get_running_loop().time(), work.tokens)
        if refusal is not None:
            if own.retry_after != "none":
                refusal = with_retry_after(refusal, f"after-{own.retry_after}", own.retry_seconds)
            raise RejectedError(refusal)
        return work

    def _bill(self, work: Work, content: bytes) -> None:
        self.counts.billed[content] += 1
        self.counts.documents += len(work.documents)
        self.counts.tokens += work.tokens
        self.counts.bills.append((asyncio.get_running_loop().time(), work.tokens))

    async def _wait(self, content: bytes) -> None:
        seconds = self.settings.latency
        if seconds and self.settings.latency_spread:
            seconds *= math.exp(
                self.settings.latency_spread * rng_for(self.settings.seed, content, "latency").gauss()
            )
        if seconds:
            await asyncio.sleep(seconds)

    def _refuse(self, rejection: Rejection, endpoint: Endpoint, request_id: str) -> web.Response:
        shape = rejection.shape or self.settings.error_shape
        status = rejection.http_status(shape)
        self.counts.statuses[status] += 1
        headers = {**dict(rejection.headers), "X-Request-Id": request_id}
        if status == 307:
            headers["Location"] = endpoint.paths[0]
        if rejection.html:
            page = _PAGE.format(rejection.status, rejection.message)
            return web.Response(status=status, text=page, content_type="text/html", headers=headers)
        spoken = endpoint.dialect.spoken(rejection)
        plain = shape == "plain"
        data = endpoint.dialect.body(spoken, request_id) if plain else spoken.body(shape, request_id)
        return web.Response(
            status=status, body=orjson.dumps(data), content_type="application/json", headers=headers
        )

    def _respond(
        self, endpoint: Endpoint, work: Work, content: bytes, fate: Fate, request_id: str
    ) -> web.Response:
        answer = self._model.answer(work, content)
        rng = rng_for(self.settings.seed, content, "spoil")
        for name in fate.results:
            answer = RESULT_FAULTS[name](answer, rng)
        data = endpoint.render(answer, work.asked, request_id)
        # orjson writes NaN as null
        body = json.dumps(data).encode() if fate.results else orjson.dumps(data)
        for name in fate.bodies:
            body = BODY_FAULTS[name](body, rng)
        kind = "text/html" if "html-200" in fate.bodies else "application/json"
        return web.Response(body=body, content_type=kind, headers={"X-Request-Id": request_id})


async def run_forever(
    settings: Settings, host: str, port: int, *, ready: Callable[[Emulator], None] | None = None
) -> None:
    """Serve until cancelled; ``ready`` is called once the emulator listens.

    Raises:
        OSError: the port can't be had.
    """
    async with Emulator(settings, host=host, port=port) as emulator:
        if ready is not None:
            ready(emulator)
        await asyncio.get_running_loop().create_future()
