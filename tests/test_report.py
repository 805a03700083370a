"""The report: one file that tells how a run went, whatever is in the data."""

import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import anyio
import pytest
from jobs import make_job, rankings, rows, run, write_jsonl
from test_cli import batchrank

from batchrank.emulator.app import Emulator
from batchrank.emulator.settings import Settings
from batchrank.errors import InputError
from batchrank.job.config import Job
from batchrank.job.load import load_job
from batchrank.observe.facts import gather
from batchrank.observe.page import render
from batchrank.quality.measures import rbo

pytestmark = pytest.mark.anyio

CANARY = "<script>document.title='PWNED'</script><img src=x onerror=\"document.title='PWNED'\">&{{7*7}}"
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
_LOADS = {"src", "srcset", "data", "action", "formaction", "poster", "background"}


class Page(HTMLParser):
    """Its elements, attributes and texts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.text += data


def canaries() -> list[Any]:
    """A canary in every text field, and two records that fail."""
    data: list[Any] = rows(8, 23)
    for row in data:
        row["query_id"] += CANARY
        row["query"] += CANARY
        for candidate in row["candidates"]:
            candidate["id"] += CANARY
            candidate["text"] += CANARY
    return [
        *data,
        {"query_id": CANARY, "query": " ", "candidates": ["a"]},
        {"query_id": CANARY + "2", "query": None},
    ]


async def finished(tmp_path: Path, data: list[Any], **sections: Any) -> Job:
    job = make_job(tmp_path, write_jsonl(tmp_path / "in.jsonl", data), **sections)
    await run(job)
    return job


def judged(path: Path, data: list[Any]) -> str:
    write_jsonl(
        path,
        [
            {"query_id": row["query_id"], "doc_id": row["candidates"][-1]["id"], "relevance": 1}
            for row in data
            if row.get("candidates") and isinstance(row["candidates"][0], dict)
        ],
    )
    return str(path)


async def test_a_run_with_faults_shows_them(tmp_path: Path) -> None:
    """Retries, refusals, malformed answers and failed queries, by kind; and everything the issue of a report names."""
    faults = {"500": 0.1, "json-garbage": 0.1, "429-requests": 0.02}
    data = [*rows(12, 34), {"query_id": "bad", "query": " ", "candidates": ["a"]}]
    async with Emulator(Settings(faults=faults, scores="relative", seed=1)) as emulator:
        endpoint = {"url": f"{emulator.url}/compatible-api/v1/reranks", "api_key_file": str(tmp_path / "key")}
        (tmp_path / "key").write_text("sk-0123456789")
        job = await finished(tmp_path, data, endpoint=endpoint)
    assert job.output is not None
    qrels = judged(tmp_path / "qrels.jsonl", data)
    page = Page(render(gather(job.output.path, qrels=[qrels])))
    for text in (
        "Cost and tokens against the plan", "Billed against predicted", "Throughput", "Quota use", "Latency",
        "Chunk fill", "Certified depth", "Score drift", "The slowest queries", "Failed queries", "Before and after",
        "repeated: InternalError", "repeated: malformed", "not ranked: empty-query", "nDCG@10", "q11",
        "complete, but 1 query failed",
    ):  # fmt: skip
        assert text in page.text, text
    assert page.tags.count("svg") >= 9
    assert "sk-0123456789" not in page.text


async def test_nothing_in_the_data_becomes_part_of_the_page(tmp_path: Path) -> None:
    """A canary in every text field is shown as text; the page loads nothing and has no script."""
    data = canaries()
    job = await finished(tmp_path, data, instruct=CANARY, name="a" + CANARY.replace("/", ""))
    assert job.output is not None
    text = render(gather(job.output.path, qrels=[judged(tmp_path / "qrels.jsonl", data)]))
    page = Page(text)
    assert not {"script", "iframe", "object", "embed", "link rel=stylesheet", "base", "form", "img"} & set(
        page.tags
    )
    assert CANARY in page.text
    for name, value in page.attributes:
        assert name not in _LOADS and not name.startswith("on"), (name, value)
        assert name != "href" or value.startswith("#") or value == "data:,"
        assert "@import" not in value and "url(http" not in value
    assert len({v for n, v in page.attributes if n == "id"}) == sum(n == "id" for n, _ in page.attributes)


async def test_a_run_that_stopped_or_did_nothing_has_a_report_too(tmp_path: Path) -> None:
    """It says why, and leaves out what isn't known."""
    job = await finished(tmp_path, rows(3, 34), budget={"max_tokens": 1})
    assert job.output is not None
    page = Page(render(gather(job.output.path)))
    assert "budget.max_tokens" in page.text and "Quality" not in page.text
    (tmp_path / "in.jsonl").unlink()
    assert "its input can't be read" in Page(render(gather(job.output.path))).text


async def test_the_queries_that_moved_most_are_shown(tmp_path: Path) -> None:
    """Twenty with ten documents each, the most changed first, with texts; none where the first stage isn't known."""
    data = rows(30, 24)
    data[3]["query"] += " " + "x" * 5_000
    for candidate in data[3]["candidates"]:
        candidate["text"] += " " + "y" * 5_000
    job = await finished(tmp_path, data)
    assert job.output is not None
    facts = gather(job.output.path)
    own = {row["query_id"]: [e["doc_id"] for e in row["ranking"]] for row in rankings(job)}
    expected = sorted(rbo([f"d{q}-{d}" for d in range(10)], own[f"q{q}"][:10]) for q in range(30))[:20]
    assert [one.overlap for one in facts.moved] == pytest.approx(expected)
    for one in facts.moved:
        assert [place.doc_id for place in one.after] == own[one.query_id][:10]
        assert [place.doc_id for place in one.before] == [f"d{one.query_id[1:]}-{d}" for d in range(10)]
        assert one.new == sum(place.other is None for place in one.after)
        assert all(place.text for place in (*one.before, *one.after)) and one.query
    text = render(facts)
    assert "The queries that moved most" in Page(text).text
    assert max(len(line) for line in text.splitlines() if "yyy" in line or "xxx" in line) < 1_000
    assert not any(
        place.text for one in gather(job.output.path, with_plan=False).moved for place in one.after
    )
    other = await finished(tmp_path, data, out="other", output={"format": "trec"})
    assert other.output is not None and not gather(other.output.path).moved


@pytest.mark.parametrize("format", ["parquet", "trec", "jsonl"])
async def test_every_output_format_can_be_reported(tmp_path: Path, format: str) -> None:
    """Per-query records stand in different files."""
    job = await finished(tmp_path, rows(3, 34), output={"format": format})
    assert job.output is not None
    facts = gather(job.output.path, with_plan=False)
    assert len(facts.queries.certified) == 3 and facts.queries.methods.total() == 3
    assert min(facts.queries.certified) >= 5


@pytest.mark.slow
async def test_the_command_writes_one_file(tmp_path: Path) -> None:
    """By default into the output folder; a folder without a run is told."""
    await finished(tmp_path, rows(2, 3))
    done = batchrank("report", "out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "report.html").read_text().startswith("<!doctype html>")
    none = batchrank("report", ".", cwd=tmp_path)
    assert none.returncode == InputError.exit_code and b"summary.json" in none.stderr


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
async def test_a_browser_runs_nothing_of_the_data(tmp_path: Path) -> None:
    """Chromium opens the file from disk: its title is the job's, and the canaries are text."""
    job = await finished(tmp_path, canaries())
    assert job.output is not None
    page = tmp_path / "report.html"
    page.write_text(render(gather(job.output.path)))
    flags = (
        "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
        "--disable-component-update --disable-sync"
    )
    profile = f"--user-data-dir={tmp_path / 'profile'}"
    done = await anyio.run_process([str(CHROMIUM), *flags.split(), profile, "--dump-dom", page.as_uri()])
    shown = done.stdout.decode()
    assert "<title>batchrank: out</title>" in shown and "document.title" in shown


async def test_a_report_can_be_made_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The job was started with relative paths; its summary tells where its input is all the same."""
    data = write_jsonl(tmp_path / "in.jsonl", rows(2, 4))
    make_job(tmp_path, Path(data.name))
    monkeypatch.chdir(tmp_path)
    await run(load_job("out.yaml", environ={}))
    monkeypatch.chdir("/")
    facts = gather(tmp_path / "out")
    assert facts.plan is not None and not facts.notes


async def test_a_short_run_shows_how_it_went(tmp_path: Path) -> None:
    """A single request: its line in each plot over time, when it was, and the latency."""
    job = await finished(tmp_path, rows(1, 4))
    assert job.output is not None
    facts = gather(job.output.path)
    page = render(facts)
    shown = Page(page)
    assert "latency at most, p50 / p95" in shown.text and "ended 1970-01-01" in shown.text
    lines = re.findall(r'<path d="M ([^"]+)" clip-path[^>]+style="fill: none; stroke: var\(--one\)', page)
    assert len(lines) >= 3
    for line in lines:
        ends = [part.split()[0] for part in line.replace("\n", " ").split("L")]
        assert float(ends[-1]) > float(ends[0]) + 10
