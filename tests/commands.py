"""Runs commands in processes that are forked from one that has imported them, because imports take most of a command.

Each has its own arguments, environment, folder, standard streams and exit code, and ends as any program does. What
depends on how a process starts, on its signals or on its terminal is tested with ``python -m batchrank`` itself.
"""

import atexit
import functools
import gc
import os
import pkgutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import IO

import orjson

_LARGEST = 2**17  # bytes of a request, most of which is the environment
_one_at_a_time = threading.Lock()


def run(
    *arguments: str, cwd: Path, environ: Mapping[str, str], stdin: bytes = b""
) -> subprocess.CompletedProcess[bytes]:
    """Run a command to its end; its standard streams are files."""
    request = orjson.dumps([arguments, str(cwd), dict(environ)])
    assert len(request) <= _LARGEST
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        given.write(stdin)
        given.seek(0)
        with _one_at_a_time:
            socket.send_fds(_server(), [request], [given.fileno(), out.fileno(), err.fileno()])
            code = int(_server().recv(16))
        return subprocess.CompletedProcess(arguments, code, _all_of(out), _all_of(err))


def _all_of(file: IO[bytes]) -> bytes:
    file.seek(0)
    return file.read()


@functools.cache
def _server() -> socket.socket:
    """The process that forks: it is sent requests one by one, and answers with exit codes."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    process = subprocess.Popen(
        [sys.executable, __file__, str(theirs.fileno())],
        pass_fds=[theirs.fileno()],
        start_new_session=True,  # Ctrl-C is for the tests
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)},
    )
    theirs.close()

    def end() -> None:
        ours.close()
        process.wait()

    atexit.register(end)
    return ours


def _import_all() -> dict[str, str]:
    """Import what commands may need; the environment variables that this set."""
    before = dict(os.environ)
    for package in ("batchrank.cli", "batchrank"):  # first the former, as it settles how Arrow allocates
        found = import_module(package)
        for module in pkgutil.walk_packages(found.__path__, f"{package}."):
            import_module(module.name)
    return {name: value for name, value in os.environ.items() if before.get(name) != value}


def _fork_for_each(connection: socket.socket, settled: Mapping[str, str]) -> None:
    """Return in a new process for each request, set up as it says; end this one after the last."""
    while True:
        request, streams, _, _ = socket.recv_fds(connection, _LARGEST, 3)
        if not request:
            sys.exit()
        child = os.fork()
        if child == 0:
            break
        for stream in streams:
            os.close(stream)
        connection.send(str(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])).encode())
    connection.close()
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    arguments, cwd, environ = orjson.loads(request)
    sys.argv[1:] = arguments
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(settled | environ)


if __name__ == "__main__":
    with socket.socket(fileno=int(sys.argv[1])) as _connection:
        _settled = _import_all()
        gc.freeze()
        _fork_for_each(_connection, _settled)
    from batchrank.__main__ import main

    main()
