"""How a job says what it sends and by which way: each key's meaning, and what is said where a value can't be right."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from batchrank.errors import JobError
from batchrank.job.config import Job
from batchrank.job.endpoint import proxy_for
from batchrank.job.load import load_job

MINIMAL: dict[str, Any] = {
    "input": {"path": "data.jsonl"},
    "model": "qwen3-rerank",
    "output": {"path": "out"},
}
URL = "https://api.example.com/v1/rerank"
PROMPT = {"query": "I: {instruct} Q: {query}", "document": "D: {document}"}


def load(folder: Path, *overrides: str, environ: dict[str, str] | None = None, **keys: Any) -> Job:
    path = folder / "job.yaml"
    path.write_text(yaml.safe_dump(MINIMAL | keys, sort_keys=False))
    return load_job(path, overrides=overrides, environ=environ or {})


@pytest.mark.parametrize(
    ("endpoint", "said"),
    [
        ({"body": {"model": "x"}}, r"line \d+: endpoint\.body\.model: can't be set here, .*set model: {base"),
        ({"body": {"query": "x"}}, r"endpoint\.body\.query: .*comes from the input; remove it"),
        ({"body": {"documents": []}}, r"endpoint\.body\.documents: .*comes from the input"),
        ({"body": {"top_n": 5}}, r"endpoint\.body\.top_n: .*score of every document; .*output\.top_n"),
        ({"body": {"instruct": "Find."}}, r"endpoint\.body\.instruct: .*set instruct"),
        (
            {"wire": "dashscope-native", "body": {"parameters": {"top_n": 5}}},
            r"endpoint\.body\.parameters\.top_n: .*output\.top_n",
        ),
        ({"wire": "dashscope-native", "body": {"input": {}}}, r"endpoint\.body\.input: "),
        (
            {"wire": "dashscope-native", "body": {"parameters": 1}},
            r"endpoint\.body\.parameters: must be a mapping",
        ),
        (
            {"body": {"weight": float("inf")}},
            r"endpoint\.body: infinite numbers and nan have no form in JSON",
        ),
        ({"auth": "two words"}, r"endpoint\.auth: "),
        ({"auth": "none", "api_key_env": "KEY"}, r"endpoint: auth: none sends no key"),
        ({"client_key": "k.pem"}, r"endpoint: client_key needs endpoint\.client_cert"),
        (
            {"proxy": "socks5://127.0.0.1:1080"},
            r"endpoint\.proxy: a SOCKS proxy can't be used; write http://",
        ),
        ({"proxy": "http://"}, r"endpoint\.proxy: this is no proxy's address"),
        ({"proxy": "http://host:99999"}, r"endpoint\.proxy: this is no proxy's address"),
        ({"template": {"query": "no place"}}, r"endpoint\.template\.query: {query} must stand in it once"),
        (
            {"template": {"document": "{document} {document}"}},
            r"template\.document: {document} must stand in it once",
        ),
        (
            {"template": {"document": "{document} {doc}"}},
            r"template\.document: {doc} is no placeholder here; known",
        ),
        ({"template": {"qeury": "{query}"}}, r"endpoint\.template\.qeury: unknown key; did you mean 'query'"),
        ({"template": PROMPT}, r"instruct: required, because endpoint\.template has {instruct}"),
    ],
)
def test_what_can_t_be_right_is_told(tmp_path: Path, endpoint: dict[str, Any], said: str) -> None:
    """Each bad value is an error that names the key, why, and what to do."""
    with pytest.raises(JobError, match=said):
        load(tmp_path, endpoint=endpoint)


def test_a_key_needs_a_source_where_a_header_is_named_for_it(tmp_path: Path) -> None:
    """auth: api-key on a server of one's own would silently send nothing."""
    own = {"url": "http://gpu:8000/rerank", "auth": "api-key"}
    with pytest.raises(
        JobError, match=r"endpoint\.auth: there is no key to send in api-key; set endpoint\.api_key"
    ):
        load(tmp_path, model="vllm", endpoint=own)
    assert load(tmp_path, model="vllm", endpoint={**own, "api_key_env": "OWN"}).endpoint.auth == "api-key"


def test_no_key_is_looked_for_where_none_is_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """auth: none runs without the vendor's variable."""
    monkeypatch.delenv("DASHSCOPE_API_KEY", raising=False)
    job = load(tmp_path, endpoint={"auth": "none"})
    assert job.api_key() is None and job.key_sources == ()


@pytest.mark.parametrize("model", ["gte-rerank-v2", "qwen3-vl-rerank"])
def test_a_model_is_not_asked_for_where_it_is_not_served(tmp_path: Path, model: str) -> None:
    """Before anything is sent the job says where the model is; an address of one's own is believed."""
    with pytest.raises(
        JobError, match=f"endpoint.region: {model} is served in beijing only, not in singapore; set"
    ):
        load(tmp_path, model=model, endpoint={"region": "singapore"})
    with pytest.raises(JobError, match="served in beijing only"):
        load(tmp_path, model=model, endpoint={"region": {"workspace": "ws", "region": "hongkong"}})
    for endpoint in ({}, {"region": "beijing"}, {"region": "singapore", "url": URL, "api_key_env": "K"}):
        assert load(tmp_path, model=model, endpoint=endpoint).card.name == model
    assert load(tmp_path, endpoint={"region": "singapore"}).url


def test_a_prompt_goes_around_texts_only(tmp_path: Path) -> None:
    """A model that takes images has no use for one."""
    with pytest.raises(JobError, match=r"endpoint\.template: qwen3-vl-rerank takes images"):
        load(tmp_path, model="qwen3-vl-rerank", endpoint={"template": {"document": "D: {document}"}})


def test_the_instruct_of_a_prompt_is_the_job_s_or_the_card_s(tmp_path: Path) -> None:
    """A model without an instruct of its own takes one that its prompt has a place for."""
    own = {"url": "http://gpu:8000/rerank"}
    assert load(tmp_path, model="qwen3-reranker", endpoint=own).said_instruct == (
        "Given a web search query, retrieve relevant passages that answer the query"
    )
    assert (
        load(tmp_path, model="qwen3-reranker", endpoint=own, instruct="Find code.").said_instruct
        == "Find code."
    )
    job = load(tmp_path, model="vllm", endpoint={**own, "template": PROMPT}, instruct="Find code.")
    assert job.said_instruct == "Find code." and job.template is not None and job.template.instructs
    with pytest.raises(JobError, match="instruct: vllm does not accept it"):
        load(tmp_path, model="vllm", endpoint=own, instruct="Find code.")


def test_fields_from_the_command_line_have_types(tmp_path: Path) -> None:
    """A number that is set by --set or the environment is sent as a number."""
    job = load(
        tmp_path,
        "endpoint.body.max_tokens_per_doc=512",
        "endpoint.body.user=night",
        environ={"BATCHRANK_ENDPOINT__BODY": "{truncation: false}"},
    )
    assert job.endpoint.body == {"truncation": False, "max_tokens_per_doc": 512, "user": "night"}


def test_files_are_relative_to_the_job(tmp_path: Path) -> None:
    """Certificates are found from wherever the job is started."""
    job = load(tmp_path, endpoint={"ca_file": "ca.pem", "client_cert": "me.pem", "client_key": "me.key"})
    found = job.endpoint.ca_file, job.endpoint.client_cert, job.endpoint.client_key
    assert found == tuple(str(tmp_path / name) for name in ("ca.pem", "me.pem", "me.key"))


def test_what_is_shown_holds_no_password_and_no_field_that_is_a_secret(tmp_path: Path) -> None:
    """The proxy's user and password, and texts under keys such as authToken, are left out; the rest stands."""
    body = {"user": "night", "max_tokens_per_doc": 512, "authToken": "canary", "x": [{"api_key": ["canary"]}]}
    shown = load(tmp_path, endpoint={"proxy": "http://canary:canary@proxy:3128", "body": body}).public()[
        "endpoint"
    ]
    assert "canary" not in str(shown)
    assert shown["proxy"] == "http://(not shown)@proxy:3128"
    assert (shown["body"]["user"], shown["body"]["max_tokens_per_doc"]) == ("night", 512)


def test_an_error_does_not_repeat_what_may_be_a_secret(tmp_path: Path) -> None:
    """A proxy's address that can't be read may still hold its password."""
    for endpoint in (
        {"proxy": "socks5://me:canary@h"},
        {"proxy": ["http://me:canary@h"]},
        {"body": "canary"},
    ):
        with pytest.raises(JobError) as caught:
            load(tmp_path, endpoint=endpoint)
        assert "canary" not in str(caught.value)


PROXY = "http://proxy:3128"


@pytest.mark.parametrize(
    ("url", "environ", "proxy"),
    [
        (URL, {}, None),
        (URL, {"HTTPS_PROXY": PROXY}, PROXY),
        (URL, {"https_proxy": PROXY, "HTTPS_PROXY": "http://other:1"}, PROXY),
        (URL, {"HTTP_PROXY": PROXY}, None),
        (URL, {"HTTPS_PROXY": "proxy:3128"}, PROXY),
        (URL, {"HTTPS_PROXY": ""}, None),
        (URL, {"ALL_PROXY": PROXY}, PROXY),
        (URL, {"HTTPS_PROXY": PROXY, "ALL_PROXY": "socks5://x:1"}, PROXY),
        ("http://127.0.0.1:8000/rerank", {"HTTP_PROXY": PROXY}, PROXY),
        ("http://127.0.0.1:8000/rerank", {"HTTP_PROXY": PROXY, "NO_PROXY": "127.0.0.1"}, None),
        ("http://127.0.0.1:8000/rerank", {"HTTP_PROXY": PROXY, "NO_PROXY": "127.0.0.1:9000"}, PROXY),
        ("http://127.0.0.1:8000/rerank", {"HTTP_PROXY": PROXY, "NO_PROXY": "127.0.0.1:8000"}, None),
        ("http://10.1.2.3/rerank", {"HTTP_PROXY": PROXY, "NO_PROXY": "10.0.0.0/8"}, None),
        ("http://[::1]:8000/rerank", {"HTTP_PROXY": PROXY, "no_proxy": "::1"}, None),
        (URL, {"HTTPS_PROXY": PROXY, "no_proxy": "localhost, example.com"}, None),
        (URL, {"HTTPS_PROXY": PROXY, "no_proxy": ".example.com"}, None),
        (URL, {"HTTPS_PROXY": PROXY, "no_proxy": "*.example.com"}, None),
        (URL, {"HTTPS_PROXY": PROXY, "no_proxy": "ample.com"}, PROXY),
        (URL, {"HTTPS_PROXY": PROXY, "no_proxy": "api.example.com:443"}, None),
        (URL, {"HTTPS_PROXY": PROXY, "no_proxy": "*"}, None),
    ],
)
def test_the_environment_says_which_proxy(url: str, environ: dict[str, str], proxy: str | None) -> None:
    """HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY as curl reads them; loopback is no exception."""
    assert proxy_for(url, None, environ) == proxy


def test_the_job_s_proxy_wins(tmp_path: Path) -> None:
    """Over the variables, also where it says that there is none; the emulator inside the process needs none."""
    environ = {"HTTPS_PROXY": "http://other:1", "NO_PROXY": "*"}
    assert load(tmp_path, endpoint={"proxy": "proxy:3128"}).proxy(environ) == PROXY
    assert load(tmp_path, endpoint={"proxy": "none"}).proxy(environ | {"NO_PROXY": ""}) is None
    assert load(tmp_path, endpoint={"url": "emulator", "proxy": PROXY}).proxy({}) is None


def test_a_variable_that_names_no_proxy_is_told_without_its_password() -> None:
    """Going around a proxy in silence would be worse; so would be showing the password."""
    with pytest.raises(JobError, match="environment, ALL_PROXY: a SOCKS proxy can't be used") as caught:
        proxy_for(URL, None, {"ALL_PROXY": "socks5://me:canary@proxy:1080"})
    assert "canary" not in str(caught.value)


EMULATOR = {"url": "emulator"}
SINGAPORE = {"url": "https://dashscope-intl.aliyuncs.com/compatible-api/v1/reranks"}


def answers(tmp_path: Path, endpoint: dict[str, Any], **keys: Any) -> str:
    return load(tmp_path, endpoint=endpoint, **keys).answers_identity


def test_answers_are_remembered_by_who_answers_not_by_the_address(tmp_path: Path) -> None:
    """A region's hosts answer alike, and so do replicas of one model; another region, model or wire does not."""
    beijing = answers(tmp_path, {})
    assert beijing == answers(tmp_path, {"region": "beijing"})
    assert beijing == answers(tmp_path, {"region": {"workspace": "ws-1"}})
    assert beijing == answers(tmp_path, {"url": "https://ws-2.cn-beijing.maas.aliyuncs.com/v1/reranks"})
    assert answers(tmp_path, {"region": "singapore"}) == answers(tmp_path, SINGAPORE)
    here, there = (answers(tmp_path, {"url": f"http://gpu-{number}:8000/v1/rerank"}) for number in (1, 2))
    assert here == there
    others = [
        beijing,
        here,
        answers(tmp_path, {"region": "singapore"}),
        answers(tmp_path, {"wire": "dashscope-native"}),
        answers(tmp_path, EMULATOR),
        answers(tmp_path, {}, model={"base": "qwen3-rerank", "name": "other"}),
    ]
    assert len(set(others)) == len(others)


def test_a_name_for_who_answers_stands_for_all_of_it(tmp_path: Path) -> None:
    """But an emulator never passes for an endpoint, and the name is one line."""
    named = answers(tmp_path, {"identity": "ours", **SINGAPORE})
    assert named == answers(tmp_path, {"identity": "ours", "url": "http://gpu:8000"})
    assert named != answers(tmp_path, {"identity": "ours", **EMULATOR})
    with pytest.raises(JobError, match=r"endpoint\.identity"):
        load(tmp_path, endpoint={"identity": "two\nlines"})
