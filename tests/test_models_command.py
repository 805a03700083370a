"""``models``: no name is cut, every number has its source; and what the shell completes."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from test_bars import on_a_terminal
from test_cli import batchrank

from batchrank.cli.help import complete_fault, complete_key, complete_model, complete_role
from batchrank.errors import UnknownModelError
from batchrank.job.sections import Columns
from batchrank.models import cards


@pytest.mark.parametrize("columns", [80, 200])
def test_no_name_is_cut_or_folded(tmp_path: Path, columns: int) -> None:
    """On a narrow terminal there are fewer columns, and a word about where the others are."""
    program = "import sys; sys.stdout = sys.stderr; from batchrank.__main__ import main; main()"
    seen, _ = on_a_terminal(tmp_path, "models", columns=columns, program=program)
    lines = re.sub(r"\x1b\[[0-9;]*m", "", seen.decode()).splitlines()
    first = {line.split()[0] for line in lines if line.strip() and not line.startswith(" ")}
    assert set(cards()) <= first and "…" not in seen.decode()
    assert ("batchrank models MODEL" in seen.decode()) == (columns == 80)
    assert all(len(line) <= columns for line in lines)


def test_one_model_is_told_whole_with_its_sources(tmp_path: Path) -> None:
    """For people and for programs; nothing limits where there is null."""
    shown = batchrank("models", "qwen3-rerank", cwd=tmp_path).stdout.decode()
    assert "5,400" in shown and "pricing and rate-limit pages" in " ".join(shown.split())
    found = {one["name"]: one for one in json.loads(batchrank("models", "--json", cwd=tmp_path).stdout)}
    assert set(found) == set(cards()) and found["qwen3-rerank"]["source"] == cards()["qwen3-rerank"].source
    assert found["tei"]["rpm"] is None and found["qwen3-rerank"]["prices"]["beijing"]["text"] == 0.5
    wrong = batchrank("models", "qwen3-rerang", cwd=tmp_path)
    assert wrong.returncode == UnknownModelError.exit_code and b"did you mean 'qwen3-rerank'" in wrong.stderr


def test_every_card_says_where_its_numbers_stand() -> None:
    """So that anybody can look whether they still hold."""
    assert not [name for name, card in cards().items() if card.vendor != "self-hosted" and not card.source]


def test_what_completes() -> None:
    """Keys with what they are for, models, faults and roles, by what they begin with."""
    assert ("rate.rpm=", "Requests a minute that the account may send.") in complete_key("rate.")
    assert not [key for key, _ in complete_key("") if key in ("rate=", "input=")]
    assert complete_key("model=qwen3-re") == [("model=qwen3-rerank", ""), ("model=qwen3-reranker", "")]
    assert set(complete_model("")) == set(cards()) and complete_model("nothing") == []
    assert "503=" in complete_fault("50") and all(name.startswith("50") for name in complete_fault("50"))
    assert complete_role("") == [f"{role}=" for role in Columns.model_fields]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("run x --set budget.max_c", "budget.max_cost="),
        ("init --model gte", "gte-rerank-v2"),
        ("re", "rerank"),
    ],
)
def test_the_shell_is_answered(tmp_path: Path, words: str, expected: str) -> None:
    """As bash asks, by the variables that its completion sets."""
    asked = f"batchrank {words}"
    environ = {
        "_BATCHRANK_COMPLETE": "complete_bash",
        "COMP_WORDS": asked,
        "COMP_CWORD": str(len(asked.split()) - 1),
    }
    command = Path(sys.executable).with_name("batchrank")
    done = subprocess.run(
        [command], cwd=tmp_path, env={**os.environ, **environ}, capture_output=True, text=True
    )
    assert expected in done.stdout.splitlines(), done


def test_help_is_short_to_ask_for(tmp_path: Path) -> None:
    """-h is --help, for every command."""
    for command in ([], ["run"], ["emulate"]):
        short, long = (batchrank(*command, option, cwd=tmp_path) for option in ("-h", "--help"))
        assert short.returncode == 0 and short.stdout == long.stdout and b"Usage" in short.stdout
