"""The emulator's quotas and latency, in virtual time."""

import asyncio

import pytest
from emulator_client import pass_time, serving

pytestmark = pytest.mark.anyio


async def test_requests_past_a_second_s_share_are_throttled() -> None:
    """A sixtieth of the quota holds in any second, and refused requests leave it untouched."""
    async with serving(rpm=120, retry_after="seconds") as client:
        answers = [
            await client.post({"model": "qwen3-rerank", "query": "q", "documents": ["d"]}) for _ in range(3)
        ]
        pass_time(1.01)
        assert [a[0] for a in answers] == [200, 200, 429]
        assert answers[2][1]["code"] == "Throttling.RateQuota" and answers[2][2]["Retry-After"] == "2"
        assert (await client.flat())[0] == 200


async def test_a_minute_s_quota_is_held() -> None:
    """Without the rule per second a minute's worth may come at once, and then nothing for a minute."""
    async with serving(rpm=5, per_second=False) as client:
        assert [(await client.flat())[0] for _ in range(6)] == [200] * 5 + [429]
        pass_time(59)
        assert (await client.flat())[0] == 429
        pass_time(1.1)
        assert (await client.flat())[0] == 200


async def test_tokens_past_the_quota_are_throttled_by_their_own_message() -> None:
    """The tokens of admitted requests count; one request alone always passes."""
    async with serving(tpm=600, per_second=False) as client:
        assert (await client.flat("q", ["d" * 400]))[0] == 200
        assert await client.rejected(query="q", documents=["d" * 400]) == (
            *(429, "Throttling.AllocationQuota"),
            "Allocated quota exceeded, please increase your quota limit.",
        )
        pass_time(61)
        assert (await client.flat("q", ["d" * 4000]))[0] == 200


async def test_steep_growth_is_throttled_by_its_own_message() -> None:
    """Requests may not grow faster from second to second than allowed."""
    async with serving(growth=2.0, growth_start=2) as client:
        assert [(await client.flat())[0] for _ in range(3)] == [200, 200, 429]
        pass_time(1.01)
        answers = [await client.flat() for _ in range(5)]
        assert [a[0] for a in answers] == [200] * 4 + [429]
        assert answers[4][1]["message"].startswith("Request rate increased too quickly")


async def test_latency_and_concurrency_are_kept() -> None:
    """Two at a time, half a second each: four requests take a second, and the loop's clock tells."""
    async with serving(latency=0.5, concurrency=2) as client:
        start = asyncio.get_running_loop().time()
        await asyncio.gather(*(client.flat() for _ in range(4)))
        took = asyncio.get_running_loop().time() - start
        assert 1.0 <= took < 1.1
        assert client.emulator.counts.most_open == 4


async def test_random_latency_follows_from_the_seed() -> None:
    """The same request takes as long on every run with one seed, and another time with another seed."""

    async def took(seed: int) -> float:
        async with serving(latency=0.5, latency_spread=1.0, seed=seed) as client:
            start = asyncio.get_running_loop().time()
            await client.flat()
            return asyncio.get_running_loop().time() - start

    one, again, other = await took(1), await took(1), await took(2)
    assert one == pytest.approx(again, abs=1e-3) and abs(one - other) > 1e-2
