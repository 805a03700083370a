"""Stores of objects on loopback: moto's server, which is not ours, and a way to it that can be cut."""

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

KEYS = {
    "AWS_ACCESS_KEY_ID": "AKIACANARY51F0", "AWS_SECRET_ACCESS_KEY": "store-canary-8d2c",
    "AWS_EC2_METADATA_DISABLED": "true", "AWS_DEFAULT_REGION": "us-east-1",
}  # fmt: skip


@contextmanager
def served() -> Iterator[tuple[str, int]]:
    """An S3 on loopback, with credentials for it in the environment; its host and port."""
    from moto.server import ThreadedMotoServer

    before = {name: os.environ.get(name) for name in KEYS}
    os.environ.update(KEYS)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        yield server.get_host_and_port()
    finally:
        server.stop()
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


class Bucket:
    """A new bucket, filled with boto3 and looked at in the server's memory: neither is what batchrank uses.

    Attributes:
        options: what addresses in it end in.
    """

    def __init__(self, host: str, port: int, name: str) -> None:
        import boto3

        self.name = name
        self.options = f"?scheme=http&endpoint_override={host}:{port}"
        self.client: Any = boto3.client(
            "s3", endpoint_url=f"http://{host}:{port}", region_name="us-east-1",
            aws_access_key_id=KEYS["AWS_ACCESS_KEY_ID"], aws_secret_access_key=KEYS["AWS_SECRET_ACCESS_KEY"],
        )  # fmt: skip
        self.client.create_bucket(Bucket=name)

    def address(self, folder: str, options: str | None = None) -> str:
        """The address of a folder."""
        return f"s3://{self.name}/{folder}{self.options if options is None else options}"

    def objects(self, folder: str = "") -> dict[str, bytes]:
        """All objects below a folder by their names in it, without what stands for folders."""
        from moto.s3.models import s3_backends

        (account,) = s3_backends.values()
        keys = account["aws"].buckets[self.name].keys
        found = {key: keys[key] for key in list(keys) if key.startswith(folder) and not key.endswith("/")}
        return {key.removeprefix(f"{folder}/"): bytes(one.value) for key, one in found.items()}

    def put(self, key: str, data: bytes) -> None:
        """Put an object, as anybody may."""
        self.client.put_object(Bucket=self.name, Key=key, Body=data)


_METHODS = (b"PUT ", b"GET ", b"HEAD ", b"POST ", b"DELETE ")
_WORDS = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
_SLOW_DOWN = b"HTTP/1.1 503 Slow Down\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s" % (
    len(_WORDS),
    _WORDS,
)


class Wire:
    """Passes connections on to a server, byte by byte.

    Args:
        host: the server's.
        port: the server's.

    Attributes:
        limit: bytes that a client may send on a connection before it breaks; None for no end.
        slow: so many of the next requests are told to slow down, in S3's own words.
        port: where clients connect.
    """

    def __init__(self, host: str, port: int) -> None:
        self.limit: int | None = None
        self.slow = 0
        self._to = host, port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Take no more connections."""
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._to)
                threading.Thread(target=self._pass, args=(client, server), daemon=True).start()
                threading.Thread(target=self._back, args=(server, client), daemon=True).start()

    def _pass(self, client: socket.socket, server: socket.socket) -> None:
        sent = 0
        with client, server, suppress(OSError):
            while data := client.recv(1 << 16):
                if self.slow and data.startswith(_METHODS):
                    self.slow -= 1
                    client.sendall(_SLOW_DOWN)
                    break
                sent += len(data)
                if self.limit is not None and sent > self.limit:
                    break
                server.sendall(data)
            for end in (client, server):
                end.shutdown(socket.SHUT_RDWR)

    def _back(self, server: socket.socket, client: socket.socket) -> None:
        with suppress(OSError):
            while data := server.recv(1 << 16):
                client.sendall(data)
            client.shutdown(socket.SHUT_RDWR)
