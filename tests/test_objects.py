"""Files in a store: each whole under its name or not there, whatever ends the process, the line or the writer."""

import hashlib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from pyarrow import fs
from stores import Bucket, Wire, served

from batchrank.errors import MissingExtraError, OutputError
from batchrank.io import storage
from batchrank.io.address import Address, located
from batchrank.io.objects import Store, unchanged
from batchrank.write import switch
from batchrank.write.folder import NEXT, OutputFolder

SMALL, LARGE = bytes(range(256)) * 1_000, bytes(range(256)) * 43_000
"""One request, and with 11 MB more than one part of a multipart upload."""


@pytest.fixture(scope="module")
def host() -> Iterator[tuple[str, int]]:
    with served() as at:
        yield at


@pytest.fixture
def bucket(host: tuple[str, int], request: pytest.FixtureRequest) -> Bucket:
    return Bucket(*host, "b-" + hashlib.sha256(request.node.name.encode()).hexdigest()[:20])


@pytest.fixture(params=["s3", "memory"])
def folder(request: pytest.FixtureRequest) -> Iterator[Address]:
    """A folder in pyarrow's S3, and in a file system of fsspec's."""
    if request.param == "s3":
        yield Address(request.getfixturevalue("bucket").address("deep/out"))
    else:
        import fsspec

        yield Address("memory://deep/out")
        fsspec.filesystem("memory").store.clear()


@pytest.mark.parametrize(
    "data",
    [b"", b"rows", pytest.param(LARGE, marks=pytest.mark.slow)],
    ids=["empty", "small", "large"],
)
def test_a_finished_file_is_published_whole(folder: Address, tmp_path: Path, data: bytes) -> None:
    """Byte for byte, under its final name alone; nothing stays here. Published twice it is one file."""
    for _ in range(2):
        store = Store(folder, tmp_path / "staging")
        file = store.create("ranking-00000.jsonl")
        file.write(data)
        file.publish()
        assert store.names() == ["ranking-00000.jsonl"]
        assert (folder / "ranking-00000.jsonl").read_bytes() == data
        assert not list((tmp_path / "staging").iterdir())
        known = hashlib.sha256(data).hexdigest()
        assert unchanged(folder / "ranking-00000.jsonl", len(data), known, file.tag)
        store.close()


def test_a_changed_or_lost_object_is_noticed(bucket: Bucket, tmp_path: Path) -> None:
    """Of the same size, too; one that was copied byte for byte is the same, though its tag may differ."""
    path = Address(bucket.address("out")) / "a"
    tag = Store(path.parent).put("a", b"rows")
    known = hashlib.sha256(b"rows").hexdigest()
    assert tag == hashlib.md5(b"rows").hexdigest()
    assert unchanged(path, 4, known, tag) and unchanged(path, 4, known, "another tag")
    bucket.put("out/a", b"ROWS")
    assert not unchanged(path, 4, known, tag)
    bucket.client.delete_object(Bucket=bucket.name, Key="out/a")
    assert not unchanged(path, 4, known, tag)


def test_an_object_whose_tag_stands_is_not_read(bucket: Bucket) -> None:
    """A resumed run asks about its parts, and downloads none: a wrong hash goes unnoticed while the tag is the same."""
    path = Address(bucket.address("out")) / "a"
    tag = Store(path.parent).put("a", b"rows")
    assert unchanged(path, 4, "no hash at all", tag)


def impatient(address: str) -> tuple[Any, str]:
    """A store's file system that tries once."""
    url = urlsplit(address)
    once = fs.AwsStandardS3RetryStrategy(max_attempts=1)
    (at,) = parse_qs(url.query)["endpoint_override"]
    return fs.S3FileSystem(endpoint_override=at, scheme="http", retry_strategy=once), url.netloc + url.path


@pytest.mark.parametrize(
    ("data", "after"),
    [
        (SMALL, 1 << 16),
        pytest.param(SMALL, 0, marks=pytest.mark.slow),  # the library tries again and again
        pytest.param(LARGE, 6 << 20, marks=pytest.mark.slow),
    ],
    ids=["in-the-body", "at-once", "in-one-of-two-parts"],
)
def test_a_line_that_breaks_publishes_nothing(
    bucket: Bucket,
    host: tuple[str, int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    data: bytes,
    after: int,
) -> None:
    """The older object stays, byte for byte, and once the line is back the file is published."""
    if data is SMALL and after:
        monkeypatch.setattr(
            storage, "_resolve", impatient
        )  # by itself the library tries again for six seconds
    wire = Wire(*host)
    options = f"?scheme=http&endpoint_override=127.0.0.1:{wire.port}"
    bucket.put("out/a", b"old")
    wire.limit = after
    store = Store(Address(bucket.address("out", options)), tmp_path)
    file = store.create("a")
    file.write(data)
    with pytest.raises(OutputError, match=rf"s3://{bucket.name}/out/a can't be written"):
        file.publish()
    assert bucket.objects("out").get("a") == b"old"
    wire.limit = None
    again = store.create("a")
    again.write(data)
    again.publish()
    assert bucket.objects("out") == {"a": data}
    wire.close()


def test_a_file_that_is_given_up_is_not_published(folder: Address, tmp_path: Path) -> None:
    """What it wrote until then was never sent: a truncated object may well look like a whole one."""
    store = Store(folder, tmp_path)
    file = store.create("a")
    file.write(LARGE)
    file.discard()  # as a part that is given up
    store.close()
    assert store.names() == [] and not list(tmp_path.iterdir())


class Broken(BaseHTTPRequestHandler):
    """A store that answers everything in one way."""

    status, code, text = 403, "AccessDenied", "Access Denied"
    protocol_version = "HTTP/1.1"

    def answer(self) -> None:
        self.rfile.read(int(self.headers.get("content-length") or 0))
        body = f"<Error><Code>{self.code}</Code><Message>{self.text}</Message></Error>".encode()
        self.send_response(self.status)
        self.send_header("content-length", str(len(body)))
        self.send_header("content-type", "application/xml")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = answer  # noqa: N815 named by the library

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.mark.parametrize(
    ("status", "code"),
    [(403, "AccessDenied"), (403, "InvalidAccessKeyId"), (301, "PermanentRedirect"), (400, "ExpiredToken")],
)
def test_a_store_that_refuses_says_so_before_anything_is_paid(
    status: int, code: str, host: tuple[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No permission, a wrong key, another region: what the store says, and what to do."""
    monkeypatch.setattr(Broken, "status", status)
    monkeypatch.setattr(Broken, "code", code)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Broken)
    Thread(target=server.serve_forever, daemon=True).start()
    options = f"?scheme=http&endpoint_override=127.0.0.1:{server.server_address[1]}"
    pattern = r"s3://bucket/out can't be written: AWS Error .*let these credentials list"
    with pytest.raises(OutputError, match=pattern):
        Store(Address(f"s3://bucket/out{options}")).probe()
    server.shutdown()
    server.server_close()


def test_a_bucket_that_is_not_there_is_told(host: tuple[str, int]) -> None:
    """And is not made."""
    options = f"?scheme=http&endpoint_override={host[0]}:{host[1]}"
    with pytest.raises(
        OutputError,
        match=r"s3://no-such-bucket/out can't be written: .*does not exist.*; create the bucket or",
    ):
        Store(Address(f"s3://no-such-bucket/out{options}")).probe()


def test_an_address_that_nobody_writes_to_is_told(host: tuple[str, int]) -> None:
    """A web server, and a scheme that no library knows."""
    with pytest.raises(
        OutputError, match=r"http://.*/out can't be written: nothing can be written to such addresses"
    ):
        Store(Address(f"http://{host[0]}:{host[1]}/out")).probe()
    with pytest.raises(OutputError, match=r"output\.path: nope://x/out: .*; correct the path$"):
        Store(Address("nope://x/out")).probe()


def test_a_probe_leaves_nothing(folder: Address) -> None:
    """Writing, listing and removing are tried, and what was there stays."""
    Store(folder).put("a", b"mine")
    Store(folder).probe()
    assert Store(folder).names() == ["a"] and (folder / "a").read_bytes() == b"mine"


def test_a_store_without_its_library_names_the_install_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing extra names itself."""
    import sys

    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'batchrank\[remote\]'"):
        Store(Address("memory2://bucket/out")).probe()


@pytest.mark.parametrize("when", ["sent", "copied"])
def test_a_wrong_object_is_never_left_under_its_name(
    when: str, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the store holds other bytes than were sent, by its checksum and by reading it, the object is removed."""
    compare = Store._compare
    wrong = ".a.tmp" if when == "sent" else "a"

    def damaged(store: Store, name: str, data: Any, size: int) -> Any:
        if name == wrong:
            bucket.put(f"out/{name}", b"ROWS")
        return compare(store, name, data, size)

    monkeypatch.setattr(Store, "_compare", damaged)
    with pytest.raises(OutputError, match="which are not the 4 that were sent"):
        Store(Address(bucket.address("out"))).put("a", b"rows")
    assert bucket.objects("out") == {}


@pytest.mark.anyio
async def test_a_part_of_another_machine_is_sent_from_here(bucket: Bucket, tmp_path: Path) -> None:
    """Piece by piece it comes here, and goes to the store as a whole; what arrived otherwise doesn't."""
    from batchrank.cluster.handover import Depot

    where = Address(bucket.address("out"))
    depot = Depot(where, {}, tmp_path)
    handlers = depot.handlers()
    for first, piece in ((True, b"ro"), (False, b"ws")):
        await handlers["file"]("ranking-00000.jsonl", piece, first)
    assert bucket.objects("out") == {}
    tag = await handlers["placed"]("ranking-00000.jsonl", hashlib.sha256(b"rows").hexdigest())
    assert bucket.objects("out") == {"ranking-00000.jsonl": b"rows"}
    assert tag == Store(where).held("ranking-00000.jsonl").tag
    await handlers["file"]("ranking-00001.jsonl", b"ro", True)
    with pytest.raises(OutputError, match="did not arrive"):
        await handlers["placed"]("ranking-00001.jsonl", hashlib.sha256(b"rows").hexdigest())
    await depot.close()
    assert list(bucket.objects("out")) == ["ranking-00000.jsonl"]


OLD = {
    "ranking-00000.jsonl": b"old 0", "ranking-00001.jsonl": b"old 1", "gate-failed.json": b"{}",
    "summary.json": b'{"complete": true, "night": 1}',
}  # fmt: skip
NEW = {
    "ranking-00000.jsonl": b"new 0", "failed.jsonl": b"new", "summary.json": b'{"complete": true, "night": 2}',
}  # fmt: skip


class Killed(BaseException):
    """What stands for the end of the process."""


@pytest.mark.parametrize("kind", ["memory", pytest.param("s3", marks=pytest.mark.slow)])
def test_a_switch_in_a_store_cut_off_at_any_step_is_finished(
    kind: str, request: pytest.FixtureRequest
) -> None:
    """Until it is decided the old output is whole; a summary stands beside one output's files only; in the end the new
    one is there, and nothing of the old. On S3, which is slower, each seventh step.
    """
    bucket: Bucket | Memory = Memory() if kind == "memory" else request.getfixturevalue("bucket")
    step, done, seen = 0, False, set()
    while not done:
        name = f"out{step}"
        where = located(bucket.address(name))
        for at, files in ((name, OLD), (f"{name}/{NEXT}", NEW)):
            for key, data in files.items():
                bucket.put(f"{at}/{key}", data)
        bucket.put(f"{name}/notes.txt", b"mine")
        steps = iter(range(step))

        def reached(steps: Any = steps, name: str = name) -> None:
            there = top(bucket, name)
            if "summary.json" in there:
                assert there in (OLD, NEW)
            seen.add("summary.json" in there)
            if next(steps, None) is None:
                raise Killed

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(storage, "filesystem", watched(storage.filesystem, reached))
            try:
                switch.decide(where)
                switch.carry_out(where)
                done = True
            except Killed:
                pass
        if not done and not (where / NEXT / "switch.json").exists() and top(bucket, name) != NEW:
            assert top(bucket, name) == OLD
            switch.decide(where)
        for key, data in NEW.items():
            assert OutputFolder(where).newest(key).read_bytes() == data
        switch.carry_out(where)
        assert bucket.objects(name) == NEW | {"notes.txt": b"mine"}
        step += 1 if kind == "memory" else 7
    assert step > 20 and seen == {True, False}


class Memory:
    """What ``Bucket`` is, of fsspec's."""

    def __init__(self) -> None:
        import fsspec

        self._system: Any = fsspec.filesystem("memory")
        self._system.store.clear()

    def address(self, folder: str) -> str:
        return f"memory://bucket/{folder}"

    def put(self, key: str, data: bytes) -> None:
        self._system.pipe_file(f"/bucket/{key}", data)

    def objects(self, folder: str) -> dict[str, bytes]:
        start = f"/bucket/{folder}/"
        found = self._system.store.items()
        return {key.removeprefix(start): one.getvalue() for key, one in found if key.startswith(start)}


def top(bucket: Bucket | Memory, name: str) -> dict[str, bytes]:
    found = bucket.objects(name)
    return {
        key: data for key, data in found.items() if "/" not in key and key != "notes.txt" and key[0] != "."
    }


class Watched:
    """A file system of pyarrow's that tells before and after every change; a move is a copy and a removal."""

    def __init__(self, system: Any, reached: Any) -> None:
        self._system, self._reached = system, reached

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._system, name)
        if name not in ("open_output_stream", "copy_file", "delete_file", "delete_dir"):
            return found

        def call(*args: Any, **keywords: Any) -> Any:
            self._reached()
            result = found(*args, **keywords)
            self._reached()
            return result

        return call

    def move(self, source: str, target: str) -> None:
        self.copy_file(source, target)
        self.delete_file(source)


def watched(filesystem: Any, reached: Any) -> Any:
    return lambda path: (Watched(filesystem(path)[0], reached), filesystem(path)[1])
