"""The completion script offers the commands, and each command's options."""

import subprocess

import pytest
from tying_agents.commands import COMMANDS

from tests.command_line import called


@pytest.fixture(scope="module")
def script() -> str:
    done = called("completion", "bash")
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def completed(script: str, *words: str) -> list[str]:
    """Return what bash offers for the last of these words."""
    line = " ".join(f"'{word}'" for word in words)
    asked = f'{script}\nCOMP_WORDS=({line}); COMP_CWORD={len(words) - 1}; _layer_tying; echo "${{COMPREPLY[@]}}"'
    return subprocess.run(["bash", "-c", asked], capture_output=True, text=True, check=True).stdout.split()


def test_commands_are_completed(script: str) -> None:
    assert completed(script, "layer-tying", "") == list(COMMANDS)
    assert completed(script, "layer-tying", "co") == ["compare", "control", "completion"]


def test_options_of_the_command_are_completed(script: str) -> None:
    assert completed(script, "layer-tying", "run", "--warm") == ["--warmup-steps"]
    assert "--learning-rates" in completed(script, "layer-tying", "compare", "--learning")
    assert completed(script, "layer-tying", "report", "--warm") == []
