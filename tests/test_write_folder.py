"""The output folder: nothing of others is touched, nothing half written is left."""

import errno
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from written import FORMATS, ranking, write

from batchrank.errors import OutputError
from batchrank.job.sections import Output
from batchrank.write.writer import Writer


def test_sweep_removes_only_what_a_former_run_left(tmp_path: Path) -> None:
    """Later parts, other formats and temporary files of ours go; foreign files and links stay."""
    write(tmp_path, "parquet", 6, each=1)
    write(tmp_path, "jsonl", 1)
    foreign = [
        "ranking.parquet",
        "ranking-1.parquet",
        "my-ranking-00001.parquet",
        "ranking-00009.csv",
        "notes.txt",
    ]
    for name in foreign:
        (tmp_path / name).write_text("mine")
    (tmp_path / "ranking-00077.parquet").symlink_to("notes.txt")
    (tmp_path / ".queries-00003.parquet.tmp").write_text("left over")
    writer = Writer(Output(path=str(tmp_path)))
    for number in range(2):
        writer.write(ranking(number))
        writer.end()
    removed = writer.sweep()
    assert len(removed) == 10
    kept = {name.format(f"{i:05d}") for name in FORMATS["parquet"] for i in range(2)}
    assert {path.name for path in tmp_path.iterdir()} == kept | set(foreign) | {"ranking-00077.parquet"}
    writer.close()


@pytest.mark.parametrize("format", FORMATS)
def test_nothing_is_written_through_a_link(tmp_path: Path, format: Any) -> None:
    """A part's name that is a link is refused, one of its temporary name is replaced; the target is untouched."""
    out, secret = tmp_path / "out", tmp_path / "secret"
    out.mkdir()
    secret.write_text("untouched")
    name = FORMATS[format][-1].format("00000")
    (out / f".{name}.tmp").symlink_to(secret)
    write(out, format, 1)
    (out / name).unlink()
    (out / name).symlink_to(secret)
    writer = Writer(Output(path=str(out), format=format))
    with pytest.raises(OutputError, match=f"{name} is a symbolic link; it is left alone"):
        writer.write(ranking(0))
    writer.abort()
    assert secret.read_text() == "untouched"
    assert not list(out.glob(".*"))


def test_an_output_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    """The message names the path and what to correct."""
    (tmp_path / "out").write_text("a file")
    with pytest.raises(OutputError, match=r"out can't be used as output folder: .*correct output\.path"):
        Writer(Output(path=str(tmp_path / "out")))


@pytest.fixture
def small_files() -> Iterator[None]:
    """No file may grow past 64 KiB, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (65_536, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.usefixtures("small_files")
@pytest.mark.parametrize("format", FORMATS)
def test_a_full_disk_is_named_and_leaves_no_half_part(tmp_path: Path, format: Any) -> None:
    """The error names the file and keeps its cause; afterwards no temporary file is left."""
    writer = Writer(Output(path=str(tmp_path), format=format))
    with pytest.raises(OutputError, match=r"ranking-00000.* can't be written: ") as caught:
        for number in range(100):
            writer.write(ranking(number, 5000))
        writer.close()
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.__cause__.errno == errno.EFBIG
    writer.abort()
    assert list(tmp_path.iterdir()) == []


def test_the_folder_can_t_be_exchanged_while_the_job_runs(tmp_path: Path) -> None:
    """Files go where the folder was opened, even if its name is made a link in the meantime."""
    writer = Writer(Output(path=str(tmp_path / "out")))
    writer.write(ranking(0))
    writer.end()
    (tmp_path / "out").rename(tmp_path / "moved")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "elsewhere")
    writer.write(ranking(1))
    writer.close()
    assert list((tmp_path / "elsewhere").iterdir()) == []
    assert len(list((tmp_path / "moved").iterdir())) == 4
