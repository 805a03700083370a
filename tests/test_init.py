"""``init`` on data of all kinds: it says what it takes for what, and there is always a next step."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from jobs import rows, write_jsonl
from test_cli import batchrank

from batchrank.errors import ExitCode
from batchrank.job.load import load_job

HITS = {
    "question": "copy tree",
    "hits": [{"key": "d1", "body": "copy"}, {"key": "d2", "body": "x"}],
    "lang": "en",
}


def written(folder: Path, name: str = "job.yaml") -> Any:
    return yaml.safe_load((folder / name).read_text())


def write(path: Path, data: list[dict[str, Any]]) -> None:
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(data), path)
    else:
        write_jsonl(path, data)


@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet"])
def test_it_says_which_column_is_what(tmp_path: Path, name: str) -> None:
    """On the terminal and in the file; what is left over too."""
    write(tmp_path / name, [{**row, "lang": "en"} for row in rows(2, 3)])
    said = batchrank("init", name, cwd=tmp_path).stdout.decode()
    line = (
        "columns: query_id = query_id, query = query, candidates = candidates, doc_id = candidates.id, "
        "text = candidates.text, score = candidates.score"
    )
    assert line in said and "not used: lang" in said
    assert f"#   {line}" in (tmp_path / "job.yaml").read_text()


@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet"])
def test_columns_it_does_not_know_are_lines_to_fill(tmp_path: Path, name: str) -> None:
    """The file is there, a check says the same, and once the lines are filled the job runs."""
    write(tmp_path / name, [HITS])
    done = batchrank("init", name, cwd=tmp_path)
    assert done.returncode == ExitCode.INPUT and b"FILL-IN" in done.stdout
    assert written(tmp_path)["input"]["columns"] == {"candidates": "FILL-IN", "query_id": "question"}
    assert "# fill in its name; not used yet: hits, lang" in (tmp_path / "job.yaml").read_text()
    check = batchrank("check", "job.yaml", cwd=tmp_path)
    assert check.returncode == ExitCode.INPUT and b"FILL-IN" in check.stdout
    text = (tmp_path / "job.yaml").read_text()
    (tmp_path / "job.yaml").write_text(
        text.replace("candidates: FILL-IN", "text: body\n    candidates: hits")
    )
    assert batchrank("run", "job.yaml", "--quiet", cwd=tmp_path).returncode == 0


def test_columns_and_keys_can_be_given(tmp_path: Path) -> None:
    """They are in the file as a job has them, numbers as numbers; the environment's are not."""
    write_jsonl(tmp_path / "a.jsonl", [HITS, {**HITS, "question": "other"}])
    done = batchrank(
        *("init", "a.jsonl", "--column", "candidates=hits", "--column", "text=body", "--column", "doc_id=key"),
        *("--set", "budget.max_cost=5", "--set", "rate.rpm=6000", "--set", "instruct=Find: it"),
        cwd=tmp_path, BATCHRANK_RATE__TPM="77",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    data = written(tmp_path)
    assert data["budget"] == {"max_cost": 5.0} and data["rate"] == {"rpm": 6000.0}
    assert data["instruct"] == "Find: it"
    assert batchrank("run", "job.yaml", "--quiet", cwd=tmp_path).returncode == 0
    wrong = ("--column", "foo=bar"), ("--column", "query"), ("--set", "rate.rmp=1"), ("--model", "none")
    for arguments in wrong:
        refused = batchrank("init", "a.jsonl", "--force", *arguments, cwd=tmp_path)
        assert refused.returncode == ExitCode.USAGE, arguments
    assert written(tmp_path) == data


def test_a_server_of_one_s_own_needs_no_key(tmp_path: Path) -> None:
    """On this machine; anywhere else the key is asked for, as by every check."""
    write_jsonl(tmp_path / "a.jsonl", rows(1, 3))
    batchrank("init", "a.jsonl", "--url", "http://127.0.0.1:9/rerank", cwd=tmp_path)
    assert written(tmp_path)["endpoint"] == {"url": "http://127.0.0.1:9/rerank", "auth": "none"}
    batchrank("init", "a.jsonl", "--force", "--url", "https://example.com/rerank", cwd=tmp_path)
    assert written(tmp_path)["endpoint"] == {"url": "https://example.com/rerank"}


def test_queries_without_ids_are_called_by_their_texts(tmp_path: Path) -> None:
    """Pairs of the same text are one query; the ids are the same tomorrow, wherever the query stands then."""
    pairs = [{"query": query, "text": f"{query} {i}"} for query in ("copy", "sort") for i in range(3)]
    write_jsonl(tmp_path / "pairs.jsonl", pairs)
    done = batchrank("init", "pairs.jsonl", "--set", "output.format=jsonl", cwd=tmp_path)
    assert done.returncode == 0 and b"the text of each is its id" in done.stdout
    assert batchrank("run", "job.yaml", "--quiet", cwd=tmp_path).returncode == 0
    lines = (tmp_path / "out" / "pairs" / "ranking-00000.jsonl").read_bytes().splitlines()
    assert [json.loads(line)["query_id"] for line in lines] == ["copy", "sort"]


def test_every_dataset_has_a_folder_of_its_own(tmp_path: Path) -> None:
    """Told apart by what surrounds a common name, numbered where another job's output is; one's own stays."""
    for name in ("x/train.jsonl", "y/train.jsonl", "b.jsonl"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write_jsonl(tmp_path / name, rows(1, 3))
    (tmp_path / "out" / "b").mkdir(parents=True)
    for name, folder in (
        ("x/train.jsonl", "x"),
        ("y/train.jsonl", "y"),
        ("x/*.jsonl", "x"),
        ("b.jsonl", "b-2"),
    ):
        assert batchrank("init", name, "--force", cwd=tmp_path).returncode == 0
        assert written(tmp_path)["output"]["path"] == f"out/{folder}"
    (tmp_path / "out" / "b-2").mkdir()
    batchrank("init", "b.jsonl", "--force", cwd=tmp_path)
    assert written(tmp_path)["output"]["path"] == "out/b-2"


@pytest.mark.parametrize("set_", [(), ("input.limit=1",), ("input=other.jsonl", "endpoint=emulator")])
def test_an_input_and_an_endpoint_may_be_written_short(tmp_path: Path, set_: tuple[str, ...]) -> None:
    """A path alone, an address alone; what overrides one of their keys leaves the rest."""
    (tmp_path / "job.yaml").write_text(
        "input: in.jsonl\nmodel: qwen3-rerank\nendpoint: emulator\noutput: {path: out}\n"
    )
    job = load_job(tmp_path / "job.yaml", overrides=set_, environ={"BATCHRANK_INPUT__SPLIT": "dev"})
    assert job.input is not None and job.emulated
    name = "other.jsonl" if len(set_) > 1 else "in.jsonl"
    assert job.input.path == (str(tmp_path / name),) and job.input.split == "dev"
    assert job.input.limit == (1 if set_ == ("input.limit=1",) else None)
