"""Several API keys: each is used up to its own quota, one that is refused is replaced by the others, none is told."""

import logging
from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio.to_thread
import orjson
import pytest
from aiohttp import web
from fleets import Server, fleet, job_at, paid_twice
from jobs import outputs, run
from limiter_traffic import MANY, fullest, now, virtually
from sick_server import reply

from batchrank.data import Rejection
from batchrank.errors import JobError
from batchrank.job.config import Job
from batchrank.job.secrets import secrets_of
from batchrank.ledger.departures import Departures
from batchrank.ledger.ledger import Ledger
from batchrank.pipeline.endpoint import limiter
from batchrank.planning.check import check_job
from batchrank.send.connections import Key
from batchrank.send.keyring import Keyring
from batchrank.send.limiter import Limiter

ANYIO = pytest.mark.anyio
A, B = "sk-canary-key", "sk-canary-key-and-more"  # the one begins like the other
REFUSED = reply(401, {"code": "InvalidApiKey", "message": "no"}), Rejection(401, "InvalidApiKey", "no")


@dataclass
class Accounts(Server):
    """A server that counts each key's requests, holds a second's quota against them, and refuses some keys."""

    per_second: float = 1e9
    refuses: Callable[[str], Any] = lambda key: None
    arrivals: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    throttled: int = 0
    _second: dict[str, deque[float]] = field(default_factory=lambda: defaultdict(deque))

    async def handle(self, request: web.Request) -> web.StreamResponse:
        key = request.headers["Authorization"].removeprefix("Bearer ")
        self.arrivals[key].append(now())
        if (refusal := self.refuses(key)) is not None:
            return refusal  # type: ignore[no-any-return]
        second = self._second[key]
        while second and second[0] <= now() - 1:
            second.popleft()
        if len(second) >= self.per_second:
            self.throttled += 1
            return web.json_response({"code": "Throttling.RateQuota", "message": "slow"}, status=429)
        second.append(now())
        return await super().handle(request)


def refusing(*keys: str, status: int = 401, after: float = 0, **body: str) -> Callable[[str], Any]:
    """Refuse some keys, from a time on."""
    content = {"code": "InvalidApiKey", "message": "no such key"} | body

    def refuses(key: str) -> Any:
        return reply(status, content) if key in keys and now() >= after else None

    return refuses


def two_keys(folder: Path, *servers: Server, **sections: Any) -> Job:
    for name, key in (("KEY_A", A), ("KEY_B", B)):
        (folder / name).write_text(key)
    files = [str(folder / name) for name in ("KEY_A", "KEY_B")]
    endpoint = {"api_key_file": files, **sections.pop("endpoint", {})}
    return job_at(folder, *servers, endpoint=endpoint, **sections)


def written(folder: Path) -> list[str]:
    files = [p for p in folder.rglob("*") if p.is_file() and p.name not in ("KEY_A", "KEY_B")]
    return [p.read_bytes().decode(errors="replace") for p in files]


def told(report: Any) -> dict[str, dict[str, Any]]:
    return {one["name"]: one for one in report.data["process"]["keys"]}


def ring(*rpms: float, tpm: float = MANY) -> tuple[Keyring, list[Key]]:
    keys = [Key(f"sk-{number}", f"KEY_{number}") for number in range(len(rpms))]
    return Keyring({key: Limiter(rpm=rpm, tpm=tpm) for key, rpm in zip(keys, rpms, strict=True)}), keys


def test_two_keys_have_the_quota_of_two() -> None:
    """Two at 30 requests a second reach 97% of 60, and neither ever passes its second or its minute."""

    async def use() -> dict[str, list[tuple[float, int]]]:
        keyring, _ = ring(1800, 1800)
        sent: dict[str, list[tuple[float, int]]] = defaultdict(list)
        while now() < 1100:
            admission = await keyring.acquire(1)
            assert admission.key is not None
            keyring.settle(admission, 1)
            sent[admission.key.name].append((now(), 1))
        return sent

    sent = virtually(use(), late=1e-3)
    steady = [at for admitted in sent.values() for at, _ in admitted if 1010 <= at < 1100]
    assert len(steady) >= 0.97 * 60 * 90
    for admitted in sent.values():
        assert fullest(admitted, 1)[0] <= 30 and fullest(admitted, 60)[0] <= 1800


def test_each_slows_down_by_itself() -> None:
    """A key that is throttled for a minute holds nothing up: every request goes by the other one meanwhile."""

    async def use() -> dict[str, int]:
        keyring, keys = ring(600, 600)
        await keyring.acquire(1)
        keyring.throttled("requests", 60.0, by=keys[0])
        sent: dict[str, int] = defaultdict(int)
        while now() < 1030:
            admission = await keyring.acquire(1)
            sent[admission.key.name if admission.key else ""] += 1
        return sent

    sent = virtually(use())
    assert sent["KEY_0"] <= 1 and sent["KEY_1"] >= 0.9 * 300


def test_tokens_are_each_keys_own() -> None:
    """Where tokens bind, a request goes by the key whose minute has room for it."""

    async def use() -> list[str]:
        keyring, _ = ring(6000, 6000, tpm=60_000)
        by = []
        for _ in range(4):
            admission = await keyring.acquire(2_000)
            keyring.settle(admission, 2_000)
            by.append(admission.key.name if admission.key else "")
        assert now() < 1003
        return by

    assert sorted(virtually(use())) == ["KEY_0", "KEY_0", "KEY_1", "KEY_1"]


def test_a_refused_key_rests_ever_longer_and_comes_back(caplog: pytest.LogCaptureFixture) -> None:
    """One request at a time tries it, after 1, 2, 4 ... seconds; it is told once, and again when it is accepted."""

    async def use() -> list[float]:
        keyring, keys = ring(600, 600)
        tried = []
        while now() < 1100:
            admission = await keyring.acquire(1)
            if admission.key is keys[0] and now() < 1060:
                tried.append(now() - 1000)
                assert keyring.refused(admission, REFUSED[1], certain=False)
            else:
                keyring.settle(admission, 1)
        assert keyring.states()[0]["out"] is None and not keyring.notices
        return tried

    tried = virtually(use())
    assert [round(at) for at in tried] == [0, 1, 3, 7, 15, 31]
    messages = [record.message for record in caplog.records if record.name.endswith("keyring")]
    assert [message.split(" is ")[1][:8] for message in messages] == ["refused,", "accepted"]
    assert all("KEY_0" in message and "sk-" not in message for message in messages)


def test_the_last_key_never_rests() -> None:
    """What becomes of it is the run's, as with one key."""

    async def use() -> None:
        keyring, _ = ring(600, 600)
        first, second = await keyring.acquire(1), await keyring.acquire(1)
        assert keyring.refused(first, REFUSED[1], certain=True)
        assert not keyring.refused(second, REFUSED[1], certain=True)
        began = now()
        for _ in range(10):
            assert (await keyring.acquire(1)).key is second.key
        assert now() - began < 5 and keyring.pace(1) == pytest.approx(10, rel=0.05)

    virtually(use())


@ANYIO
async def test_a_run_uses_both(tmp_path: Path) -> None:
    """Server-side: 97% of both quotas, no second of a key above its own, no 429."""
    server = Accounts(per_second=5, workers=99)
    async with fleet(server):
        report = await run(two_keys(tmp_path, server, queries=120, rate={"rpm": 300}))
    assert report.exit_code == 0 and not server.throttled
    starts, ends = ([edge(times) for times in server.arrivals.values()] for edge in (min, max))
    for times in server.arrivals.values():
        steady = [at for at in times if max(starts) + 10 <= at < min(ends) - 1]
        assert len(steady) >= 0.97 * 5 * (min(ends) - 1 - max(starts) - 10)
        assert fullest([(at, 1) for at in times], 60)[0] <= 300
    assert {name: one["out"] for name, one in told(report).items()} == {"KEY_A": None, "KEY_B": None}


@ANYIO
@pytest.mark.parametrize(
    "refusal",
    [
        {"status": 401},
        {"status": 403, "code": "AccessDenied", "message": "Access denied."},
        {
            "status": 400,
            "code": "Arrearage",
            "message": "Access denied, your account is not in good standing.",
        },
        {"status": 429, "code": "", "message": "You reached your daily request limit"},
    ],
)
async def test_one_that_is_refused_midway_costs_no_query(
    tmp_path: Path, refusal: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Revoked, unpaid, or used up for the day: no query fails, nothing is paid twice, its variable is told once."""
    server = Accounts(refuses=refusing(A, after=1002.0, **refusal))
    async with fleet(server):
        job = two_keys(tmp_path, server, queries=80)
        report = await run(job)
    assert (report.exit_code, report.data["totals"]["failed"], report.data["totals"]["lost"]) == (0, 0, 0)
    assert paid_twice(server) == 0 and max(server.arrivals[A]) >= 1002
    assert told(report)["KEY_A"]["out"] and not told(report)["KEY_B"]["out"]
    said = [record.message for record in caplog.records if "the key in KEY_A is refused" in record.message]
    assert len(said) == 1 and "goes on with 1 of 2" in said[0]
    assert [notice for notice in report.data["notices"] if "KEY_A" in notice]
    refused = [at for at in server.arrivals[A] if at >= 1002]
    assert len(refused) <= 20


@ANYIO
async def test_one_that_is_wrong_from_the_start_costs_nothing(tmp_path: Path) -> None:
    """The first request is asked with the other key at once; the rankings are those of one key."""
    server = Accounts(refuses=refusing(A))
    async with fleet(server):
        job = two_keys(tmp_path, server, queries=40)
        report = await run(job)
        assert report.exit_code == 0 and paid_twice(server) == 0
        other = job_at(tmp_path, server, queries=40, out="other")
        await run(other)
    assert outputs(job) == outputs(other)


@ANYIO
@pytest.mark.parametrize(
    ("refusal", "code"),
    [
        ({"status": 401}, 1),
        ({"status": 429, "code": "", "message": "You reached your daily request limit"}, 75),
    ],
)
@pytest.mark.parametrize("latency", [0.05, 0.2])
async def test_when_the_last_one_is_refused_the_run_stops(
    tmp_path: Path, refusal: Any, code: int, latency: float
) -> None:
    """As with one key, after a few requests, and with the server's words; although what is under way is answered."""
    server = Accounts(latency=latency, refuses=refusing(A, B, after=1002.0, **refusal))
    async with fleet(server):
        report = await run(two_keys(tmp_path, server, queries=100))
    assert report.exit_code == code and report.data["totals"]["failed"] == 0
    assert str(refusal.get("message", "no such key")) in str(report.reason)
    assert (
        min(sum(at >= 1002 for at in times) for times in server.arrivals.values()) <= 20
    )  # the last one finds out


@ANYIO
async def test_a_deploy_that_lets_nobody_in_for_a_while_is_waited_out(tmp_path: Path) -> None:
    """For four seconds every key is refused: both are used again afterwards, and nothing is lost."""
    server = Accounts(refuses=lambda key: REFUSED[0] if 1002 <= now() < 1006 else None)
    async with fleet(server):
        report = await run(two_keys(tmp_path, server, queries=120, rate={"rpm": 1200}))
    assert (report.exit_code, report.data["totals"]["lost"]) == (0, 0)
    assert all(max(server.arrivals[key]) > 1015 for key in (A, B))
    assert not any(one["out"] for one in told(report).values())


@ANYIO
async def test_a_document_that_a_firewall_dislikes_takes_no_key_out(tmp_path: Path) -> None:
    """Denied by every key while all else is accepted: the document is lost alone, and both keys stay in service."""

    def fate(q: str, docs: list[str], n: int) -> Any:
        return reply(403, {"message": "blocked"}) if any(text.endswith(" 3007") for text in docs) else None

    server = Accounts(fate=fate)
    async with fleet(server):
        report = await run(two_keys(tmp_path, server, queries=40, rate={"rpm": 1200}))
    assert (report.exit_code, report.data["totals"]["lost"], report.data["totals"]["failed"]) == (3, 1, 0)
    assert not any(one["out"] for one in told(report).values())


@ANYIO
async def test_every_server_is_asked_with_every_key(tmp_path: Path) -> None:
    """Two servers, two keys: four ways; one server that refuses all keys is taken out, and no key is."""
    well, sick = Accounts(), Accounts(refuses=refusing(A, B))
    async with fleet(well, sick):
        report = await run(two_keys(tmp_path, well, sick, queries=100))
    assert report.exit_code == 0 and report.data["totals"]["failed"] == 0
    assert set(well.arrivals) == set(sick.arrivals) == {A, B}
    states = {one["name"]: one["out"] for one in report.data["process"]["replicas"]}
    assert states[sick.url.split("/")[2]] and not states[well.url.split("/")[2]]
    assert well.answered >= 300 and len(well.arrivals[A]) > 100 and len(well.arrivals[B]) > 100
    assert not any(one["out"] for one in told(report).values())


@ANYIO
async def test_a_revoked_key_takes_no_server_out(tmp_path: Path) -> None:
    """Its refusals are not the servers' fault."""
    servers = [Accounts(latency=0.2, refuses=refusing(A, after=1001.0)) for _ in range(3)]
    async with fleet(*servers):
        report = await run(two_keys(tmp_path, *servers, queries=100))
    assert report.exit_code == 0 and told(report)["KEY_A"]["out"]
    assert not any(one["outs"] for one in report.data["process"]["replicas"])


@ANYIO
async def test_a_restart_counts_for_each_key_what_it_has_sent(tmp_path: Path) -> None:
    """In the ledger each departure has its key's name: the other keys need not wait for it."""
    ledger = Ledger(tmp_path / "ledger.sqlite")
    kept = Departures(ledger)
    await kept.load()
    job = two_keys(tmp_path, Server(url="http://h/r"), rate={"rpm": 6, "tpm": 10**9})
    keys = [Key(A, "KEY_A"), Key(B, "KEY_B")]
    for number in range(6):
        kept.note(1, "KEY_A")
        await ledger.sent(bytes([number]) * 16, 1, 1)
    keyring = limiter(job, keys, await kept.load())
    began = now()
    assert [(await keyring.acquire(1)).key for _ in range(3)] == [keys[1]] * 3
    again = limiter(job, [Key(A, "RENAMED"), keys[1]], await kept.load())
    await again.acquire(1)
    assert now() - began >= 58  # under another name it may be either
    ledger.close()


def test_departures_of_an_older_version_count_for_every_key(tmp_path: Path) -> None:
    """Its table knew no keys; it is brought up to date."""

    async def load() -> list[tuple[float, int, str]]:
        ledger = Ledger(tmp_path / "ledger.sqlite")
        old = "CREATE TABLE departures (at REAL NOT NULL, tokens INTEGER NOT NULL)"
        await ledger.perform(lambda db: db.execute(old).fetchall())
        await ledger.perform(lambda db: db.execute("INSERT INTO departures VALUES (990, 7)").fetchall())
        found = await Departures(ledger).load()
        Departures(ledger).note(8, "KEY_A")
        await ledger.sent(b"1" * 16, 1, 1)
        found += await Departures(ledger).load()
        ledger.close()
        return found

    assert [(tokens, key) for _, tokens, key in virtually(load())] == [(7, ""), (7, ""), (8, "KEY_A")]


@ANYIO
async def test_neither_key_leaves_a_trace(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A server that repeats them in its errors, one of which begins like the other: in no log, file or message."""
    caplog.set_level(logging.DEBUG)

    def echoes(key: str) -> Any:
        return reply(403, {"code": "E" + key, "message": f"no {A} {B} {key}"}) if now() < 1030 else None

    server = Accounts(refuses=echoes)
    async with fleet(server):
        job = two_keys(tmp_path, server, queries=10)
        report = await run(job)
        again = await run(job)
    for text in (caplog.text, repr(report), str(report.reason), repr(again), *written(tmp_path)):
        assert "sk-canary" not in text and "and-more" not in text
    assert secrets_of(job).hide(f"{B} {A}") == "(secret) (secret)"


@ANYIO
@pytest.mark.real_clock
async def test_check_asks_with_each(tmp_path: Path) -> None:
    """A key that is refused is a note that names its variable, as long as another one is accepted; else a fault."""
    server = Accounts(refuses=refusing(A))
    async with fleet(server):
        job = two_keys(tmp_path, server)
        found = await anyio.to_thread.run_sync(lambda: [*check_job(job, limit=1, ask=True)])
        asked = {one.state: one.text for one in found if one.name == "endpoint"}
        assert "KEY_A" in asked["note"] and "go on with the other keys" in asked["note"]
        assert "KEY_B" in asked["ok"] and "the key is accepted" in asked["ok"]
        assert next(one.text for one in found if one.name == "key").startswith("there are 2, in ")
        server.refuses = refusing(A, B)
        found = await anyio.to_thread.run_sync(lambda: [*check_job(job, limit=1, ask=True)])
        assert {one.state for one in found if one.name == "endpoint"} == {"fault"}


@pytest.mark.parametrize(
    ("environ", "endpoint", "said"),
    [
        ({"K1": A, "K2": A}, {"api_key_env": ["K1", "K2"]}, "K1 and K2 hold the same API key"),
        ({"K1": A}, {"api_key_env": ["K1", "K2"]}, "endpoint.api_key_env: K2: no API key there"),
        ({"K1": A}, {"api_key_env": ["K1", "K1"]}, "a name comes twice"),
        ({"K1": A}, {"api_key_env": []}, "api_key_env"),
        ({}, {"api_key_env": ["K1", A]}, "api_key_env"),
    ],
)
def test_what_can_t_be_right_is_told(
    environ: dict[str, str],
    endpoint: dict[str, Any],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """The same key twice, one that is missing, a key where its name belongs: told, and no key with it."""
    from batchrank.job.load import load_job

    for name in ("K1", "K2"):
        monkeypatch.delenv(name, raising=False)
    for name, key in environ.items():
        monkeypatch.setenv(name, key)
    path = tmp_path / "job.yaml"
    content = {"input": {"path": "x"}, "model": "qwen3-rerank", "output": {"path": "o"}, "endpoint": endpoint}
    path.write_bytes(orjson.dumps(content))
    with pytest.raises(JobError) as caught:
        load_job(path, environ=environ).api_keys()
    assert said in str(caught.value) and A not in str(caught.value)


def test_plans_count_every_key(tmp_path: Path) -> None:
    """Twice the quota takes half the time."""
    from batchrank.planning.plan import plan

    one = plan(
        job_at(tmp_path, Server(), queries=20, endpoint={"urls": ["http://h/r"]}, rate={"rpm": 60}), net=False
    )
    both = plan(two_keys(tmp_path, Server(), endpoint={"urls": ["http://h/r"]}, rate={"rpm": 60}), net=False)
    assert both.methods["hub"].seconds * 2 == pytest.approx(one.methods["hub"].seconds)


@pytest.mark.parametrize(
    "endpoint", [{}, {"api_key_file": "key"}, {"api_key_env": ["ONE", "TWO"]}, {"auth": "none"}]
)
def test_variables_that_may_hold_a_key_are_known(endpoint: dict[str, Any]) -> None:
    """In use or not: the vendor's own stays behind where a file is read instead."""
    job = Job.model_validate({"model": "qwen3-rerank", "endpoint": endpoint})
    assert job.key_variables == {"DASHSCOPE_API_KEY", *endpoint.get("api_key_env", [])}
