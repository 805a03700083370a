"""A small client that asks an emulator what tests of it ask."""

import asyncio
import io
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import ClientSession
from multidict import CIMultiDictProxy
from virtual_time import VirtualTimeLoop

from batchrank.emulator.app import Emulator
from batchrank.emulator.settings import Settings

FLAT = "/compatible-api/v1/reranks"
NATIVE = "/api/v1/services/rerank/text-rerank/text-rerank"
QUERY = "What is a rerank model?"
DOCUMENTS = [
    "Rerank models are widely used in search engines and recommendation systems. "
    "They sort candidate documents based on text relevance.",
    "Quantum computing is a cutting-edge field of computer science.",
    "The development of pre-trained language models has brought new advancements to rerank models.",
]
KEY = {"Authorization": "Bearer sk-test"}


def pass_time(seconds: float) -> None:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualTimeLoop)
    loop.advance(seconds)


class Client:
    """Asks one emulator."""

    def __init__(self, emulator: Emulator, session: ClientSession) -> None:
        self.emulator, self.session = emulator, session

    async def post(
        self, content: Any, path: str = FLAT, headers: dict[str, str] | None = None
    ) -> tuple[int, Any, CIMultiDictProxy[str]]:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        used = KEY if headers is None else headers
        async with self.session.post(
            self.emulator.url + path, data=io.BytesIO(body), headers=used
        ) as response:
            return response.status, json.loads(await response.read()), response.headers

    async def flat(
        self, query: str = QUERY, documents: Sequence[str] = DOCUMENTS, **more: Any
    ) -> tuple[int, Any]:
        status, data, _ = await self.post(
            {"model": "qwen3-rerank", "query": query, "documents": list(documents), **more}
        )
        return status, data

    async def rejected(self, **asked: Any) -> tuple[int, str, str]:
        status, data = await self.flat(**asked)
        return status, data["code"], data["message"]


@asynccontextmanager
async def serving(**switches: Any) -> AsyncIterator[Client]:
    async with (
        Emulator(Settings(**{"tokenizer": "bytes", **switches}), keep=True) as emulator,
        ClientSession() as session,
    ):
        yield Client(emulator, session)
