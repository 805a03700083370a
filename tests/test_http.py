"""One attempt against real servers on loopback: keys that change, paths, proxies, certificates, few descriptors."""

import asyncio
import resource
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import orjson
import pytest
from aiohttp import web
from servers import Server, Tls, proxying, ranks, scores, serving

from batchrank.data import Answer, Rejection
from batchrank.errors import JobError
from batchrank.job.config import Job
from batchrank.pipeline.endpoint import api_keys, endpoint
from batchrank.send.concurrency import ConcurrencyLimit
from batchrank.send.connections import Key, connections, open_files, tls_context
from batchrank.send.retry import possibly_billed
from batchrank.send.transport import Http
from batchrank.wire import CODECS

pytestmark = pytest.mark.anyio
FLAT = CODECS["dashscope"]
BODY = orjson.dumps({"model": "m", "query": "q", "documents": ["a", "bb"]})
SECRET = "canary-3f9a71c0"


async def post(http: Http) -> Answer | Rejection:
    async with http:
        return await http.post(BODY, 2)


def own(server: Server, path: str = "/rerank", **fields: Any) -> Job:
    return Job.model_validate({"model": "vllm", "endpoint": {"url": server.url + path, **fields}})


def session(job: Job, key: Key | str | None = None) -> Http:
    return endpoint(job, job.url, key)[0]


# Keys


async def wants(key: str, request: web.Request, body: Any) -> web.Response:
    if request.headers.get("Authorization") == f"Bearer {key}":
        return web.json_response(scores(body))
    return web.json_response({"code": "InvalidApiKey", "message": f"no {dict(request.headers)}"}, status=401)


async def test_a_key_that_was_replaced_is_read_again(tmp_path: Path) -> None:
    """Tokens of an hour: on 401 the file is read again, and the same request goes out with the new key at once."""
    file = tmp_path / "key"
    file.write_text("old-key-1234")

    async def reply(request: web.Request, body: Any) -> web.Response:
        return await wants("new-key-5678", request, body)

    async with serving(reply) as server:
        job = own(server, api_key_file=str(file))
        async with session(job, api_keys(job)[0]) as http:
            first = await http.post(BODY, 2)
            file.write_text("new-key-5678\n")
            second, third = await http.post(BODY, 2), await http.post(BODY, 2)
    assert isinstance(first, Rejection) and first.status == 401 and "old-key" not in first.message
    assert isinstance(second, Answer) and isinstance(third, Answer)
    keys = [headers["Authorization"].removeprefix("Bearer ")[:7] for headers in server.headers]
    assert keys == ["old-key", "old-key", "new-key", "new-key"]
    assert server.bodies[1] == server.bodies[2]


async def test_both_keys_stay_secret(tmp_path: Path) -> None:
    """A server that repeats what it was sent tells neither the key that was replaced nor the one that replaced it."""
    file = tmp_path / "key"
    file.write_text("new-key-5678")

    async def reply(request: web.Request, body: Any) -> web.Response:
        said = f"neither old-key-1234 nor {request.headers['Authorization']}"
        return web.json_response({"code": "InvalidApiKey", "message": said}, status=401)

    async with serving(reply) as server:
        job = own(server, api_key_file=str(file))
        outcome = await post(session(job, Key("old-key-1234", newer=job.api_key)))
    assert len(server.paths) == 2
    assert isinstance(outcome, Rejection) and outcome.status == 401
    assert "old-key" not in str(outcome) and "new-key" not in str(outcome)


async def test_a_key_file_that_is_gone_leaves_the_refusal_as_it_is(tmp_path: Path) -> None:
    """What the server said is told, not that the file is just being written."""

    async def reply(request: web.Request, body: Any) -> web.Response:
        return await wants("another", request, body)

    async with serving(reply) as server:
        job = own(server, api_key_file=str(tmp_path / "gone"))
        outcome = await post(session(job, Key("old-key-1234", newer=job.api_key)))
    assert isinstance(outcome, Rejection) and outcome.status == 401 and len(server.paths) == 1


@pytest.mark.parametrize(
    ("auth", "headers", "sent"),
    [
        ("bearer", {}, {"Authorization": "Bearer sk-1234567"}),
        ("api-key", {}, {"api-key": "sk-1234567"}),
        ("Authorization", {}, {"Authorization": "sk-1234567"}),
        ("bearer", {"authorization": "Basic abc"}, {"Authorization": "Basic abc"}),
    ],
)
async def test_the_key_goes_where_the_server_looks(
    auth: str, headers: dict[str, str], sent: dict[str, str]
) -> None:
    """As a bearer, or in the header that is named; a further header of that name replaces it."""
    async with serving() as server:
        assert isinstance(
            await post(Http(f"{server.url}/r", FLAT, key="sk-1234567", auth=auth, headers=headers)), Answer
        )
    found = {
        name.lower(): value
        for name, value in server.headers[0].items()
        if name.lower() in ("authorization", "api-key")
    }
    assert found == {name.lower(): value for name, value in sent.items()}


# Paths

API, MODE = "/compatible-api/v1/reranks", "/compatible-mode/v1/reranks"


async def only_mode(request: web.Request, body: Any) -> web.Response:
    return await ranks(request, body) if request.path == MODE else web.Response(status=404)


def dashscope(server: Server, path: str) -> Job:
    return Job.model_validate(
        {"model": "qwen3-rerank", "endpoint": {"url": server.url + path, "auth": "none"}}
    )


async def test_the_other_path_is_tried_once_and_kept() -> None:
    """A 404 at first means the path: the vendor's other one is tried, used from then on, and told."""
    async with serving(only_mode) as server, session(dashscope(server, API)) as http:
        outcomes = [await http.post(BODY, 2) for _ in range(3)]
    assert all(isinstance(outcome, Answer) for outcome in outcomes)
    assert server.paths == [API, MODE, MODE, MODE]
    assert http.notice is not None and http.notice.endswith(f"set endpoint.url: {server.url}{MODE}")


async def test_where_neither_path_exists_the_first_404_is_told_once() -> None:
    """The user's own address is the one to correct; nothing is tried a second time."""

    async def reply(request: web.Request, body: Any) -> web.Response:
        return web.json_response({"message": request.path}, status=404)

    async with serving(reply) as server, session(dashscope(server, MODE)) as http:
        first, second = await http.post(BODY, 2), await http.post(BODY, 2)
    assert isinstance(first, Rejection) and first.message == MODE and http.notice is None
    assert isinstance(second, Rejection) and server.paths == [MODE, API, MODE]


@pytest.mark.parametrize("code", ["ModelNotFound", "WorkSpaceNotFound"])
async def test_a_model_that_is_not_found_is_no_wrong_path(code: str) -> None:
    """The path is there, it just has no such model."""

    async def reply(request: web.Request, body: Any) -> web.Response:
        return web.json_response({"code": code, "message": "no"}, status=404)

    async with serving(reply) as server:
        outcome = await post(session(dashscope(server, API)))
    assert isinstance(outcome, Rejection) and outcome.code == code and server.paths == [API]


async def test_a_404_after_an_answer_is_no_wrong_path() -> None:
    """A deployment that rolls: the path was right a moment ago."""

    async def reply(request: web.Request, body: Any) -> web.Response:
        return await ranks(request, body) if len(server.paths) == 1 else web.Response(status=404)

    async with serving(reply) as server, session(dashscope(server, API)) as http:
        await http.post(BODY, 2)
        outcome = await http.post(BODY, 2)
    assert isinstance(outcome, Rejection) and outcome.status == 404 and server.paths == [API, API]


async def test_an_address_of_one_s_own_has_no_other_path() -> None:
    """Only the vendor's two known paths stand for each other."""

    async def reply(request: web.Request, body: Any) -> web.Response:
        return web.Response(status=404)

    async with serving(reply) as server:
        await post(session(dashscope(server, "/gateway/v1/reranks")))
    assert server.paths == ["/gateway/v1/reranks"]


# Proxies


async def test_requests_go_through_the_proxy_with_its_password() -> None:
    """A plain address is asked for by its full name; user and password may hold any character."""
    async with serving() as server, proxying("me@work:p@ss word") as proxy:
        job = own(server, proxy=f"http://me%40work:p%40ss%20word@{proxy.address}")
        assert isinstance(await post(session(job)), Answer)
    assert proxy.asked == [f"POST {server.url}/rerank HTTP/1.1"]


async def test_a_tunnel_is_made_for_tls(tls: Tls) -> None:
    """The proxy sees a host and a port, and the certificate is the server's."""
    async with serving(tls=tls.server()) as server, proxying("me:password") as proxy:
        job = own(server, proxy=f"me:password@{proxy.address}", ca_file=str(tls.ca))
        outcome = await post(session(job))
        assert isinstance(outcome, Answer), outcome
    assert proxy.asked == [f"CONNECT {server.url.removeprefix('https://')} HTTP/1.1"]


async def test_the_environment_s_proxy_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """As other programs do, unless NO_PROXY lists the host."""
    async with serving() as server, proxying() as proxy:
        monkeypatch.setenv("HTTP_PROXY", f"http://{proxy.address}")
        assert isinstance(await post(session(own(server))), Answer)
        assert len(proxy.asked) == 1
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        assert isinstance(await post(session(own(server))), Answer)
        assert len(proxy.asked) == 1


@pytest.mark.parametrize("secure", [False, True])
async def test_a_proxy_that_refuses_the_password_can_t_have_billed(secure: bool, tls: Tls) -> None:
    """The request did not arrive; the message says what to correct, and not with which password it was tried."""
    async with serving(tls=tls.server() if secure else None) as server, proxying("other:user") as proxy:
        job = own(server, proxy=f"http://{SECRET}:{SECRET}2@{proxy.address}", ca_file=str(tls.ca))
        outcome = await post(session(job))
    assert isinstance(outcome, Rejection) and outcome.status == 407 and not possibly_billed(outcome)
    assert "correct endpoint.proxy" in outcome.message and "canary" not in str(outcome)
    assert server.paths == []


async def test_a_proxy_that_opens_no_tunnel_can_t_have_billed(tls: Tls) -> None:
    """Whatever it answers, and whatever it repeats."""
    async with serving(tls=tls.server()) as server, proxying(f"me:{SECRET}", refuses=503) as proxy:
        job = own(server, proxy=f"http://me:{SECRET}@{proxy.address}", ca_file=str(tls.ca))
        outcome = await post(session(job))
    assert isinstance(outcome, Rejection) and outcome.code == "unreachable"
    assert "the proxy refused to connect: HTTP 503" in outcome.message and "canary" not in str(outcome)


async def test_a_proxy_that_isn_t_there_is_unreachable() -> None:
    """Named by its host, not by its password."""
    async with serving() as server:
        outcome = await post(session(own(server, proxy=f"http://me:{SECRET}@127.0.0.1:9")))
    assert isinstance(outcome, Rejection) and outcome.code == "unreachable"
    assert "127.0.0.1:9" in outcome.message and "canary" not in str(outcome)


# Certificates


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tls]:
    yield Tls(tmp_path_factory.mktemp("tls"))


async def test_an_authority_of_one_s_own_is_trusted_when_named(
    tls: Tls, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By endpoint.ca_file or SSL_CERT_FILE; without either the server is not believed, and nothing is sent."""
    async with serving(tls=tls.server()) as server:
        refused = await post(session(own(server)))
        named = await post(session(own(server, ca_file=str(tls.ca))))
        monkeypatch.setenv("SSL_CERT_FILE", str(tls.ca))
        known = await post(session(own(server)))
    assert isinstance(refused, Rejection) and refused.code == "certificate"
    assert isinstance(named, Answer) and isinstance(known, Answer) and len(server.paths) == 2


async def test_a_client_s_certificate_is_shown(tls: Tls) -> None:
    """A server that wants one gets it, in one file or two; without one the refusal is known for what it is."""
    both = tls.cert.with_name("both.pem")
    both.write_bytes(tls.cert.read_bytes() + tls.key.read_bytes())
    async with serving(tls=tls.server(ask=True)) as server:
        trusted = {"ca_file": str(tls.ca)}
        shown = await post(
            session(own(server, **trusted, client_cert=str(tls.cert), client_key=str(tls.key)))
        )
        together = await post(session(own(server, **trusted, client_cert=str(both))))
        without = await post(session(own(server, **trusted)))
    assert isinstance(shown, Answer) and isinstance(together, Answer)
    assert isinstance(without, Rejection) and len(server.paths) == 2


@asynccontextmanager
async def alerting(context: ssl.SSLContext) -> AsyncIterator[str]:
    """A TLS server that tells why it refuses a client, and hangs up only when the client has."""

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        received, said = ssl.MemoryBIO(), ssl.MemoryBIO()
        secured = context.wrap_bio(received, said, server_side=True)
        while data := await reader.read(2**16):
            received.write(data)
            with suppress(ssl.SSLError):
                secured.do_handshake()
            writer.write(said.read())
        writer.close()

    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    try:
        yield f"https://localhost:{server.sockets[0].getsockname()[1]}/rerank"
    finally:
        server.close()


async def test_a_server_that_asks_for_a_certificate_is_understood(tls: Tls) -> None:
    """Its refusal comes after the handshake, and is no lost answer: nothing was read, so nothing can be billed."""
    async with alerting(tls.server(ask=True)) as url:
        outcome = await post(Http(url, FLAT, tls=tls_context(ca_file=str(tls.ca))))
    assert isinstance(outcome, Rejection) and outcome.code == "certificate", outcome
    assert "correct endpoint.client_cert" in outcome.message


def test_files_that_can_t_be_used_are_named(
    tls: Tls, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each with its key, before anything is sent; a password is never asked for on the terminal."""
    gone, junk = str(tmp_path / "gone.pem"), tmp_path / "junk.pem"
    junk.write_text("nothing")
    with pytest.raises(JobError, match=r"endpoint\.ca_file: .*gone\.pem can't be read: No such file"):
        tls_context(ca_file=gone)
    with pytest.raises(JobError, match=r"endpoint\.ca_file: .*junk\.pem holds no certificate"):
        tls_context(ca_file=str(junk))
    with pytest.raises(JobError, match=r"endpoint\.client_cert: .*name its key in endpoint\.client_key"):
        tls_context(client_cert=str(tls.cert))
    with pytest.raises(JobError, match=r"endpoint\.client_key: .*gone\.pem can't be read"):
        tls_context(client_cert=str(tls.cert), client_key=gone)
    monkeypatch.setenv("SSL_CERT_FILE", gone)
    with pytest.raises(JobError, match=r"environment, SSL_CERT_FILE: .*gone\.pem can't be read"):
        tls_context()


def test_an_encrypted_key_is_told_to_be_one(tls: Tls, tmp_path: Path) -> None:
    """Nobody is there at night to type the password."""
    from cryptography.hazmat.primitives import serialization

    key = serialization.load_pem_private_key(tls.key.read_bytes(), None)
    locked = tmp_path / "locked.key"
    locked.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"password"),
        )
    )
    with pytest.raises(JobError, match=r"endpoint\.client_key: .*locked\.key is encrypted; write it without"):
        tls_context(client_cert=str(tls.cert), client_key=str(locked))


# Headers and descriptors


async def test_long_headers_are_read() -> None:
    """Gateways send policies and traces of more than 8 kB; up to 64 kB are no fault."""

    async def reply(request: web.Request, body: Any) -> web.Response:
        return web.json_response(scores(body), headers={"X-Policy": "x" * 60_000})

    async with serving(reply) as server:
        assert isinstance(await post(Http(f"{server.url}/r", FLAT)), Answer)


@contextmanager
def few_files(most: int) -> Iterator[None]:
    """No descriptor is left to open."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    with ExitStack() as opened:
        opened.callback(resource.setrlimit, resource.RLIMIT_NOFILE, before)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, before[1]))
        with suppress(OSError):
            while True:
                opened.enter_context(Path("/dev/null").open())
        yield


async def test_running_out_of_descriptors_is_no_possible_bill(monkeypatch: pytest.MonkeyPatch) -> None:
    """The request can't have arrived: unreachable, with the limit's name and number."""
    monkeypatch.setattr("batchrank.send.connections._WANTED", 200)
    async with Http("http://127.0.0.1:9/rerank", FLAT) as http:
        with few_files(200):
            outcome = await http.post(BODY, 2)
    assert isinstance(outcome, Rejection) and (outcome.status, outcome.code) == (None, "unreachable")
    assert "may have 200 files and connections open" in outcome.message and "ulimit -n" in outcome.message


def test_the_limit_of_descriptors_is_raised_and_kept_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """As far as the system lets it, then concurrency stays below it, with a reserve for files."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, before[1]))
        assert open_files() == min(8192, before[1])
        resource.setrlimit(resource.RLIMIT_NOFILE, (128, before[1]))
        monkeypatch.setattr("batchrank.send.connections._WANTED", 128)
        room = connections(open_files())
        assert room == 32 and connections(open_files(), each=2) == 16
        assert ConcurrencyLimit(None, room=room).most == ConcurrencyLimit(100, room=room).limit == 32
        assert ConcurrencyLimit(7, room=room).limit == 7
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
