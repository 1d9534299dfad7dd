"""Run directories that earlier versions left stay readable, and are resumed."""

import json
import shutil
from pathlib import Path

import pytest
from tying_agents.config_files import saved_config
from tying_agents.run_config import RunConfig
from tying_agents.running.runner import resume, run
from tying_agents.settings import DQNConfig, ReplayConfig

from tying_env.reports.loading import load_run as load_for_report
from tying_env.reports.summary import summary_rows
from tying_env.runs import RunDirectory, load_run
from tying_env.runs.layouts import LAYOUT, modern

LAYOUTS = Path(__file__).parent / "old_runs"
OLD = LAYOUTS / "layout_1"


@pytest.fixture(params=sorted(path.name for path in LAYOUTS.iterdir() if path.is_dir()))
def kept(request: pytest.FixtureRequest) -> Path:
    """Return the folder of the runs of a layout."""
    return LAYOUTS / str(request.param)


def test_there_is_a_run_of_every_layout() -> None:
    assert sorted(path.name for path in LAYOUTS.glob("layout_*")) == [f"layout_{n}" for n in range(1, LAYOUT + 1)]


def test_a_run_of_every_layout_has_the_settings_it_had(kept: Path) -> None:
    config = saved_config(RunDirectory.open(kept / "finished").read_json("config.json"))
    assert (config.agent, config.seed, config.env.n_layer, config.env.k) == ("dqn", 1, 3, 2)
    assert config.controller == DQNConfig(gamma=0.5)
    assert (config.wrappers, config.callbacks) == ((), ())


def test_a_run_of_every_layout_is_reported_summed_up_and_its_network_read(kept: Path) -> None:
    read = load_for_report(kept / "finished")
    assert read.config["controller"]["gamma"] == 0.5
    assert len(read.records) == 5
    assert dict(summary_rows(RunDirectory.open(kept / "finished")))["run"] == "dqn, seed 1, finished"
    assert load_run(kept / "finished").tying.tolist() == read.records[-1]["tying"]


def test_a_run_of_every_layout_that_was_stopped_is_resumed_to_what_it_would_have_come_to(
    kept: Path, tmp_path: Path
) -> None:
    path = Path(shutil.copytree(kept / "stopped", tmp_path / "run"))
    assert resume(path)[1] == "finished"
    theirs, ours = RunDirectory.open(kept / "finished").read_metrics(), RunDirectory.open(path).read_metrics()
    assert [record["tying"] for record in ours] == [record["tying"] for record in theirs]
    for mine, old in zip(ours, theirs, strict=True):
        # Another processor rounds otherwise.
        assert mine["train_loss"] == pytest.approx(old["train_loss"], rel=1e-4)
        assert old.keys() <= mine.keys()


def test_the_same_settings_give_what_they_gave_then(kept: Path, tmp_path: Path) -> None:
    config = saved_config(RunDirectory.open(kept / "finished").read_json("config.json"))
    directory, status = run(RunConfig(**vars(config) | {"run_dir": tmp_path / "again"}))
    assert status == "finished"
    theirs = RunDirectory.open(kept / "finished").read_metrics()
    for mine, old in zip(directory.read_metrics(), theirs, strict=True):
        assert (mine["tying"], mine["action"]) == (old["tying"], old["action"])
        assert mine["perplexity"] == pytest.approx(old["perplexity"], rel=1e-4)


def test_what_an_agent_did_not_take_is_dropped_and_what_it_took_is_kept() -> None:
    about = json.loads((OLD / "finished" / "config.json").read_text())
    about |= {"agent": "replay", "pattern": about["pattern"] | {"trace": "runs/one", "final": True}}
    assert saved_config(about).controller == ReplayConfig(trace=Path("runs/one"), final=True)
    about["agent"] = "cycle"
    assert modern(about)["controller"] == {}


def test_a_setting_of_a_later_version_is_named() -> None:
    about = json.loads((LAYOUTS / "layout_2" / "finished" / "config.json").read_text())
    assert modern(about) == about
    with pytest.raises(ValueError, match=r"its setting env.brand_new is not known to this version.* a later version"):
        modern(about | {"env": about["env"] | {"brand_new": 7}})


def test_a_run_of_a_later_version_is_refused_by_its_layout() -> None:
    about = json.loads((OLD / "finished" / "config.json").read_text())
    with pytest.raises(ValueError, match=f"layout of its settings is {LAYOUT + 1}, and this version reads up to"):
        saved_config(about | {"layout": LAYOUT + 1})


def test_settings_that_a_run_lacks_have_their_defaults() -> None:
    about = json.loads((OLD / "finished" / "config.json").read_text())
    del about["env"]["prefetch"], about["checkpoint_every"]
    assert saved_config(about).env.prefetch is False
    assert saved_config(about).checkpoint_every == RunConfig.checkpoint_every
