"""Model cards: what the package knows of models, and what it says of those it doesn't know."""

import math

import pytest

from batchrank.errors import JobError, UnknownModelError
from batchrank.models import UNLIMITED, Card, Price, card, cards, vendor
from batchrank.wire import CODECS


@pytest.mark.parametrize("name", sorted(cards()))
def test_cards_hang_together(name: str) -> None:
    """Each card has a source, a codec for its wire, a vendor with a path for it, prices where there are hosts."""
    own = card(name)
    home = vendor(own.vendor)
    assert own.source and own.wire in CODECS and own.wire in home.paths
    assert home.default_region in home.hosts or not home.hosts
    assert set(own.prices) <= set(home.hosts) and set(own.regions) <= set(home.hosts)
    assert own.template is None or not own.template.instructs or own.instruct
    assert (own.vision is not None) == bool(own.media)
    assert bool(home.api_key_env) == bool(home.hosts)
    assert ("fps" in own.parameters) == ("video" in own.counts)


def test_the_vendor_s_three_models_are_as_documented() -> None:
    """Documents, tokens per item and request, quotas and parameters of the pages."""
    known = {
        name: (own.counts, own.item_tokens, own.request_tokens, own.rpm, own.tpm)
        for name in ("qwen3-rerank", "gte-rerank-v2", "qwen3-vl-rerank")
        for own in [card(name)]
    }
    assert known == {
        "qwen3-rerank": ({"text": 500}, 4000, 120_000, 5400, 5e9),
        "gte-rerank-v2": ({"text": 500}, 4000, 30_000, 5040, 4.98e9),
        "qwen3-vl-rerank": ({"text": 100, "image": 40, "video": 4}, 8000, 120_000, 600, 9e6),
    }
    assert "instruct" not in card("gte-rerank-v2").parameters
    assert "return_documents" not in card("qwen3-rerank").parameters


def test_prices_are_by_region_and_by_kind() -> None:
    """A token costs what its region and its kind cost; an unknown region has no price."""
    assert card("qwen3-rerank").price("singapore") == Price(currency="USD", text=0.1)
    price = card("qwen3-vl-rerank").price(None)
    assert price is not None and price.currency == "CNY"
    assert price.cost(3_000_000, image_tokens=2_000_000) == pytest.approx(0.7 + 2 * 1.8)
    assert card("qwen3-vl-rerank").price("singapore") is None
    assert Price(currency="USD", text=0.5).cost(2_000_000, image_tokens=1_000_000) == 1.0


def test_servers_of_one_s_own_have_no_quota_price_or_key() -> None:
    """Nothing is held back, nothing is asked for, and the address must be told."""
    for name, most in {"tei": 32, "vllm": 500, "infinity": 2048, "nim": 512}.items():
        own = card(name)
        assert (own.documents, own.rpm, own.tpm, own.prices) == (most, math.inf, math.inf, {})
        assert own.request_tokens == own.item_tokens == UNLIMITED
        assert vendor(own.vendor).api_key_env is None
        with pytest.raises(JobError, match=r"endpoint\.url: required"):
            vendor(own.vendor).url(own.wire, None)


@pytest.mark.parametrize(
    ("name", "region", "workspace", "url"),
    [
        ("qwen3-rerank", None, None, "https://dashscope.aliyuncs.com/compatible-api/v1/reranks"),
        (
            "gte-rerank-v2",
            "singapore",
            None,
            "https://dashscope-intl.aliyuncs.com/api/v1/services/rerank/text-rerank/text-rerank",
        ),
        (
            "qwen3-rerank",
            "singapore",
            "ws-1",
            "https://ws-1.ap-southeast-1.maas.aliyuncs.com/compatible-mode/v1/reranks",
        ),
        ("rerank-v3.5", None, None, "https://api.cohere.com/v2/rerank"),
        ("rerank-2.5", None, None, "https://api.voyageai.com/v1/rerank"),
        ("jina-reranker-v3", None, None, "https://api.jina.ai/v1/rerank"),
    ],
)
def test_regions_and_workspaces_pick_hosts(
    name: str, region: str | None, workspace: str | None, url: str
) -> None:
    """The card's vendor, the wire, the region and the workspace make the address."""
    own: Card = card(name)
    assert vendor(own.vendor).url(own.wire, region, workspace) == url


def test_wrong_regions_wires_and_workspaces_are_said_to_be_wrong() -> None:
    """What a vendor doesn't have is an error that names the key."""
    for arguments, said in {
        ("cohere", "paris", None): "endpoint.region: unknown region 'paris'; one of default",
        ("tei", None, None): "wire 'tei' has no known path",
        ("cohere", None, "ws"): "no workspaces",
    }.items():
        with pytest.raises(JobError, match=said):
            vendor("cohere").url(*arguments)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("gte-rerank", "'gte-rerank' was discontinued by its vendor; use 'qwen3-rerank'"),
        ("rerank-english-v2.0", "use 'rerank-v3.5'"),
        ("qwen3-rerankr", "did you mean 'qwen3-rerank'?"),
        ("completely-else", "model: no card for"),
    ],
)
def test_unknown_and_discontinued_names_are_errors_that_help(name: str, said: str) -> None:
    """A discontinued name proposes the successor, a misspelt one the nearest, any other the way out."""
    with pytest.raises(UnknownModelError, match=said):
        card(name)
