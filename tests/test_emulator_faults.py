"""Each fault of the emulator does on the wire what its name says."""

import asyncio
import json
import math
from collections import Counter
from email.utils import parsedate_to_datetime
from typing import Any

import pytest
from aiohttp import ClientError, ClientPayloadError, ClientSession, ClientTimeout, ServerDisconnectedError

from batchrank.emulator.answers import DELIVERY_FAULTS, UNBILLED_DELIVERIES
from batchrank.emulator.app import Emulator
from batchrank.emulator.refusals import REJECTIONS
from batchrank.emulator.settings import FAULTS, Settings

pytestmark = pytest.mark.anyio

KEY = {"Authorization": "Bearer sk-test"}
TEXTS = ["a walrus", "an operator", "a walrus operator", "nothing at all", "something else"]


def settings(**switches: Any) -> Settings:
    return Settings(**{"tokenizer": "bytes", "huge_bytes": 1 << 20, **switches})


async def ask(
    emulator: Emulator, session: ClientSession, query: str = "walrus operator", seconds: float = 20
) -> Any:
    """Status, headers and body of one request."""
    asked = {"model": "qwen3-rerank", "query": query, "documents": TEXTS}
    async with session.post(
        emulator.url + "/compatible-api/v1/reranks",
        json=asked,
        headers=KEY,
        timeout=ClientTimeout(total=seconds),
        allow_redirects=False,
    ) as response:
        return response.status, response.headers, await response.read()


async def once(fault: str) -> tuple[Any, Emulator]:
    """The answer to a request that meets a fault, or the error it ends in; and the emulator."""
    async with Emulator(settings(script={1: fault})) as emulator, ClientSession() as session:
        try:
            return await ask(emulator, session), emulator
        except (ClientError, TimeoutError) as error:
            return error, emulator


def is_good(answer: Any) -> bool:
    """Whether a client that checks everything would take this for a whole, sound answer."""
    if not isinstance(answer, tuple) or answer[0] != 200:
        return False
    try:
        data = json.loads(answer[2])
        scores = {r["index"]: r["relevance_score"] for r in data["results"]}
        tokens = data["usage"]["total_tokens"]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return False
    finite = all(type(score) is float and math.isfinite(score) for score in scores.values())
    return (
        finite
        and len(data["results"]) == 5
        and scores.keys() == set(range(5))
        and type(tokens) is int
        and tokens > 0
    )


@pytest.mark.parametrize("fault", FAULTS)
async def test_no_fault_looks_like_a_sound_answer(fault: str) -> None:
    """Every named fault shows on the wire, except where a sound answer is what it promises; it bills as it says."""
    answer, emulator = await once(fault)
    assert is_good(answer) == (fault in ("json-huge", "gzip-bomb", "stale-keep-alive"))
    assert emulator.counts.faults == {fault: 1}
    unbilled = fault.split("+")[0] in REJECTIONS or fault in UNBILLED_DELIVERIES
    assert emulator.counts.billed.total() == (0 if unbilled else 1)


@pytest.mark.parametrize("name", REJECTIONS)
async def test_refusals_have_their_status_and_code(name: str) -> None:
    """A refusal comes with the documented status and code, and without Retry-After unless asked."""
    (status, headers, body), emulator = await once(name)
    data = json.loads(body)
    assert (status, data["code"]) == (int(name[:3]), REJECTIONS[name].code)
    assert "Retry-After" not in headers and emulator.counts.statuses == {status: 1}


async def test_retry_after_comes_in_every_form() -> None:
    """Seconds, a date, a year, and nonsense."""
    found = {}
    for how in ("seconds", "date", "absurd", "garbage"):
        (status, headers, _), _ = await once(f"429-requests+after-{how}")
        found[how] = headers["Retry-After"]
        assert status == 429
    assert (found["seconds"], found["absurd"], found["garbage"]) == ("2", "31536000", "soon")
    assert parsedate_to_datetime(found["date"]).tzinfo is not None


async def test_errors_take_any_shape() -> None:
    """Nested, inside a 200, and a gateway's page."""
    assert json.loads((await once("500+nested"))[0][2])["error"]["code"] == "InternalError"
    (status, _, body), _ = await once("429-tokens+in-200")
    assert status == 200 and json.loads(body)["code"] == "Throttling.AllocationQuota"
    (status, headers, body), _ = await once("502+html")
    assert status == 502 and headers["Content-Type"].startswith("text/html") and body.startswith(b"<!DOCTYPE")


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ("reset-before-headers", ClientError),
        ("answer-dropped", ClientError),
        ("close-before-headers", ServerDisconnectedError),
        ("reset-mid-body", ClientError),
        ("close-mid-body", ClientPayloadError),
        ("silence", TimeoutError),
        ("silence-after-headers", TimeoutError),
        ("slow-loris", TimeoutError),
    ],
)
async def test_connections_break_as_named(fault: str, error: type[Exception]) -> None:
    """Each broken connection ends in its own kind of client error."""
    answer, _ = await once(fault)
    assert isinstance(answer, error)


async def test_stale_connections_drop_the_next_request() -> None:
    """The connection that carried the answer takes one more request and drops it unread; a new one works."""
    async with Emulator(settings(script={1: "stale-keep-alive"})) as emulator, ClientSession() as session:
        assert (await ask(emulator, session))[0] == 200
        with pytest.raises(ServerDisconnectedError):
            await ask(emulator, session)
        assert (await ask(emulator, session))[0] == 200
        assert emulator.counts.statuses == {200: 2, 0: 1} and emulator.counts.billed.total() == 2


async def test_huge_answers_are_as_large_as_told() -> None:
    """Both kinds decode to the size set; the compressed one is small on the wire."""
    for fault in ("json-huge", "gzip-bomb"):
        (_, headers, body), _ = await once(fault)
        assert 0.9 * (1 << 20) < len(body) <= 1 << 20
        assert ("Content-Encoding" in headers) == (fault == "gzip-bomb")


async def test_dropped_answers_are_paid_again() -> None:
    """An answer computed but never received is billed, and billed again when it is asked again."""
    async with Emulator(settings(script={1: "answer-dropped"})) as emulator, ClientSession() as session:
        with pytest.raises(ClientError):
            await ask(emulator, session)
        await ask(emulator, session)
        assert emulator.counts.paid_twice == 1


async def test_a_client_that_leaves_has_paid() -> None:
    """Work begun is billed though the client gives up while it waits."""
    async with Emulator(settings(latency=100.0)) as emulator, ClientSession() as session:
        with pytest.raises(TimeoutError):
            await ask(emulator, session, seconds=3)
        assert emulator.counts.billed.total() == 1


async def test_faults_combine() -> None:
    """Wrong contents add up, and the answer may still be cut off on its way."""
    (_, _, body), emulator = await once("usage-missing,score-nan,index-duplicate")
    data = json.loads(body)
    assert "usage" not in data and len({r["index"] for r in data["results"]}) == 4
    assert any(math.isnan(r["relevance_score"]) for r in data["results"])
    assert len(emulator.counts.faults) == 3
    assert isinstance((await once("usage-missing,close-mid-body"))[0], ClientPayloadError)
    assert (await once("results-null,score-nan"))[0][0] == 200


async def statuses(seed: int, attempts: int, **switches: Any) -> list[list[int]]:
    """Per query, the statuses of its attempts, until one is 200; queries asked all together."""

    async def insist(emulator: Emulator, session: ClientSession, query: str) -> list[int]:
        seen = []
        for _ in range(attempts):
            seen.append((await ask(emulator, session, query))[0])
            if seen[-1] == 200:
                break
        return seen

    own = settings(seed=seed, rpm=math.inf, **switches)
    async with Emulator(own) as emulator, ClientSession() as session:
        return list(await asyncio.gather(*(insist(emulator, session, f"query {i}") for i in range(40))))


async def test_faults_follow_from_seed_and_content_and_pass_in_the_end() -> None:
    """The same run meets the same faults in whichever order it asks; retries get through; seeds differ."""
    faults = {"503": 0.3, "429-requests": 0.3}
    one, again, other = [await statuses(seed, 4, faults=faults) for seed in (1, 1, 2)]
    assert one == again != other
    assert all(seen[-1] == 200 for seen in one)
    assert Counter(map(len, one))[1] < 40


async def test_faults_without_a_limit_may_last() -> None:
    """A fault that is certain never passes when the limit is off."""
    assert set(map(tuple, await statuses(1, 5, faults={"500": 1.0}, fault_limit=0))) == {(500,) * 5}


async def test_poison_fails_every_request_that_holds_it() -> None:
    """A poisoned text fails for good in query and document alike; others are left alone."""
    poison = {"walrus operator": "400-inspection", "evil": "413"}
    async with Emulator(settings(poison=poison)) as emulator, ClientSession() as session:
        assert [(await ask(emulator, session, "anything"))[0] for _ in range(2)] == [400, 400]
        assert (await ask(emulator, session, "evil"))[0] == 400  # the first poison that is found
    async with Emulator(settings(poison={"evil": "413"})) as emulator, ClientSession() as session:
        assert (await ask(emulator, session, "evil"))[0] == 413
        assert (await ask(emulator, session, "good"))[0] == 200


def test_every_delivery_is_explained() -> None:
    """Each broken connection has a text, and is among the faults."""
    assert all(DELIVERY_FAULTS.values()) and set(DELIVERY_FAULTS) <= set(FAULTS)
