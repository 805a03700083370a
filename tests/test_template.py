"""The model's own prompt around texts, and further fields of every request: sent as written, and counted."""

from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jobs import failed, make_job, rows, run, write_jsonl
from servers import serving
from sharding import Thirds, query

from batchrank.data import Request
from batchrank.errors import JobError
from batchrank.job.config import Job
from batchrank.models import Template, card
from batchrank.pipeline.assemble import sharder
from batchrank.pipeline.earlier import identity
from batchrank.pipeline.endpoint import endpoint
from batchrank.shard.chunks import Sharder
from batchrank.shard.long import Cutter
from batchrank.shard.sizes import Limits
from batchrank.wire import CODECS, tailored

ANYIO = pytest.mark.anyio
PROMPT = Template(query="I: {instruct} Q: {query}!", document="D: {document}?")


def sent(wire: str, request: Request, template: Template | None = None, **extra: Any) -> Any:
    return orjson.loads(tailored(wire, template, extra).body(request))


def test_qwen3_reranker_s_prompt_is_the_published_one() -> None:
    """As the model card and vLLM's example put it together."""
    prefix = (
        "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct "
        'provided. Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n'
    )
    suffix = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
    instruct = "Given a web search query, retrieve relevant passages that answer the query"
    model = {"base": "qwen3-reranker", "name": "Qwen/Qwen3-Reranker-0.6B"}
    job = Job.model_validate({"model": model, "endpoint": {"url": "http://g/rerank"}})
    _, codec = endpoint(job, job.url, None)
    body = orjson.loads(codec.body(Request(job.card.name, "What?", ["This.", "That."], job.said_instruct)))
    assert body == {
        "model": "Qwen/Qwen3-Reranker-0.6B",
        "query": f"{prefix}<Instruct>: {instruct}\n<Query>: What?\n",
        "documents": [f"<Document>: {text}{suffix}" for text in ("This.", "That.")],
        "truncate_prompt_tokens": -1,
    }
    assert card("qwen3-reranker").scores == "absolute"


@settings(deadline=None)
@given(st.text(), st.text(), st.text())
def test_texts_with_braces_are_only_texts(text: str, document: str, instruct: str) -> None:
    """Placeholders are replaced in the prompt, never in what was put into it."""
    for tail in ("", "{query}{document}{instruct}{}{0}%s"):
        body = sent("vllm", Request("m", text + tail, [document + tail], instruct), PROMPT)
        expected = {"query": f"I: {instruct} Q: {text}{tail}!", "documents": [f"D: {document}{tail}?"]}
        for key, value in expected.items():
            shown = orjson.loads(CODECS["vllm"].body(Request("m", value if key == "query" else "q", value)))  # type: ignore[arg-type]
            assert body[key] == shown[key]


def test_an_instruct_goes_into_the_prompt_or_beside_it() -> None:
    """Where the prompt has no place for it, the wire's field is used as ever, or there is an error as ever."""
    bare = Template(document="D: {document}")
    request = Request("m", "q", ["d"], "find")
    assert "instruct" not in sent("dashscope", request, PROMPT)
    assert sent("dashscope", request, bare) == {
        "model": "m",
        "query": "q",
        "documents": ["D: d"],
        "instruct": "find",
    }
    with pytest.raises(JobError, match="instruct: wire 'cohere' has no field for it"):
        sent("vllm", request, bare)


def test_fields_are_added_where_they_belong() -> None:
    """Mappings are merged, so that a nested format keeps its own; what a format sends by default can be changed."""
    request = Request("m", "q", ["d"], "find", 0.5)
    native = sent("dashscope-native", request, parameters={"x": {"y": 1}}, user="night")
    assert native["parameters"] == {"instruct": "find", "fps": 0.5, "x": {"y": 1}}
    assert native["user"] == "night" and native["input"] == {"query": "q", "documents": ["d"]}
    plain = Request("m", "q", ["d"])
    assert sent("vllm", plain, truncate_prompt_tokens=512)["truncate_prompt_tokens"] == 512
    assert sent("voyage", plain, truncation=False)["truncation"] is False
    assert tailored("vllm", None, {}) is CODECS["vllm"]


def test_fields_and_prompt_are_part_of_the_run_s_identity_without_their_values() -> None:
    """A run is not continued with other requests than it began with, and no ledger tells what may be a secret."""
    own: dict[str, Any] = {"url": "http://g/rerank"}
    jobs = [
        Job.model_validate({"model": "vllm", "endpoint": {**own, **more}})
        for more in (
            {},
            {"body": {"token": "canary"}},
            {"body": {"token": "other"}},
            {"template": {"query": "Q {query}"}},
        )
    ]
    known = [identity(job, "bytes") for job in jobs]
    assert len({orjson.dumps(one) for one in known}) == 4 and "canary" not in str(known)


words = st.text('ab \n"什🙂', min_size=1, max_size=30)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(words, min_size=1, max_size=30),
    words,
    words,
    st.builds(
        Limits,
        documents=st.integers(1, 10),
        request_tokens=st.integers(100, 400),
        item_tokens=st.integers(30, 60),
        body_bytes=st.integers(600, 2000),
    ),
)
def test_prompts_and_fields_are_counted(
    documents: list[str], text: str, instruct: str, limits: Limits
) -> None:
    """Whatever is really sent keeps to the budget of tokens and of bytes, and no prompt is ever cut."""
    extra = {"user": "night" * 10}
    codec, counter = tailored("vllm", PROMPT, extra), Thirds()
    cutter = Cutter(
        characters=10**12, in_bytes=False, item_tokens=limits.item_tokens, counter=counter, template=PROMPT,
        instruct=instruct,
    )  # fmt: skip
    wrapper = 256 + len(orjson.dumps(extra))
    sharder = Sharder(limits, counter, instruct=instruct, template=PROMPT, wrapper_bytes=wrapper)
    cut = cutter.cut(query([*documents, "x" * 500], text=text))
    for chunk in sharder.shards(cut.query).chunks:
        taken = [cut.query.documents[i] for i in chunk.tolist()]
        body = codec.body(Request("m", cut.query.text, taken, instruct))
        assert len(body) <= limits.body_bytes
        said = orjson.loads(body)
        counts = counter.count([said["query"], *said["documents"]])
        assert counts.max() <= limits.item_tokens
        assert int((counts[0] + counts[1:]).sum()) <= limits.request_tokens
        assert all(d.startswith("D: ") and d.endswith("?") for d in said["documents"])


def test_fields_that_fill_a_request_are_told() -> None:
    """Before every query fails for it."""
    own = {"url": "http://g/r", "body": {"x": "y" * 3000}}
    job = Job.model_validate({"model": "vllm", "endpoint": own, "limits": {"body_bytes": 4000}})
    with pytest.raises(JobError, match=r"endpoint\.body: takes 3,008 bytes, .*limits\.body_bytes: 4,000"):
        sharder(job)


@ANYIO
async def test_a_run_with_a_prompt_and_fields(tmp_path: Path) -> None:
    """Every request of a run has them; a blank document is still never sent, and the output's texts are the input's."""
    data = rows(3, 12)
    data[0]["candidates"][3]["text"] = " "
    path = write_jsonl(tmp_path / "in.jsonl", data)
    async with serving() as server:
        own = {"url": server.url, "body": {"user": "night"}, "template": {"document": "D: {document}"}}
        common: dict[str, Any] = {"endpoint": own, "limits": {"documents": 100}}
        model = "model={base: vllm, name: m}"
        job = make_job(tmp_path, path, model, **common)
        job_texts = make_job(tmp_path, path, model, out="texts", output={"format": "rank_llm"}, **common)
        report, texts = await run(job), await run(job_texts)
    assert report.exit_code == texts.exit_code == 0 and not failed(job)
    assert all(body["user"] == "night" for body in server.bodies)
    assert {text[:3] for body in server.bodies for text in body["documents"]} == {"D: "}
    assert sum(len(body["documents"]) for body in server.bodies[:3]) == 35
    written = b"".join(file.read_bytes() for file in (tmp_path / "texts").glob("ranking-*"))
    assert b"D: " not in written and np.isclose(report.data["totals"]["sent"], 35)
