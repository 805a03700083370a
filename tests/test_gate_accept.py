"""``batchrank gate accept``: what did not pass becomes what later runs are held to."""

import json
from pathlib import Path
from typing import Any

import orjson
import pytest
from jobs import make_job, rankings, rows, run, write_jsonl
from test_cli import batchrank
from test_gate import reversed_texts

from batchrank.errors import InputError, JobError, OutputError
from batchrank.job.sections import Gate
from batchrank.observe.facts import gather
from batchrank.observe.page import render
from batchrank.pipeline.report import Report
from batchrank.quality.accept import accept, found, held_to
from batchrank.write.switch import Claim

pytestmark = pytest.mark.anyio


async def night(folder: Path, data: list[dict[str, Any]], **gate: Any) -> Report:
    """A run over some data, judged by qrels that say the best document of the first night is right."""
    path = write_jsonl(folder / "in.jsonl", data)
    if not (folder / "qrels.txt").exists():
        job = make_job(folder, path, out="first")
        await run(job)
        best = "".join(f"{row['query_id']} 0 {row['ranking'][0]['doc_id']} 1\n" for row in rankings(job))
        (folder / "qrels.txt").write_text(best)
    return await run(make_job(folder, path, gate={"qrels": "qrels.txt", "depth": 5} | gate))


async def test_a_floor_that_was_missed_is_no_loop(tmp_path: Path) -> None:
    """min_ndcg looks at one run alone: accepted once, the same rankings pass the next night, and worse ones don't."""
    good, worse = rows(4, 23), reversed_texts(rows(4, 23))
    assert (await night(tmp_path, good, min_ndcg=0.9)).exit_code == 0
    for _ in range(2):
        assert (await night(tmp_path, worse, min_ndcg=0.9, min_rbo=None)).exit_code == 5
    assert not found(tmp_path / "out").passed
    assert accept(tmp_path / "out", tmp_path / "out").passed and found(tmp_path / "out").accepted
    assert not (tmp_path / "out" / "gate-failed.json").exists()
    for _ in range(2):
        again = await night(tmp_path, worse, min_ndcg=0.9, min_rbo=None)
        assert (again.exit_code, again.data["gate"]["rbo"]) == (0, 1), again.data["gate"]
        assert any("accepted on" in notice and "instead of 0.9" in notice for notice in again.data["notices"])
    (tmp_path / "qrels.txt").write_text((tmp_path / "qrels.txt").read_text().replace("-", "-no"))
    worst = await night(tmp_path, worse, min_ndcg=0.9, min_rbo=None)
    assert worst.exit_code == 5 and worst.data["gate"]["ndcg"] == 0


async def test_another_threshold_ends_what_was_accepted(tmp_path: Path) -> None:
    """Whoever asks for something else asks anew."""
    await night(tmp_path, rows(4, 23))
    worse = reversed_texts(rows(4, 23))
    assert (await night(tmp_path, worse, min_ndcg=0.9, min_rbo=None)).exit_code == 5
    accept(tmp_path / "out", tmp_path / "out")
    assert (await night(tmp_path, worse, min_ndcg=0.8, min_rbo=None)).exit_code == 5
    assert (await night(tmp_path, worse, min_ndcg=0.9, min_rbo=None, depth=6)).exit_code == 5
    assert (await night(tmp_path, worse, min_ndcg=0.9, min_rbo=None)).exit_code == 0


async def test_what_drifted_is_the_new_reference(tmp_path: Path) -> None:
    """The next night is compared with it; an overlap that was too small is not held against later runs."""
    await night(tmp_path, rows(4, 23))
    worse = reversed_texts(rows(4, 23))
    drifted = await night(tmp_path, worse, min_rbo=0.95)
    assert drifted.exit_code == 5
    accept(tmp_path / "out", tmp_path / "out")
    same = await night(tmp_path, worse, min_rbo=0.95)
    assert (same.exit_code, same.data["gate"]["rbo"]) == (0, 1)
    assert (await night(tmp_path, rows(4, 23), min_rbo=0.95)).exit_code == 5  # as far from it as it was


async def test_distance_from_another_job_can_be_accepted(tmp_path: Path) -> None:
    """gate.against stays the measure, so the distance itself is what later runs are held to."""
    await night(tmp_path, rows(4, 23))
    worse = reversed_texts(rows(4, 23))
    keys: dict[str, Any] = {"against": "first", "min_rbo": 0.95, "min_tau": 0.95, "max_ndcg_drop": 0.01}
    far = await night(tmp_path, worse, **keys)
    assert far.exit_code == 5 and len(far.data["gate"]["reasons"]) == 4
    accept(tmp_path / "out", tmp_path / "out")
    again = await night(tmp_path, worse, **keys)
    assert again.exit_code == 0, again.data["gate"]


async def test_nothing_is_accepted_that_can_not_be(tmp_path: Path) -> None:
    """No run, no gate, one that passed, or one that is being replaced."""
    with pytest.raises(InputError, match="no complete run"):
        accept(tmp_path, tmp_path)
    path = write_jsonl(tmp_path / "in.jsonl", rows(2, 23))
    await run(make_job(tmp_path, path))
    with pytest.raises(JobError, match="no gate"):
        accept(tmp_path / "out", tmp_path / "out")
    await run(make_job(tmp_path, path, gate={}))
    assert (
        accept(tmp_path / "out", tmp_path / "out").accepted is None
        and not (tmp_path / "out" / "gate-accepted.json").exists()
    )
    claim = Claim(tmp_path / "out")
    with pytest.raises(OutputError, match="another batchrank process"):
        accept(tmp_path / "out", tmp_path / "out")
    claim.close()
    (tmp_path / "out" / ".next").mkdir()
    (tmp_path / "out" / ".next" / "switch.json").write_text("{}")
    with pytest.raises(OutputError, match="run the job again first"):
        accept(tmp_path / "out", tmp_path / "out")


def test_what_was_accepted_and_is_damaged_is_told(tmp_path: Path) -> None:
    """With what to do; a run whose gate can't tell has not passed it."""
    assert held_to(Gate(), tmp_path) == (Gate(), [])
    for text in ("{", "[]", '{"gate": {}}'):
        (tmp_path / "gate-accepted.json").write_text(text)
        with pytest.raises(InputError, match="remove it"):
            held_to(Gate(), tmp_path)


@pytest.mark.slow
async def test_the_command_tells_by_its_exit_code(tmp_path: Path) -> None:
    """5 while the rankings are marked, 0 once they are accepted; the report shows no green until a run passed."""
    await night(tmp_path, rows(3, 23))
    bad = await night(tmp_path, reversed_texts(rows(3, 23)), min_rbo=0.95)
    assert bad.exit_code == 5
    out = str(tmp_path / "out")
    assert 'class="state stopped">complete; did NOT pass its gate' in render(gather(out, with_plan=False))
    shown = batchrank("gate", "show", "out", cwd=tmp_path)
    assert shown.returncode == 5 and b"gate.min_rbo" in shown.stdout and b"gate accept out" in shown.stdout
    done = batchrank("gate", "accept", "out.yaml", cwd=tmp_path)
    assert done.returncode == 0 and b"held to this one" in done.stdout, done.stderr
    assert 'class="state partly">complete; did not pass its gate, accepted on' in render(
        gather(out, with_plan=False)
    )
    data = json.loads(batchrank("gate", "show", "out", "--json", cwd=tmp_path).stdout)
    assert (data["passed"], data["judgement"]["passed"], data["accepted"] is None) == (True, False, False)
    await night(tmp_path, reversed_texts(rows(3, 23)), min_rbo=0.95)
    assert 'class="state complete">complete; passed its gate' in render(gather(out, with_plan=False))
    assert b"nothing to accept" in batchrank("gate", "accept", "out", cwd=tmp_path).stdout


async def test_a_rerun_keeps_the_bill_and_the_times_of_the_run_that_asked(tmp_path: Path) -> None:
    """Zeros would say that the rankings cost nothing; what the rerun took is told apart, however often it is run."""
    path = write_jsonl(tmp_path / "in.jsonl", rows(4, 23))
    first = await run(make_job(tmp_path, path))
    for _ in range(2):
        again = await run(make_job(tmp_path, path))
        assert again.data["process"]["requests"] == again.data["spend"]["tokens"] == 0
        summary = orjson.loads((tmp_path / "out" / "summary.json").read_bytes())
        for name in ("spend", "process"):
            assert summary[name] == orjson.loads(orjson.dumps(first.data[name])), name
            assert summary["rerun"][name] == orjson.loads(orjson.dumps(again.data[name])), name
    page = render(gather(tmp_path / "out", with_plan=False))
    assert "run again since, which asked nothing" in page and f"{first.data['spend']['cost']:,.4f}" in page
    write_jsonl(path, rows(5, 23))
    more = await run(make_job(tmp_path, path))
    summary = orjson.loads((tmp_path / "out" / "summary.json").read_bytes())
    assert "rerun" not in summary and summary["spend"]["tokens"] == more.data["spend"]["tokens"] > 0
