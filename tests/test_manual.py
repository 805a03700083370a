"""``batchrank manual``: the manuals without a clone."""

import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from rich.console import Console
from test_readme import PAGES, ROOT
from typer.testing import CliRunner

from batchrank.cli.app import app
from batchrank.cli.help import key_table, manual, manuals
from batchrank.job.schema import key_names

RUNNER = CliRunner()


def test_without_a_topic_it_lists_them() -> None:
    """One line each: the name, and what its page says it is about."""
    done = RUNNER.invoke(app, ["manual"])
    assert done.exit_code == 0
    lines = done.output.splitlines()
    assert lines[0] == "configs   Jobs: keys, recipes, operations"
    assert {line.split()[0] for line in lines if line and not line.startswith("batchrank")} == {
        *manuals(),
        "keys",
    }
    assert {"read", "write", "merge", "send", "wire", "observe", "emulator"} <= set(manuals())


@pytest.mark.parametrize("topic", manuals())
def test_a_topic_is_printed_as_it_stands(topic: str) -> None:
    """In a pipe, so that other programs can render it."""
    done = RUNNER.invoke(app, ["manual", topic])
    assert done.exit_code == 0
    assert done.output in PAGES.values()


def test_a_terminal_gets_it_laid_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Headings and tables instead of their Markdown."""
    monkeypatch.setattr("batchrank.cli.help.console", lambda: Console(force_terminal=True, width=100))
    manual("merge")
    shown = capsys.readouterr().out
    assert "Merging: one ranking" in shown and "# Merging: one" not in shown and "| --- |" not in shown


def test_an_unknown_topic_is_told_with_those_that_are_known() -> None:
    """Exit code 2, as for every wrong word."""
    done = RUNNER.invoke(app, ["manual", "mergr"])
    assert done.exit_code == 2
    assert "mergr" in done.output and "merge, " in done.output and "keys" in done.output


def test_the_table_of_keys_is_the_schema_s() -> None:
    """After a change of keys: put what `batchrank manual keys` prints between the marks of configs/README.md."""
    shown = PAGES["configs/README.md"].split("<!-- keys -->\n")[1].split("<!-- end of keys -->")[0]
    assert shown == key_table()


def test_the_table_of_keys_is_complete() -> None:
    """Each key once, in order, with a meaning, and with its default where it has one."""
    rows = [line.strip("| ").split(" | ") for line in key_table().splitlines()[2:]]
    assert [row[0].strip("`") for row in rows] == list(key_names())
    assert all(row[-1].endswith(".") for row in rows)
    found = {row[0].strip("`"): row for row in rows}
    assert {"endpoint.wire", "gate.persistence"} <= set(found)
    assert found["gate.persistence"][2] == "`0.9`" and found["input.path"][2] == "required"


def test_a_wheel_is_told_to_hold_the_manual_of_jobs() -> None:
    """Where `manuals` looks for it in an installed package."""
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert wheel["packages"] == ["batchrank"]
    assert wheel["force-include"] == {"configs": "batchrank/configs"}


@pytest.mark.slow
def test_an_installed_wheel_prints_every_manual(tmp_path: Path) -> None:
    """Built as for a release, and used where there is no clone."""
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(tmp_path), str(ROOT)]
    subprocess.run(build, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    for topic in manuals():
        command = [sys.executable, "-m", "batchrank", "manual", topic]
        done = subprocess.run(command, cwd=tmp_path / "site", capture_output=True, check=True, text=True)
        assert done.stdout in PAGES.values()
