"""Every file, Python block and command on the pages about controllers, rewards and callbacks works, at small sizes."""

import re
import shlex
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest

from tests.fake_trackers import FakeMlflow, FakeTrackio, FakeWandb
from tests.own_code import forget, layer_tying
from tests.own_code import small as small_options
from tying_env.reports import html
from tying_env.runs import RunDirectory

DOORS = Path(__file__).parents[1] / "docs" / "doors"
PAGES = ("controller.md", "reward.md", "callback.md")
# Commands of others that a reader is told of.
OTHERS = ("pip", "wandb", "mlflow", "trackio", "tensorboard")


def blocks(page: str) -> list[tuple[str, str]]:
    """Return (language, text) of every fenced block."""
    return re.findall(r"^```(\w+)\n(.*?)^```", (DOORS / page).read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def shown_file(text: str) -> str | None:
    """Return the name in a block's first line, if that is one."""
    named = re.match(r"# (\S+\.\w+)\n", text)
    return named and named.group(1)


def small_words(words: list[str], text_folder: Path) -> list[str]:
    """Return a command's words at a size that takes a second, with a perplexity that stays as it is."""
    if "--resume" in words or "--help" in words:
        return words
    if words[1] == "control":
        return [*words, "--layers", "3", "--marks", "5", "--seeds", "1"]
    words = [*words, *small_options(text_folder)]
    if words[1] == "compare":
        return [*words, "--seeds", "1", "--jobs", "1"]
    return [*words, "--learning-rate", "1e-6"]


@pytest.mark.parametrize("page", PAGES)
def test_files_examples_and_commands_of_a_page_work_in_their_order(
    page: str,
    text_folder: Path,
    tmp_path: Path,
    tiny: dict[str, Any],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(gym.spec("LayerTying-GPT2-v0"), "kwargs", tiny)
    monkeypatch.setattr(html, "run_pictures", lambda *_: [])  # tests/test_reports_page.py has them
    for fake in (FakeWandb(), FakeMlflow(), FakeTrackio()):
        monkeypatch.setitem(sys.modules, fake.__name__, fake)
    forget()
    tried = 0
    for language, text in blocks(page):
        if name := shown_file(text):
            Path(name).write_text(text, encoding="utf-8")
        if language == "python":
            exec(compile(text, name or page, "exec"), {"__name__": "example"})
            tried += 1
        for line in text.splitlines() if language == "bash" else ():
            words = shlex.split(line, comments=True)
            if not words or words[0] in OTHERS:
                continue
            assert words[0] == "layer-tying", f"{page}: nobody runs {line!r}"
            code, out = layer_tying(capsys, words[1], *small_words(words, text_folder)[2:])
            assert code == 0, f"{line}\n{out}"
            tried += 1
    assert tried >= 4


def test_the_flat_run_of_the_page_is_stopped_with_its_reason(
    text_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    [source] = [text for _, text in blocks("callback.md") if shown_file(text) == "stop_when_flat.py"]
    Path("stop_when_flat.py").write_text(source, encoding="utf-8")
    forget()
    command = "layer-tying run --agent dqn --callbacks stop_when_flat.py:StopWhenFlat --run-dir run"
    code, out = layer_tying(capsys, "run", *small_words(command.split(), text_folder)[2:], "--total-steps", "40")
    assert code == 0, out
    assert re.search(r"stopped: no better than \d+\.\d for three measurements", out)
    # It knows from the run's own record that it has waited long enough: one more measurement, and it stops again.
    code, out = layer_tying(capsys, "run", "--resume", "run", "--callbacks", "stop_when_flat.py:StopWhenFlat")
    assert "stopped: no better than" in out
    assert RunDirectory.open(Path("run")).read_json("summary.json")["train_step"] == 20


def test_the_script_of_the_page_runs(
    text_folder: Path, tmp_path: Path, tiny: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    from tying_env import EnvConfig

    [source] = [text for _, text in blocks("callback.md") if shown_file(text) == "my_script.py"]
    names: dict[str, Any] = {}
    exec(compile(source, "my_script.py", "exec"), names)
    names["main"](run_dir=tmp_path / "run", env=EnvConfig(**tiny), test_windows=4)
    assert len(capsys.readouterr().out.splitlines()) == 1, "the fifth of nine decisions"


def test_the_controller_of_the_page_has_at_most_25_lines() -> None:
    [source] = [text for _, text in blocks("controller.md") if shown_file(text) == "my_controller.py"]
    assert len(source.splitlines()) <= 25
