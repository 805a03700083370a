"""The job file: what is said, where, and what wins."""

from fractions import Fraction
from pathlib import Path

import pytest

from batchrank.bench.matrix import load_bench
from batchrank.errors import JobError, UnknownModelError
from batchrank.job.config import Job
from batchrank.job.load import load_job

MINIMAL = "input: {path: data.jsonl}\nmodel: qwen3-rerank\noutput: {path: out}\n"


def job_file(folder: Path, text: str = MINIMAL, name: str = "nightly.yaml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def complaint(folder: Path, text: str, *overrides: str, name: str = "nightly.yaml", **environ: str) -> str:
    with pytest.raises(JobError) as caught:
        load_job(job_file(folder, text, name), overrides=overrides, environ=environ)
    return str(caught.value).replace(str(folder), "")


def test_minimal_job_has_documented_defaults(tmp_path: Path) -> None:
    """Only input.path, model and output.path are required; the name is the file's stem."""
    job = load_job(job_file(tmp_path), environ={})
    assert (job.name, job.merge.method, job.merge.top_k) == ("nightly", "hub", 100)
    assert (job.limits.headroom, job.retry.attempts, job.retry.max_delay) == (0.02, 6, 60)
    assert job.output is not None and job.output.format == "parquet"
    assert job.card.documents == 500 and job.url == "https://dashscope.aliyuncs.com/compatible-api/v1/reranks"


def test_paths_are_relative_to_the_job_file(tmp_path: Path) -> None:
    """The same job file gives the same run from whichever folder it is started."""
    job = load_job(job_file(tmp_path), environ={})
    assert job.input is not None and job.input.path == (str(tmp_path / "data.jsonl"),)
    assert job.output is not None and job.output.path == str(tmp_path / "out")
    assert job.ledger_path == tmp_path / "out" / "ledger.sqlite"


def test_toml_says_the_same_as_yaml(tmp_path: Path) -> None:
    """A job is YAML or TOML by suffix."""
    text = 'model = "qwen3-rerank"\n[input]\npath = "data.jsonl"\n[output]\npath = "out"\n'
    assert load_job(job_file(tmp_path, text, "nightly.toml"), environ={}) == load_job(
        job_file(tmp_path), environ={}
    )


def test_set_beats_environment_beats_file(tmp_path: Path) -> None:
    """--set overrides the environment, which overrides the file."""
    path = job_file(tmp_path, MINIMAL + "rate: {rpm: 1, tpm: 1}\nmerge: {top_k: 1}\n")
    environ = {"BATCHRANK_RATE__RPM": "2", "BATCHRANK_RATE__TPM": "2"}
    job = load_job(path, overrides=["rate.rpm=3"], environ=environ)
    assert (job.rate.rpm, job.rate.tpm, job.merge.top_k) == (3, 2, 1)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (MINIMAL + "rate:\n  rmp: 60\n", "/nightly.yaml, line 5: rate.rmp: unknown key; did you mean 'rpm'?"),
        (MINIMAL + "rats: {}\n", "/nightly.yaml, line 4: rats: unknown key; did you mean 'rate'?"),
        (
            MINIMAL + "merge: {method: best}\n",
            "line 4: merge.method: input should be 'hub', 'full', 'rrf' or 'raw'",
        ),
        (
            MINIMAL + "limits: {headroom: 1.5}\n",
            "line 4: limits.headroom: input should be less than 1; got 1.5",
        ),
        (
            MINIMAL + "rate: {concurrency: 0}\n",
            "line 4: rate.concurrency: input should be greater than or equal to 1",
        ),
        (MINIMAL + "model: other\n", "line 4: model: the key stands here a second time"),
        ("model: qwen3-rerank\noutput: {path: o}\n", "/nightly.yaml: input.path: required"),
        ("- 1\n", "a job file is a mapping of keys; this one holds list"),
        ("a: [\n", "/nightly.yaml, line 2, column 1: while parsing"),
        (
            MINIMAL.replace("qwen3-rerank", "gte-rerank"),
            "line 2: model: 'gte-rerank' was discontinued by",
        ),
        (
            MINIMAL.replace("qwen3-rerank", "qwen3-rrank"),
            "line 2: model: no card for 'qwen3-rrank'; did you mean",
        ),
        (
            MINIMAL + "endpoint: {region: mars}\n",
            "line 4: endpoint.region: unknown region 'mars'; one of beijing",
        ),
        (MINIMAL + "endpoint: {url: ftp://x}\n", "line 4: endpoint.url: 'ftp://x' is not an http(s) address"),
        (MINIMAL + "endpoint: {url: 'https://me:pw@x/'}\n", "a user or password in the address"),
        (MINIMAL.replace("out}", "'-', format: trec}"), "standard output carries JSON lines only"),
        (
            MINIMAL.replace("model: qwen3-rerank", "model: {base: qwen3-rerank, rpmm: 3}"),
            "line 2: model.rpmm: extra",
        ),
    ],
)
def test_every_error_names_key_and_line(tmp_path: Path, text: str, said: str) -> None:
    """An unknown key, a wrong type or an impossible value is an error that names the key and the line."""
    assert said in complaint(tmp_path, text)


def test_errors_from_set_and_environment_name_their_source(tmp_path: Path) -> None:
    """An override is blamed, not a line of the file."""
    assert complaint(tmp_path, MINIMAL, "rate.rmp=1").startswith("--set: rate.rmp: unknown key")
    assert complaint(tmp_path, MINIMAL, "rate").startswith("--set rate: write key.sub=value")
    assert complaint(tmp_path, MINIMAL, BATCHRANK_RATE__RMP="1").startswith(
        "environment: rate.rmp: unknown key"
    )
    assert "BATCHRANK_RAT: unknown key 'rat'" in complaint(tmp_path, MINIMAL, BATCHRANK_RAT="1")


def test_toml_errors_name_the_line_too(tmp_path: Path) -> None:
    """TOML's parser tells no lines, the error does."""
    text = 'model = "qwen3-rerank"\n[input]\npath = "d"\n[output]\npath = "o"\n[rate]\nrmp = 1\n'
    assert "/nightly.toml, line 7: rate.rmp: unknown key" in complaint(tmp_path, text, name="nightly.toml")


def test_a_model_mapping_changes_one_card(tmp_path: Path) -> None:
    """{base, name, ...} makes a model that has no card usable by configuration alone."""
    text = MINIMAL.replace(
        "model: qwen3-rerank",
        "model: {base: qwen3-rerank, name: qwen3.7-text-rerank, documents: 200, price: {currency: USD, text: 0.2}}",
    )
    job = load_job(job_file(tmp_path, text), environ={})
    assert (job.card.name, job.card.documents, job.card.item_tokens) == ("qwen3.7-text-rerank", 200, 4000)
    assert job.price is not None and job.price.cost(1_000_000) == 0.2


def test_regions_pick_host_and_price(tmp_path: Path) -> None:
    """A region's or workspace's own host is used, and its price."""
    singapore = load_job(job_file(tmp_path, MINIMAL + "endpoint: {region: singapore}\n"), environ={})
    assert singapore.url.startswith("https://dashscope-intl.aliyuncs.com/")
    assert singapore.price is not None and singapore.price.currency == "USD"
    text = MINIMAL + "endpoint: {region: {workspace: ws-1, region: singapore}}\n"
    assert load_job(job_file(tmp_path, text), environ={}).url.startswith(
        "https://ws-1.ap-southeast-1.maas.aliyuncs.com/compatible-"
    )


def test_the_key_comes_from_environment_or_file_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The job names the variable or file; a missing key is an error that says how to set it."""
    job = load_job(job_file(tmp_path), environ={})
    monkeypatch.delenv("DASHSCOPE_API_KEY", raising=False)
    with pytest.raises(JobError, match="export DASHSCOPE_API_KEY="):
        job.api_key()
    monkeypatch.setenv("DASHSCOPE_API_KEY", " sk-canary\n")
    assert job.api_key() == "sk-canary"
    (tmp_path / "key").write_text("sk-file\n")
    from_file = load_job(job_file(tmp_path, MINIMAL + "endpoint: {api_key_file: key}\n"), environ={})
    assert from_file.api_key() == "sk-file"


def test_what_is_shown_of_a_job_holds_no_secret(tmp_path: Path) -> None:
    """Header values and an address's query are not shown in reports."""
    text = MINIMAL + "endpoint: {url: 'https://gate/rerank?token=canary', headers: {X-Token: canary}}\n"
    assert "canary" not in str(load_job(job_file(tmp_path, text), environ={}).public())


def test_a_library_job_needs_only_a_model() -> None:
    """batchrank.rerank() takes queries from memory: no input, no output."""
    assert Job(model="qwen3-rerank").card.name == "qwen3-rerank"
    with pytest.raises(UnknownModelError):
        Job(model="nope")


def test_a_parameter_the_model_does_not_take_is_refused(tmp_path: Path) -> None:
    """It is an error, not dropped: the answers would not be what was asked for."""
    assert "line 4: fps: qwen3-rerank does not accept it" in complaint(tmp_path, MINIMAL + "fps: 0.5\n")
    gte = MINIMAL.replace("qwen3-rerank", "gte-rerank-v2") + "instruct: Find answers.\n"
    assert "line 4: instruct: gte-rerank-v2 does not accept it" in complaint(tmp_path, gte)


@pytest.mark.parametrize(
    "text, part", [("1/4", Fraction(1, 4)), ("0.1", Fraction(1, 10)), ("1", Fraction(1))]
)
def test_a_share_of_the_quota_is_a_number_or_a_fraction(tmp_path: Path, text: str, part: Fraction) -> None:
    """``rate.share`` may be written either way, and is kept exactly."""
    job = load_job(job_file(tmp_path, MINIMAL + f"rate: {{share: {text}}}\n"), environ={})
    assert job.rate.part == part
    assert load_job(job_file(tmp_path), overrides=[f"rate.share={text}"], environ={}).rate.part == part


@pytest.mark.parametrize("text", ["0", "-0.5", "1.5", "5/4", "1/0", "half"])
def test_a_share_that_is_no_part_is_refused(tmp_path: Path, text: str) -> None:
    """Nothing, and more than everything, are errors that name the key."""
    assert "rate.share" in complaint(tmp_path, MINIMAL + f"rate: {{share: {text}}}\n")


def test_what_is_told_of_a_job_holds_in_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every path, also in lists and of a model; standard input, addresses and words that are no path stay."""
    path = tmp_path / "jobs" / "job.yaml"
    path.parent.mkdir()
    path.write_text(
        "input: {path: [a/*.jsonl, 's3://b/c', '-'], corpus: corpus}\nmodel: {base: rerank-v3.5, tokenizer: own.json}\n"
        "endpoint: {api_key_file: key}\ngate: {against: last, qrels: q.txt}\noutput: {path: out}\nledger: l.sqlite\n"
    )
    monkeypatch.chdir(tmp_path)
    told = load_job("jobs/job.yaml", environ={}).public()
    here = str(path.parent)
    assert told["input"]["path"] == [f"{here}/a/*.jsonl", "s3://b/c", "-"]
    assert (told["input"]["corpus"], told["input"]["queries"]) == ([f"{here}/corpus"], None)
    assert told["model"]["tokenizer"] == f"{here}/own.json" and told["tokenizer"] == "auto"
    assert (told["gate"]["against"], told["gate"]["qrels"]) == (f"{here}/last", [f"{here}/q.txt"])
    assert (told["output"]["path"], told["ledger"]) == (f"{here}/out", f"{here}/l.sqlite")
    assert told["endpoint"]["api_key_file"] == f"{here}/key"


@pytest.mark.parametrize(
    "key",
    [
        "sk-0123456789abcdef0123456789",
        "sk_0123456789abcdef0123456789",
        "pa-AbCdEfGhIjKlMnOp0123",
        "jina_0123456789abcdefABCDEF0123456789",
        "Kx9aTq3LmZ0bVw7RyE2uNs5pHd8cJf1gXo4iBk6t",
        "$DASHSCOPE_API_KEY",
    ],
)
@pytest.mark.parametrize("how", ["file", "set", "environment"])
def test_a_key_in_place_of_its_variables_name_is_never_repeated(tmp_path: Path, key: str, how: str) -> None:
    """Whatever it looks like and wherever it stands; said is what belongs there."""
    path = tmp_path / "job.yaml"
    own = f"endpoint: {{api_key_env: '{key}'}}\n" if how == "file" else ""
    path.write_text(f"input: {{path: x}}\nmodel: qwen3-rerank\n{own}output: {{path: out}}\n")
    overrides = [f"endpoint.api_key_env={key}"] if how == "set" else []
    environ = {"BATCHRANK_ENDPOINT__API_KEY_ENV": key} if how == "environment" else {}
    with pytest.raises(JobError, match="write the NAME of the") as error:
        load_job(path, overrides=overrides, environ=environ)
    assert key.strip("$") not in str(error.value).replace("DASHSCOPE_API_KEY", "") and "api_key_env" in str(
        error.value
    )


@pytest.mark.parametrize(
    "name",
    [
        "DASHSCOPE_API_KEY",
        "CO_API_KEY_2",
        "key",
        "api_key_of_the_night_2026",
        "OPENAI_API_KEY_PROD_EU_WEST_1",
    ],
)
def test_names_of_variables_are_no_keys(tmp_path: Path, name: str) -> None:
    """Long ones, with figures, in small letters."""
    path = tmp_path / "job.yaml"
    path.write_text(
        f"input: {{path: x}}\nmodel: qwen3-rerank\nendpoint: {{api_key_env: {name}}}\noutput: {{path: out}}\n"
    )
    assert load_job(path, environ={}).key_sources == (name,)


def test_a_character_that_yaml_refuses_is_told_with_its_line(tmp_path: Path) -> None:
    """Neither a stream nor a position that nobody can look up."""
    path = tmp_path / "job.yaml"
    path.write_text("input: {path: x}\nmodel: qwen3\x01rerank\n")
    with pytest.raises(JobError) as error:
        load_job(path, environ={})
    assert str(error.value) == f"{path}, line 2, column 13: the character U+0001 can't stand there; remove it"


def test_a_benchmark_file_is_told_from_a_job(tmp_path: Path) -> None:
    """And the other way round, with the command that takes it."""
    bench, job = tmp_path / "bench.yaml", tmp_path / "job.yaml"
    bench.write_text("output: out\ndatasets: {a: d.jsonl}\nmodels: [qwen3-rerank]\n")
    job.write_text("input: {path: d.jsonl}\nmodel: qwen3-rerank\noutput: {path: out}\n")
    with pytest.raises(JobError, match=r"is a benchmark file, not a job's: batchrank bench .*bench\.yaml"):
        load_job(bench, environ={})
    with pytest.raises(JobError, match=r"is a job file, not a benchmark's: batchrank run .*job\.yaml"):
        load_bench(job)
    job.write_text("datasets: {a: [\n")
    with pytest.raises(JobError, match=r"job\.yaml, line 2"):
        load_bench(job)
