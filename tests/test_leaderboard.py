"""The leaderboard: all agents, settings fixed beforehand, every corpus, one page and one figure."""

from pathlib import Path

import pytest
from tying_agents.commands.leaderboard import main as leaderboard
from tying_agents.contest.entries import ENTRIES, entry_of
from tying_agents.contest.leaderboard import Board, as_html, as_markdown, draw, paragraphs
from tying_agents.contest.runs import Task, play
from tying_agents.contest.standings import Mean, Standing
from tying_agents.registry import agent_names

from tests.own_code import write
from tests.tables import written
from tests.test_contest import LOOKING, OF_SUBLAYERS, OWN


def board() -> Board:
    regret = {5: Mean(0.5, 0.1), 10: Mean(0.25, 0.05)}
    random = Standing("random", 500, regret, 0.02)
    dqn = Standing("dqn", 500, {5: None, 10: Mean(0.125, 0.02)}, 36.0)
    return Board(
        (entry_of("random"), entry_of("dqn")), {"sotu": [dqn, random], "b": [random]}, 500, 96, "Of a table.", "make it"
    )


def test_every_agent_that_searches_has_an_entry() -> None:
    own = {entry.agent for entry in ENTRIES.values()}
    # "pretrained-dqn" has seen the table.
    assert own == set(agent_names()) - {"pattern", "replay", "pretrained-dqn", *LOOKING, *OF_SUBLAYERS}
    assert entry_of("dqn-bandit").arm().settings.gamma == 0


@pytest.mark.parametrize(
    "name", [*("thompson", "halving", "halving-short", "change-little", "mcts"), "hill-climbing", "random-redrawn"]
)
def test_what_searches_can_find_something_else_than_it_begins_with(name: str, tmp_path: Path) -> None:
    found = [play(entry_of(name).arm(), Task(table=written(tmp_path)), seed).regret for seed in range(4)]
    assert len({value for regret in found for value in regret.values()}) > 4


@pytest.mark.usefixtures("figures")
def test_the_page_has_regrets_steps_settings_and_cost() -> None:
    text = as_markdown(board())
    assert "| after 5 (480 steps) | after 10 (960 steps) |" in text
    assert "| dqn | 500 | none yet | 0.125 ± 0.020 | 36 |" in text
    assert "## b: mean regret, with the settings chosen on sotu" in text
    assert "gamma 0.99" in text and "![Mean regret" in text and "make it" in text
    assert "5.0 hours of CPU time; the slowest agent is dqn, 36 s" in paragraphs(board())[-1]
    page = as_html(board(), draw(board()))
    assert "0.125 ± 0.020" in page and "data:image/svg+xml" in page


def test_the_figure_has_chance_in_every_panel_and_cuts_nothing_off() -> None:
    figure = draw(board())
    panels = figure.axes
    assert [axes.get_title() for axes in panels] == ["sotu: learning", "b: learning"]
    lines = {line.get_label(): line.get_ydata() for line in panels[0].lines}
    assert list(lines["random"]) == [0.5, 0.25] and list(lines["dqn"]) == [0.125]
    assert [line.get_label() for line in panels[1].lines] == ["random"]
    assert panels[0].get_ylim()[0] == 0 and panels[0].get_ylim()[1] > 0.6


def test_the_command_makes_it_and_resumes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table, own = written(tmp_path), write(tmp_path, "mine.py", OWN)
    words = ["--table", str(table), "--agents", "random", f"{own}:Mine", "--seeds", "2", "--trainings", "5"]
    words += ["--jobs", "1", "--out", str(tmp_path / "out")]
    assert leaderboard(words) == 0
    assert "searches 8/8" in capsys.readouterr().out  # two corpora
    first = (tmp_path / "out/leaderboard.md").read_text()
    assert "## sotu: mean regret, where settings were chosen" in first and "| Mine | 2 |" in first
    assert " on sotu (3 seeds) and " in first and " on other (3 seeds) apart." in first
    assert (tmp_path / "out/leaderboard.png").stat().st_size > 10_000
    runs = (tmp_path / "out/runs.jsonl").read_text()
    assert leaderboard([*words, "--pages", str(tmp_path / "pages")]) == 0
    assert (tmp_path / "out/runs.jsonl").read_text() == runs
    assert (tmp_path / "pages/leaderboard.html").exists()
    limited = ["--objective", "limited", "--max-parameters", "1500", "--corpora", "other"]
    assert leaderboard([*words, *limited]) == 0
    page = (tmp_path / "out/leaderboard.md").read_text()
    assert "the lowest perplexity with at most 1,500 parameters." in page and "## sotu" not in page
    regret = page.split("| Mine | 2 | ")[1].split(" |")[0]
    assert regret == "0.000 ± 0.000"  # all layers tied, which is all that the limit allows


def test_chance_alone_makes_a_leaderboard_as_well(tmp_path: Path) -> None:
    words = ["--table", str(written(tmp_path)), "--agents", "random", "--seeds", "2", "--trainings", "5", "--jobs", "1"]
    assert leaderboard([*words, "--out", str(tmp_path / "out")]) == 0
    assert "| random | 2 |" in (tmp_path / "out/leaderboard.md").read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--agents", "rnadom"], "did you mean 'random'?"),
        (["--objective", "limited"], "max_parameters goes with objective='limited'"),
        (["--corpora", "bible"], "corpus must be one of 'other', 'sotu', got 'bible'"),
    ],
)
def test_wrong_options_are_named(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert leaderboard(["--table", str(written(tmp_path)), "--out", str(tmp_path / "out"), *words]) == 1
    assert message in " ".join(capsys.readouterr().out.split())
    assert not (tmp_path / "out").exists()


def test_one_seed_gives_no_interval_and_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        leaderboard(["--seeds", "1"])
    assert "seeds must be at least 2, got 1" in " ".join(capsys.readouterr().err.split())
