"""Parts are cut from the input alone, so that what fails, what is written and what was interrupted move no boundary."""

import re
import shutil
from pathlib import Path
from typing import Any

import anyio
import orjson
import pytest
from against import same, world
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jobs import cut, failed, outputs, rankings, rows, write_jsonl
from test_fixed_fates import in_virtual_time

from batchrank.cluster.remote import Room
from batchrank.data import Query
from batchrank.errors import Place, StoppedError
from batchrank.job.config import Job
from batchrank.job.sections import PART_DOCUMENTS, Output
from batchrank.ledger.ledger import Ledger
from batchrank.outcomes import Failure
from batchrank.pipeline.parts import PartCutter, Spot, part_documents
from batchrank.pipeline.prepare import Prepared
from batchrank.pipeline.resume import scope
from batchrank.pipeline.run import Run
from batchrank.pipeline.stages import Flow
from batchrank.pipeline.summary import Outcome, Totals
from batchrank.pipeline.workers import MemoryBudget

FAILURE = Failure(Place("in.jsonl", "line", 1), None, "bad-record", "not JSON")


def item(documents: int) -> Query | Failure:
    """A query of so many documents; a record that can't be read for 0."""
    ids = [f"d{i}" for i in range(documents)]
    return Query("q", "text", ids, ["a"] * documents) if documents else FAILURE


@given(st.lists(st.integers(0, 9), max_size=60), st.integers(1, 25))
def test_a_part_ends_with_the_item_that_fills_it(sizes: list[int], full: int) -> None:
    """Parts and places count from 0 without a gap, a bad record counts one, and going on at a part changes nothing."""
    cutter = PartCutter(full)
    spots = [cutter.cut(item(size)) for size in sizes]
    expected, part, place, documents = [], 0, 0, 0
    for size in sizes:
        documents += max(size, 1)
        expected.append(Spot(part, place, documents >= full))
        part, place, documents = (part + 1, 0, 0) if documents >= full else (part, place + 1, documents)
    assert spots == expected
    for at, spot in enumerate(spots):
        if not spot.place:
            again = PartCutter(full, part=spot.part)
            assert [again.cut(item(size)) for size in sizes[at:]] == spots[at:]


def test_a_format_of_one_file_has_one_part() -> None:
    """mteb reads one file, whatever its size."""
    assert (
        part_documents(Output.model_validate({"path": "o", "format": "mteb", "part_documents": 5})) > 10**15
    )
    assert part_documents(Output.model_validate({"path": "o", "part_documents": 5})) == 5
    assert part_documents(None) == part_documents(Output(path="o")) == PART_DOCUMENTS


def _parts(job: Job) -> dict[str, list[str]]:
    """The ids of the queries in each part."""
    found = {}
    for name, data in outputs(job, names=["ranking-"]).items():
        found[name] = [orjson.loads(line)["query_id"] for line in data.splitlines()]
    return found


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    sizes=st.lists(st.integers(0, 24), min_size=1, max_size=14),
    unlucky=st.sets(st.integers(0, 13), max_size=8),
    full=st.integers(1, 60),
    top_n=st.none() | st.integers(1, 5),
    stops=st.lists(st.integers(1, 40), max_size=2),
)
def test_parts_are_a_function_of_the_input(
    tmp_path: Path, sizes: list[int], unlucky: set[int], full: int, top_n: int | None, stops: list[int]
) -> None:
    """Whatever the API refuses, however much is written, and wherever it was stopped: each query is in its part."""
    shutil.rmtree(tmp_path)
    tmp_path.mkdir()
    data: list[Any] = [one | {"query_id": f"q{at}"} for at, one in enumerate(rows(len(sizes), 24))]
    for at, size in enumerate(sizes):
        data[at]["candidates"] = data[at]["candidates"][:size]
        if at in unlucky:
            data[at]["query"] += " unlucky"

    async def play() -> None:
        script = dict.fromkeys(stops, "400-arrearage")
        async with world(tmp_path, data=data, poison={"unlucky": "400-inspection"}, script=script) as w:
            job = w.job(output={"part_documents": full, "top_n": top_n})
            other = w.job("other", output={"part_documents": full, "top_n": top_n})
            for one in (job, other):
                for _ in range(1 + len(stops)):
                    await w.run(one)
            if rankings(job):
                assert same(job, other)
            cutter = PartCutter(full)
            spots = [cutter.cut(item(size)) for size in sizes]
            expected: dict[str, list[str]] = {}
            for at, spot in enumerate(spots):
                if sizes[at] and at not in unlucky:
                    expected.setdefault(f"ranking-{spot.part:05d}.jsonl", []).append(f"q{at}")
            assert _parts(job) == expected

    in_virtual_time(play())


@pytest.mark.anyio
async def test_a_part_without_a_ranking_stands_as_well(tmp_path: Path) -> None:
    """All of part 0 failed: it has no file, its dead letters are not made anew, and the names of the others stay."""
    data: list[Any] = rows(12, 34)
    for at in (0, 1):
        data[at]["candidates"] = []
    async with world(tmp_path, data=data, script={60: "400-arrearage"}) as w:
        job, other = (w.job(out, output={"part_documents": 2}) for out in ("out", "other"))
        assert (await w.run(job)).exit_code == 1
        left = tmp_path / "out"
        assert not (left / "ranking-00000.jsonl").exists() and (left / "ranking-00001.jsonl").exists()
        ledger = Ledger(left / "ledger.sqlite")
        first = await ledger.load(f"part/{scope(job)}/0")
        ledger.close()
        assert first["files"] == {} and first["position"] == 2 and first["totals"]["failed"] == 2
        report = await w.run(job)
        assert any("published parts" in notice for notice in report.data["notices"])
        await w.run(other)
        assert report.exit_code == 3 and same(job, other) and failed(job) == failed(other)
        assert report.data["totals"] == w.summary(other)["totals"]
        assert "ranking-00001.jsonl" in report.data["parts"] and len(report.data["parts"]) == 10


@pytest.mark.anyio
async def test_what_an_older_run_left_goes_even_if_the_first_part_has_no_ranking(tmp_path: Path) -> None:
    """A file of another run's part 0 is not taken for this one's, which has none."""
    data: list[Any] = rows(12, 34)
    async with world(tmp_path, data=data, script={60: "400-arrearage"}) as w:
        await w.run(w.job(output={"part_documents": 60}))
        assert (tmp_path / "out" / "ranking-00000.jsonl").exists()
        for at in (0, 1):
            data[at]["candidates"] = []
        w.data.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in data))
        job = w.job(output={"part_documents": 2})
        assert (await w.run(job)).exit_code == 3
        assert not (tmp_path / "out" / "ranking-00000.jsonl").exists()
        assert [row["query_id"] for row in rankings(job)] == [f"q{i}" for i in range(2, 12)]


@pytest.mark.anyio
async def test_an_unfinished_run_of_the_older_rule_is_made_anew_from_the_ledger(tmp_path: Path) -> None:
    """Its parts end elsewhere and its checkpoints tell other things: one notice, the same run, nothing asked twice."""
    async with world(tmp_path, queries=12, script={70: "400-arrearage"}) as w:
        job, other = (w.job(out, output={"part_documents": 60}) for out in ("out", "other"))
        await w.run(job)
        ledger = Ledger(tmp_path / "out" / "ledger.sqlite")
        state = await ledger.load(f"run/{scope(job)}")
        del state["identity"]["output.part_documents"]
        await ledger.save(f"run/{scope(job)}", state)
        checkpoints = 0
        while part := await ledger.load(f"part/{scope(job)}/{checkpoints}"):
            part["verdicts"] = {"declared": "unknown", "probes": {"0": ["different", 0.5]}, "hubs": {}}
            await ledger.save(f"part/{scope(job)}/{checkpoints}", part | {"ordinal": 2})
            checkpoints += 1
        finding = {"changed": False, "noise": 0.0, "against": 0.0, "differs": False}
        await ledger.save(f"reuse/{scope(job)}/{state['number']}/audit/100", finding)
        ledger.close()
        assert checkpoints > 1
        report = await w.run(job)
        changed = "changed since the last run: batchrank itself; all rankings are made anew, and what is known is not"
        assert [n for n in report.data["notices"] if "run" in n] == [f"{changed} asked again"]
        assert report.exit_code == 0 and w.paid_twice == 0
        assert report.data["spend"]["saved_tokens"] == 0, "it is the same run, whose caps go on"
        await w.run(other)
        assert same(job, other)


def test_totals_of_parts_add_up() -> None:
    """Those of one part after the other are those of the run, through JSON as well."""
    one, two = (Totals(queries=2, tokens=5, methods={"hub": 1, "single": 1}), Totals(queries=1, failed=1))
    two.fail("refused")
    two.methods["hub"] = 4
    both = one.plus(Totals(**orjson.loads(orjson.dumps(two.state()))))
    assert (both.queries, both.failed, both.tokens) == (3, 2, 5)
    assert both.methods == {"hub": 5, "single": 1} and both.causes == {"refused": 1}
    assert one.methods == {"hub": 1, "single": 1}
    assert both.plus(Totals()) == both


class _Driver:
    """Ranks nothing, and later queries first."""

    texts = True

    def __init__(self) -> None:
        self.forgotten: list[int] = []

    async def recall(self, prepared: list[Prepared]) -> None:
        """Nothing is known."""

    async def rank(self, prepared: Prepared) -> Outcome:
        await anyio.sleep(1 / (1 + prepared.position))
        return Outcome.of(prepared, FAILURE)

    def forget(self, part: int) -> None:
        self.forgotten.append(part)

    def stop(self, reason: StoppedError) -> None:
        raise reason


@pytest.mark.anyio
async def test_a_flow_delivers_in_order_whatever_parts_it_is_given() -> None:
    """Parts 3, 7 and 8 one after the other, as a worker gets them: positions have gaps, the order is theirs."""
    delivered: list[tuple[int, int, int]] = []

    async def sink(outcomes: list[Outcome]) -> None:
        delivered.extend((one.part, one.place, one.position) for one in outcomes)

    spots = [(part, place, part * 10 + place) for part in (3, 7, 8) for place in range(3)]

    async def batches() -> Any:
        for part, place, position in spots:
            if place == 1:
                yield [Outcome(position, FAILURE, part, place)]
            else:
                query = Query("q", "text", ["d"], ["a"])
                prepared: Any = Prepared(
                    query=query, source=query, shards=None, position=position, meter=None, top_k=1,  # type: ignore[arg-type]
                    part=part, place=place, last=place == 2,
                )  # fmt: skip
                yield [prepared]

    driver: Any = _Driver()
    await Flow(driver, sink, memory=MemoryBudget(Room(25, 25)), drain=1).run(batches())
    assert delivered == spots
    assert driver.forgotten == [3, 7, 8]


@pytest.mark.anyio
async def test_totals_of_a_run_hold_the_part_at_hand(tmp_path: Path) -> None:
    """While a part is being made, whoever watches sees its queries counted."""
    async with world(tmp_path, queries=6) as w:
        run = Run(cut(w.job(), 100_000))
        seen = set[int]()

        async def watch() -> None:
            while True:
                await anyio.sleep(0.05)
                seen.add(run.totals.queries)

        async with anyio.create_task_group() as group:
            group.start_soon(watch)
            await run.execute()
            group.cancel_scope.cancel()
        assert seen - {0, 6} and run.totals.queries == 6


def _alone(data: list[Any], full: int, part: int) -> list[Any]:
    """The first part's rows and those of another one."""
    cutter = PartCutter(full)
    spots = [cutter.cut(item(len(row["candidates"]))) for row in data]
    return [row for row, spot in zip(data, spots, strict=True) if spot.part in (0, part)]


@pytest.mark.anyio
@pytest.mark.parametrize("scores", ["relative", "absolute"])
async def test_a_part_is_ranked_alike_whatever_other_parts_there_are(tmp_path: Path, scores: str) -> None:
    """Part 2 beside part 0 alone has the bytes that it has in the whole, on the first night and on the next."""
    data: list[Any] = rows(14, 34)
    data[3]["candidates"], data[5]["candidates"] = data[3]["candidates"][:7], []
    given: dict[str, Any] = {"output": {"part_documents": 60}, "reuse": {"audit": 1}}
    async with world(tmp_path, data=data, scores=scores) as w:
        for night in ("first", "second"):
            job = w.job("out", **given)
            report = await w.run(job)
            assert report.data["totals"]["verdicts"][scores] > 5 and report.data["totals"]["failed"] == 1
            write_jsonl(w.data, _alone(data, 60, 2))
            other = w.job("other", **given)
            await w.run(other)
            found, alone = outputs(job), outputs(other)
            assert len(alone) == 2 < len(found)
            for mine, its in (("00000", "00000"), ("00001", "00002")):
                assert _asked(alone[f"ranking-{mine}.jsonl"]) == _asked(found[f"ranking-{its}.jsonl"]), night
            for row in data[::2]:
                row["candidates"][1:2] = [{"id": "new", "text": f"{row['query']} tonight", "score": 3.0}]
            write_jsonl(w.data, data)


def _asked(data: bytes) -> bytes:
    """Lines without the time of answers."""
    return re.sub(rb',"oldest":("[^"]*"|null)', b"", data)


@pytest.mark.anyio
async def test_each_part_is_audited_by_itself(tmp_path: Path) -> None:
    """Every part asks about an old request of its first query; what the ledger tells of that names the part."""
    data: list[Any] = rows(12, 34)
    async with world(tmp_path, data=data) as w:
        job = w.job(output={"part_documents": 100}, reuse={"audit": 100})
        await w.run(job)
        for row in data:
            row["candidates"][1]["text"] += " tonight"
        write_jsonl(w.data, data)
        report = await w.run(job)
        assert len(report.data["reuse"]["audits"]) == 4
        ledger = Ledger(tmp_path / "out" / "ledger.sqlite")
        told = await ledger.load_all(f"reuse/{scope(job)}/")
        ledger.close()
        assert sorted(told) == [f"2/audit/{part}/0" for part in range(4)]
