"""Every async test runs in virtual time, unless it is marked ``real_clock``."""

import asyncio
import gc
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings
from virtual_time import VirtualTimeLoop

from batchrank.ledger import state

if TYPE_CHECKING:
    from ray_nodes import Nodes

_MEMORY = Path("/dev/shm")
_MEMORY_NEEDED = 4 * 2**30  # bytes; the slow tests sort half a gigabyte there, two of them at a time
_GARBAGE = 20_000  # objects after which garbage is looked for, which took a twentieth of the suite at 700


def pytest_configure(config: pytest.Config) -> None:
    _keep_temporary_files_in_memory()
    settings.register_profile("untimed", deadline=None)  # a busy machine is no failure
    settings.load_profile("untimed")
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_FILE"):
        os.environ.pop(name, None)  # servers on loopback would be asked through it
        os.environ.pop(name.lower(), None)
    config.addinivalue_line(
        "markers", "real_clock: runs on the system's clock and event loop, not in virtual time"
    )


@pytest.hookimpl(wrapper=True)
def pytest_xdist_auto_num_workers() -> Generator[None, int, int]:
    """Three workers for two processors, because tests wait a quarter of their time: for processes and real clocks."""
    processors = yield
    return processors * 3 // 2


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """Have the garbage collector skip what stays for good: modules and tests, a quarter of a million objects."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_GARBAGE, 20, 20)


def _keep_temporary_files_in_memory() -> None:
    """Spare the disk, because jobs wait for it at every commit, and no test can tell whether it was asked.

    To test on a disk all the same, set TMPDIR.
    """
    if "TMPDIR" in os.environ or not os.access(_MEMORY, os.W_OK):
        return
    if shutil.disk_usage(_MEMORY).free >= _MEMORY_NEEDED:
        os.environ["TMPDIR"] = tempfile.tempdir = str(_MEMORY)


@pytest.fixture(scope="module")
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """The anyio plugin's backend.

    Module-scoped, as hypothesis refuses less; yet each test gets a new loop, so the same time.
    """
    return "asyncio", {"loop_factory": VirtualTimeLoop}


@pytest.fixture(scope="module")
def cluster() -> Iterator["Nodes"]:
    """A Ray cluster of this machine."""
    pytest.importorskip("ray.cluster_utils")
    from ray_nodes import Nodes

    with Nodes() as nodes:
        yield nodes


@pytest.fixture(autouse=True)
def _one_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """In virtual time the wall clock goes with the event loop's, so that a job that is run again knows the time."""

    def wall() -> float:
        loop = asyncio.get_running_loop()
        return loop.time() if isinstance(loop, VirtualTimeLoop) else time.time()

    monkeypatch.setattr(state, "wall", wall)


@pytest.fixture(autouse=True)
def _log_as_it_was() -> Generator[None, None, None]:
    """A command that was run in this process has set up its log; the next test's is pytest's again."""
    logger = logging.getLogger("batchrank")
    level, handlers = logger.level, list(logger.handlers)
    yield
    logger.setLevel(level)
    logger.propagate, logger.handlers[:] = True, handlers


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if metafunc.definition.get_closest_marker("real_clock"):
        metafunc.parametrize("anyio_backend", [("asyncio", {})], ids=["real_clock"], scope="module")
