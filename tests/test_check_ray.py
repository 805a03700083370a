"""``check`` of a job for a Ray cluster: what it tells of each machine, and of machines on which a run would stop."""

import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import orjson
import pytest
from jobs import make_job, rows, write_jsonl
from ray_nodes import Nodes

import batchrank
from batchrank.cluster.messages import differing, versions
from batchrank.cluster.nodes import Cluster, Found, Seen, free_memory, look_at_nodes
from batchrank.cluster.raycluster import Node
from batchrank.errors import ExitCode
from batchrank.job.config import Job
from batchrank.job.running import Engine, Ray
from batchrank.planning.check import check_job, ending
from batchrank.planning.nodes import file_system, judged

GIB = 2**30
WELL = Seen(versions(), None, 8 * GIB, 20 * GIB, "/tmp")


def told(
    *found: Found, part_bytes: float = 2**20, **settings: Any
) -> list[tuple[bool | None, str, ExitCode]]:
    """What is said of such machines."""
    return list(judged(Cluster("10.0.0.1", list(found)), Ray(**settings), part_bytes))


def node(number: int = 2, room: int = 2, cpus: float = 2) -> Node:
    return Node(f"{number}abcdef0123", f"10.0.0.{number}", room, cpus, 4 * GIB)


def seen(**changes: Any) -> Found:
    fields = {name: getattr(WELL, name) for name in Seen.__slots__}
    return Found(node(), Seen(**fields | changes))


def test_a_machine_that_is_well_is_told_with_all_that_counts() -> None:
    """Its versions, the address it connects to, what is free."""
    ((well, text, code),) = told(seen())
    assert well is True and code == ExitCode.COMPLETE
    for word in (
        "10.0.0.2",
        "10.0.0.1",
        "batchrank",
        "pyarrow",
        "8.0 GiB of memory",
        "20.0 GiB in /tmp",
        "room for 2",
    ):
        assert word in text


@pytest.mark.parametrize(
    ("found", "settings", "expected"),
    [
        (seen(versions=versions() | {"numpy": "1.0"}), {}, [(False, "numpy 1.0, not", 1)]),
        (seen(unreached="timed out"), {}, [(False, "can't connect to this process at 10.0.0.1: timed out", 1)]),
        (seen(memory=400 * 2**20), {}, [(None, "engine.ray.memory", 0), (True, "room for 2", 0)]),
        (seen(disk=2**20 - 1), {}, [(False, "output.part_documents", 1)]),
        (seen(disk=2**20), {}, [(None, "output.part_documents", 0), (True, "free", 0)]),
        (seen(memory=None), {}, [(True, "free: 20.0 GiB in /tmp", 0)]),
        (Found(node(), failed="no module"), {}, [(False, "could not be started in the Ray cluster: no module", 1)]),
        (Found(node()), {}, [(None, "had no room for a process of 1 CPU within 60 s", 0), (False, "ray status", 75)]),
        (Found(node(room=0, cpus=0)), {}, [(None, "has 0 CPU for Ray, less than 1 CPU", 0), (False, "add one", 75)]),
        (seen(), {"workers": 3}, [(True, "room for 2", 0), (None, "workers: 3, and there is room for 2", 0)]),
    ],
)  # fmt: skip
def test_what_keeps_a_machine_from_ranking_is_told(
    found: Found, settings: dict[str, Any], expected: list[tuple[bool | None, str, int]]
) -> None:
    """What a run only waits for is a note; what it ends with is a fault with its exit code."""
    said = told(found, **settings)
    assert [(well, int(code)) for well, _, code in said] == [(well, code) for well, _, code in expected]
    for (_, text, _), (_, word, _) in zip(said, expected, strict=True):
        assert word in text


def test_machines_of_one_address_are_told_apart() -> None:
    """By the beginning of Ray's name for them."""
    both = told(seen(), Found(Node("9abcdef", "10.0.0.2", 1, 1, GIB), WELL))
    assert [text.partition(":")[0] for _, text, _ in both] == ["10.0.0.2 (2abcde)", "10.0.0.2 (9abcde)"]


def test_versions_that_differ_are_named_as_a_run_names_them() -> None:
    """The same text, whoever finds it."""
    assert differing(versions()) is None
    other = versions() | {"pyarrow": "1.2"}
    assert (text := differing(other)) is not None and "pyarrow 1.2, not" in text and "numpy" not in text
    ((_, said, _),) = told(seen(versions=other))
    assert text in said


TABLE = """\
21 1 0:20 / / rw,relatime - overlay overlay rw
22 21 8:1 / /mnt/volume rw - ext4 /dev/sda1 rw
23 21 0:21 / /mnt/a\\040b rw shared:1 - nfs4 host:/x rw
24 21 0:22 / /tmp rw - ext4 /dev/sdb rw
25 24 0:23 / /tmp rw - tmpfs tmpfs rw
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [("/home/x", "overlay"), ("/mnt/volume/l", "ext4"), ("/mnt/volumes", "overlay"), ("/mnt/a b/l", "nfs4"),
     ("/tmp/l", "tmpfs")],
)  # fmt: skip
def test_the_file_system_of_the_ledger_is_found(path: str, kind: str) -> None:
    """The deepest that is mounted, the last of several at one place; names with spaces are escaped in the table."""
    assert file_system(Path(path), TABLE) == kind


@pytest.mark.skipif(not Path("/proc/self/mountinfo").exists(), reason="Linux only")
def test_it_is_what_the_system_says(tmp_path: Path) -> None:
    """``findmnt`` is not ours; of several at one place its last line is the one that counts."""
    said = subprocess.run(
        ["findmnt", "-n", "-o", "FSTYPE", "-T", str(tmp_path)], capture_output=True, text=True, check=False
    ) if shutil.which("findmnt") else None  # fmt: skip
    if said is None or said.returncode:
        pytest.skip("there is no findmnt")
    assert (
        file_system(tmp_path.resolve(), Path("/proc/self/mountinfo").read_text()) == said.stdout.split()[-1]
    )


def test_free_memory_is_read_where_the_system_tells_it(tmp_path: Path) -> None:
    """In bytes; None elsewhere."""
    (tmp_path / "meminfo").write_text("MemTotal: 9 kB\nMemAvailable:   2048 kB\n")
    assert free_memory(tmp_path / "meminfo") == 2 * 2**20
    assert free_memory(tmp_path / "none") is None


def ray_job(folder: Path, **settings: Any) -> Job:
    """A job on the emulator, for a cluster."""
    write_jsonl(folder / "in.jsonl", rows(4, 5))
    job = make_job(folder, folder / "in.jsonl")
    return job.model_copy(update={"engine": Engine(ray=Ray(**settings))})


def findings(job: Job) -> tuple[list[tuple[str, str]], ExitCode]:
    found = list(check_job(job, limit=None, ask=False))
    return [(one.state, one.text) for one in found if one.name == "cluster"], ending(found)


@pytest.mark.slow
@pytest.mark.xdist_group("ray")
@pytest.mark.filterwarnings("ignore")  # Ray's own
class TestOnACluster:
    """Two nodes on this machine, besides the head, which has no processors for ranking."""

    def test_each_node_is_told(self, tmp_path: Path, cluster: Nodes) -> None:
        """Both are well, the head is told to rank nothing; the command says so too, and as JSON."""
        job = ray_job(tmp_path)
        said, code = findings(job)
        assert code == ExitCode.COMPLETE
        well = [text for state, text in said if state == "ok" and "connects to" in text]
        assert len(well) == 2 and all(f"batchrank {batchrank.__version__}" in text for text in well)
        assert any("has 0 CPU for Ray" in text for _, text in said)
        assert any("ledger" in text for _, text in said)
        done = command(tmp_path)
        assert done["exit_code"] == 0
        assert sum("connects to" in one["text"] for one in done["findings"]) == 2

    def test_a_node_with_another_version_is_an_error(self, tmp_path: Path, cluster: Nodes) -> None:
        """It has a copy of batchrank of another version, which its workers find first."""
        other = tmp_path / "other"
        package = Path(batchrank.__file__).parent
        shutil.copytree(package, other / "batchrank", ignore=shutil.ignore_patterns("__pycache__"))
        version = other / "batchrank" / "version.py"
        version.write_text(version.read_text().replace(batchrank.__version__, "0.0.9"))
        extra = cluster.add(env_vars={"PYTHONPATH": str(other)})
        try:
            ray_job(tmp_path)
            done = command(tmp_path)
        finally:
            cluster.kill(extra, at_once=False)
        assert done["exit_code"] == ExitCode.FAILED
        (fault,) = [one["text"] for one in done["findings"] if one["state"] == "fault"]
        assert f"batchrank 0.0.9, not {batchrank.__version__}" in fault and "numpy" not in fault
        assert sum("connects to" in one["text"] for one in done["findings"]) == 2

    def test_nodes_without_room_are_told_in_time(self, cluster: Nodes) -> None:
        """Both are taken by somebody else; nothing of ours waits there afterwards."""
        import ray

        settings = Ray()
        ray.init(address=cluster.address, log_to_driver=False)
        try:

            class Holder:
                def there(self) -> bool:
                    return True

            holder = ray.remote(Holder).options(num_cpus=1)
            holders = [holder.remote(), holder.remote()]
            ray.get([one.there.remote() for one in holders])
            found = anyio.run(partial(look_at_nodes, settings, "job", (), placed=2.0))
            said = list(judged(found, settings, 1.0, placed=2.0))
            assert sum("had no room for a process of 1 CPU within 2 s" in text for _, text, _ in said) == 2
            assert said[-1][0] is False and said[-1][2] == ExitCode.STOPPED
            for one in holders:
                ray.kill(one)
            found = anyio.run(look_at_nodes, settings, "job", ())
            assert sum(one.seen is not None for one in found.found) == 2
        finally:
            ray.shutdown()


@pytest.mark.parametrize(
    ("address", "said"),
    [("ray://head:10001", "ray job submit"), ("127.0.0.1:1", "ray start")],
)
def test_a_cluster_that_is_not_there_is_told(tmp_path: Path, address: str, said: str) -> None:
    """As a run tells it, with the same exit code; all else is looked at."""
    pytest.importorskip("ray")
    found = list(check_job(ray_job(tmp_path, address=address), limit=None, ask=False))
    assert ending(found) == ExitCode.USAGE
    (fault,) = [one for one in found if one.state == "fault"]
    assert fault.name == "cluster" and said in fault.text


def command(folder: Path) -> dict[str, Any]:
    """What ``batchrank check --ray auto --json`` prints, as it is installed, from a folder without modules.

    Ray lets its workers look for modules where the program is that uses it, and in its working directory, first.
    """
    (folder / "job.yaml").write_text(
        f"input: {folder / 'in.jsonl'}\nmodel: qwen3-rerank\nendpoint: emulator\noutput: {{path: {folder / 'out'}}}\n"
    )
    program = str(Path(sys.executable).with_name("batchrank"))
    words = [program, "check", str(folder / "job.yaml"), "--ray", "auto", "--json"]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    found: dict[str, Any] = orjson.loads(done.stdout)
    assert found["exit_code"] == done.returncode, done.stderr
    return found
