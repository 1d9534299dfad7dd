"""What becomes of a command whose output, or whose terminal, goes away; and of a ~ in its options."""

import io
import os
import signal
import sys

import pytest
from tying_agents.commands import _with_homes, start
from tying_agents.commands.output import lasting_output
from tying_agents.stopping import StopSignals


def stdout_is(stream: io.TextIOWrapper, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setattr(sys, "__stdout__", stream)


def test_a_closed_pipe_is_said_once_and_the_work_goes_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    stream = os.fdopen(writing, "w", encoding="utf-8")
    stdout_is(stream, monkeypatch)
    with lasting_output():
        for _ in range(3):
            print("a line", flush=True)
    assert sys.stdout is stream
    stream.close()
    assert capsys.readouterr().err.count("standard output cannot be written ([Errno 32] Broken pipe)") == 1


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_is_said_too(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with open("/dev/full", "w", encoding="utf-8") as stream:
        stdout_is(stream, monkeypatch)
        with lasting_output():
            print("a line")  # in the buffer until the end
    assert "No space left on device" in capsys.readouterr().err


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
@pytest.mark.parametrize(
    ("command", "words", "code"),
    [("completion", ["bash"], 1), ("run", ["--print-config"], 1), ("studies", [], 0)],
    ids=["completion", "settings", "a list"],
)
def test_a_result_that_is_lost_is_no_success(
    command: str, words: list[str], code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with open("/dev/full", "w", encoding="utf-8") as stream:
        stdout_is(stream, monkeypatch)
        assert start(command, words) == code
    assert "No space left on device" in capsys.readouterr().err


def test_a_reader_that_has_had_enough_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w", encoding="utf-8") as stream:
        stdout_is(stream, monkeypatch)
        assert start("completion", ["bash"]) == 0


def test_what_an_encoding_lacks_is_a_question_mark(monkeypatch: pytest.MonkeyPatch) -> None:
    held = io.BytesIO()
    stream = io.TextIOWrapper(held, encoding="ascii")
    stdout_is(stream, monkeypatch)
    with lasting_output():
        print("step 1 · ppl 2")
    assert held.getvalue() == b"step 1 ? ppl 2\n"
    assert stream.errors == "strict"


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="there is no SIGHUP")
def test_a_terminal_that_goes_away_asks_to_stop_unless_that_is_ignored() -> None:
    said: list[str] = []
    former = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests themselves may run under nohup
    try:
        with StopSignals(said.append) as signals:
            signal.raise_signal(signal.SIGHUP)
            signal.raise_signal(signal.SIGHUP)  # once more from the shell
            assert signals.should_stop()
            assert signals.asked is signal.SIGTERM
        assert said == ["SIGHUP: finishing this training step, then saving. Once more ends at once."]
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # what nohup does
        with StopSignals(said.append) as signals:
            signal.raise_signal(signal.SIGHUP)
            assert not signals.should_stop()
    finally:
        signal.signal(signal.SIGHUP, former)


def test_a_home_folder_behind_an_equals_sign_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    assert _with_homes(["--out=~/x", "--out=~", "--prompt=~/x", "--learning-rate=~1", "run"]) == [
        *("--out=/home/someone/x", "--out=/home/someone", "--prompt=~/x", "--learning-rate=~1", "run")
    ]


def test_a_home_folder_in_quotes_is_found_but_not_in_a_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    assert _with_homes(["~/x", "~", "~y", "a~/x", "--out", "~/x", "--prompt", "~/x", "--label", "~/x"]) == [
        *("/home/someone/x", "/home/someone", "~y", "a~/x", "--out", "/home/someone/x"),
        *("--prompt", "~/x", "--label", "~/x"),
    ]
