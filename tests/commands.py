"""Runs commands in processes that are forked from one that has imported them, because imports take most of a command.

Each has its own arguments, environment, folder, standard streams and exit code, and ends as any program does. What
depends on how a process starts, on its signals or on its terminal is tested with ``python -m batchrank`` itself.
"""

import asyncio
import atexit
import functools
import gc
import os
import pkgutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import IO

import orjson

_LARGEST = 2**17  # bytes of a request, most of which is the environment
_COMMAND = "from batchrank.__main__ import main; main()"
_one_server = threading.Lock()


def run(
    *arguments: str,
    cwd: Path,
    environ: Mapping[str, str],
    stdin: bytes = b"",
    stdout: IO[bytes] | None = None,
) -> subprocess.CompletedProcess[bytes]:
    """Run a command to its end; its standard streams are files, unless another standard output is given."""
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        given.write(stdin)
        given.seek(0)
        process, _ = _fork(_COMMAND, arguments, cwd, environ, [given, stdout or out, err])
        with process:
            return subprocess.CompletedProcess(arguments, int(process.recv(16)), _all_of(out), _all_of(err))


class Process:
    """A program of the caller's own that runs.

    Attributes:
        returncode: None until ``communicate`` has returned; negative is the number of a signal.
    """

    def __init__(self, program: str, *arguments: str, cwd: Path, environ: Mapping[str, str]) -> None:
        self.returncode: int | None = None
        self._err = tempfile.TemporaryFile()  # noqa: SIM115 closed at its end
        with Path(os.devnull).open("r+b") as nothing:
            self._process, self.pid = _fork(program, arguments, cwd, environ, [nothing, nothing, self._err])
        self._process.setblocking(False)

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    async def communicate(self) -> tuple[bytes, bytes]:
        """Wait for its end; what it said on its standard error is the second."""
        with self._process, self._err:
            self.returncode = int(await asyncio.get_running_loop().sock_recv(self._process, 16))
            return b"", _all_of(self._err)


def _all_of(file: IO[bytes]) -> bytes:
    file.seek(0)
    return file.read()


def _fork(
    program: str,
    arguments: Sequence[str],
    cwd: Path,
    environ: Mapping[str, str],
    streams: Sequence[IO[bytes]],
) -> tuple[socket.socket, int]:
    """Start a process; where its exit code will come from, and its number."""
    request = orjson.dumps([program, arguments, str(cwd), dict(environ)])
    assert len(request) <= _LARGEST
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs, _one_server:
        socket.send_fds(_server(), [request], [*(stream.fileno() for stream in streams), theirs.fileno()])
    return ours, int(ours.recv(16))


@functools.cache
def _server() -> socket.socket:
    """The process that forks."""
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


def _fork_for_each(connection: socket.socket, settled: Mapping[str, str]) -> str:
    """Return, in a new process for each request that is set up as it says, the program to run."""
    while True:
        request, handles, _, _ = socket.recv_fds(connection, _LARGEST, 4)
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        if not request:
            sys.exit()
        if os.fork() == 0:
            break
        for handle in handles:
            os.close(handle)
    connection.close()
    *streams, told = handles
    child = os.fork()
    if child:
        for stream in streams:
            os.close(stream)
        os.write(told, str(child).encode())
        os.write(told, str(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])).encode())
        os._exit(0)
    os.close(told)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    sys.stdin = os.fdopen(0, encoding="utf-8", closefd=False)  # anew, as those of before know what they were
    sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = os.fdopen(2, "w", 1, encoding="utf-8", errors="backslashreplace", closefd=False)
    program, arguments, cwd, environ = orjson.loads(request)
    sys.argv[1:] = arguments
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(settled | environ)
    return str(program)


if __name__ == "__main__":
    with socket.socket(fileno=int(sys.argv[1])) as _connection:
        _settled = _import_all()
        gc.freeze()
        _program = _fork_for_each(_connection, _settled)
    exec(_program, {"__name__": "__main__"})
