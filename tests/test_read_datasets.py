"""Datasets by name: those of a hub by its own client, those that ir_datasets knows by ir_datasets itself."""

import asyncio
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ir_datasets
import pytest
import zstandard
from field_data import QUERIES, RELEVANT, corpus, entries, lines, mteb, parquet, queries
from hub import hub
from ir_datasets.datasets.base import Dataset
from ir_datasets.formats import TrecScoredDocs
from ir_datasets.util import LocalDownload

from batchrank.data import Query
from batchrank.errors import InputError, MissingExtraError
from batchrank.io import datasets
from batchrank.job.config import Job
from batchrank.job.load import load_job
from batchrank.job.sections import Input
from batchrank.read.layout import facts
from batchrank.read.reader import read

ROOT = Path(__file__).parent.parent
ASK = """
import json, sys
from batchrank.errors import InputError
from batchrank.job.sections import Input
from batchrank.read.reader import read
try:
    print(json.dumps([[q.id, list(q.doc_ids)] for q in read(Input.model_validate(json.loads(sys.argv[1])))]))
except InputError as error:
    print(json.dumps(str(error)))
"""


@pytest.mark.slow
@pytest.mark.anyio
@pytest.mark.real_clock
async def test_a_dataset_of_the_hub_is_read_as_it_is(tmp_path: Path) -> None:
    """MTEB's with its corpus, plain ones by their splits: the test's, or the one that is asked for."""
    mteb(tmp_path / "mteb" / "tiny-reranking")
    (tmp_path / "mteb" / "tiny-reranking" / "README.md").write_text("# a card")
    for split, count in (("train", 5), ("test", 3)):
        parquet(tmp_path / "org" / "plain" / "data" / f"{split}-00000-of-00001.parquet", QUERIES[:count])
    parquet(tmp_path / "org" / "odd" / "a.parquet", QUERIES[:1])
    parquet(tmp_path / "org" / "odd" / "b.parquet", QUERIES[:2])
    whole = [[row["query_id"], [c["id"] for c in row["candidates"]]] for row in QUERIES]
    asked: list[tuple[dict[str, str], Any]] = [
        ({"path": "hf://datasets/mteb/tiny-reranking"}, whole),
        ({"path": "hf://datasets/org/plain"}, whole[:3]),
        ({"path": "hf://datasets/org/plain", "split": "train"}, whole),
        ({"path": "hf://datasets/org/plain", "split": "dev"}, "input.split"),
        ({"path": "hf://datasets/org/odd"}, "the splits a, b; say which"),
        ({"path": "hf://datasets/org/none"}, "no such file or folder"),
    ]
    async with hub(tmp_path) as url:
        environ = {**os.environ, "HF_ENDPOINT": url, "HF_HUB_DISABLE_TELEMETRY": "1", "PYTHONPATH": str(ROOT)}
        for source, expected in asked:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-c", ASK, json.dumps(source)), env=environ, stdout=asyncio.subprocess.PIPE
            )
            out, _ = await process.communicate()
            found = json.loads(out)
            assert expected in found if isinstance(expected, str) else found == expected, source


@pytest.fixture
def named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Datasets that ir_datasets knows, made by itself from files; yields the user's cache folder."""
    texts = {row["_id"]: row["text"] for row in [*corpus(), *queries()]}
    docs = lines(tmp_path / "docs.tsv", [(row["_id"], texts[row["_id"]]) for row in corpus()])
    asked = lines(tmp_path / "queries.tsv", [(row["_id"], row["text"]) for row in queries()])
    qrels = lines(tmp_path / "qrels", [(q, 0, d, 1) for q, d in RELEVANT.items()], separator=" ")
    run = lines(tmp_path / "run", [(q, "Q0", d, 0, s, "x") for q, d, s in entries()], separator=" ")
    parts = {"docs_tsv": str(docs), "queries_tsv": str(asked), "qrels_trec": str(qrels)}
    first = TrecScoredDocs(LocalDownload(str(run)))
    made = {
        "beir/tiny/test": ir_datasets.create_dataset(**parts),
        "tiny": Dataset(ir_datasets.create_dataset(**parts), first),
    }
    for name, dataset in made.items():
        ir_datasets.registry.register(name, dataset)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    datasets.folder_of.cache_clear()
    yield tmp_path / "cache" / "batchrank" / "datasets"
    for name in made:
        del ir_datasets.registry._registered[name]
    datasets.folder_of.cache_clear()


def found(**keys: Any) -> list[Query]:
    return [query for query in read(Input.model_validate(keys)) if isinstance(query, Query)]


def test_a_dataset_that_ir_datasets_knows_is_read_by_its_name(named: Path) -> None:
    """With its first stage where it has one; the folder is made once, whole, and is the same input tomorrow."""
    read_once = found(path="ir_datasets:tiny")
    assert [(q.id, list(q.doc_ids)) for q in read_once] == [
        (row["query_id"], [c["id"] for c in row["candidates"]]) for row in QUERIES
    ]
    assert read_once[0].documents[0] == QUERIES[0]["candidates"][0]["text"]
    stamps = facts(Input(path=("ir_datasets:tiny",)))
    datasets.folder_of.cache_clear()
    assert found(path="ir_datasets:tiny") and facts(Input(path=("ir_datasets:tiny",))) == stamps
    assert [path.name for path in named.iterdir()] == ["tiny"]
    with zstandard.open(named / "tiny" / "corpus.jsonl.zst", "rt") as file:
        assert len(file.readlines()) == len(corpus())


def test_a_dataset_of_beir_is_its_judged_pool_or_the_corpus_of_a_run(named: Path, tmp_path: Path) -> None:
    """As with a folder of BEIR's; a run of one's own is joined with it."""
    assert {q.id: list(q.doc_ids) for q in found(path="beir:tiny")} == {q: [d] for q, d in RELEVANT.items()}
    own = lines(
        tmp_path / "own.trec", [("q1", "Q0", f"d1-{i}", i, 9 - i, "x") for i in range(4)], separator=" "
    )
    (query,) = found(path=str(own), corpus="beir:tiny")
    assert query.id == "q1" and list(query.doc_ids) == [f"d1-{i}" for i in range(4)]


def test_what_is_not_known_is_told(named: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the nearest names, or the line that installs what is missing; nothing half made is left."""
    with pytest.raises(InputError, match=r"no dataset 'vaswanii'.*did you mean vaswani"):
        found(path="ir_datasets:vaswanii")
    broken = ir_datasets.create_dataset(docs_tsv="/nowhere/docs.tsv", queries_tsv="/nowhere/queries.tsv")
    ir_datasets.registry.register("broken", broken)
    with pytest.raises(InputError, match="the dataset broken can't be had"):
        found(path="ir_datasets:broken")
    del ir_datasets.registry._registered["broken"]
    assert not named.exists() or not list(named.iterdir())
    monkeypatch.setitem(sys.modules, "ir_datasets", None)
    datasets.folder_of.cache_clear()
    with pytest.raises(MissingExtraError, match=r"batchrank\[datasets\]"):
        found(path="ir_datasets:tiny")


def test_a_job_keeps_the_name(tmp_path: Path) -> None:
    """It is an address, not a path beside the job file."""
    (tmp_path / "job.yaml").write_text("input: beir:scifact\nmodel: qwen3-rerank\noutput: {path: out}\n")
    job = load_job(tmp_path / "job.yaml", environ={})
    assert job.input is not None and job.input.path == ("ir_datasets://beir/scifact",)
    assert Job(model="qwen3-rerank", input=Input(path=("ir_datasets:a/b",))).input == Input(
        path=("ir_datasets://a/b",)
    )
