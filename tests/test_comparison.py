"""Comparisons: arms of one seed begin alike, each has its own learning rate, finished runs are kept."""

import dataclasses
import json
import os
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tying_agents.config_files import differences_to_config
from tying_agents.many.comparison import make_comparison
from tying_agents.many.one_run import make_one_run
from tying_agents.many.plan import ArmSpec, RunPlan
from tying_agents.many.rates import chosen_learning_rate
from tying_agents.run_config import RunConfig
from tying_agents.settings import ReplayConfig

from tests.run_folders import read
from tests.started import server_pid
from tying_env import EnvConfig
from tying_env import env as env_module
from tying_env.data.windows import ShuffledWindows
from tying_env.files import to_json
from tying_env.reports.comparison import load_comparison
from tying_env.reports.results import results_table
from tying_env.runs import RunDirectory


def arm(label: str, tiny: Any, **changed: Any) -> ArmSpec:
    config = RunConfig(env=EnvConfig(**tiny | {"total_steps": 8}), test_windows=4, **changed)
    return ArmSpec(label, lambda runs, seed: config)


def nothing(done: int, total: int) -> None: ...


def test_arms_of_one_seed_see_the_same_weights_and_batches(
    tmp_path: Path, tiny: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    arms = [arm("a", tiny, agent="albert"), arm("b", tiny, agent="random-static"), arm("c", tiny, agent="random")]
    plan = RunPlan(tmp_path / "out", (0, 1))
    seen: dict[tuple[str, int], list[Any]] = {}
    next_batch, built = ShuffledWindows.next_batch, env_module.LayerTyingEnv._begin
    now: list[tuple[str, int]] = []

    def begin(self: Any, seed: int, *arguments: Any, **settings: Any) -> Any:
        episode = built(self, seed, *arguments, **settings)
        # Blocks that will be tied at the start are compared before by what all have in common: layer 0 and the rest.
        own = [
            p for name, p in episode.trainer.network.model.named_parameters() if ".h." not in name or ".h.0." in name
        ]
        seen[now[-1]] = [torch.cat([p.detach().ravel() for p in own])]
        return episode

    def batch(self: Any) -> Any:
        drawn = next_batch(self)
        seen[now[-1]].append(drawn.copy())
        return drawn

    def carry_out(config: RunConfig, *rest: Any) -> str:
        now.append((str(config.label), config.seed))
        return make_one_run(config, *rest)

    monkeypatch.setattr(env_module.LayerTyingEnv, "_begin", begin)
    monkeypatch.setattr(ShuffledWindows, "next_batch", batch)
    monkeypatch.setattr("tying_agents.many.comparison.make_one_run", carry_out)
    make_comparison(arms, plan, nothing)
    for seed in (0, 1):
        first = seen["a", seed]
        assert len(first) == 1 + 8  # weights, and the batches of eight training steps
        for name in "bc":
            assert len(seen[name, seed]) == len(first)
            assert torch.equal(seen[name, seed][0], first[0])
            for mine, theirs in zip(seen[name, seed][1:], first[1:], strict=True):
                np.testing.assert_array_equal(mine, theirs)
    assert not torch.equal(seen["a", 0][0], seen["a", 1][0])
    assert not np.array_equal(seen["a", 0][1], seen["a", 1][1])


def test_a_comparison_continues_where_it_was(tmp_path: Path, tiny: Any) -> None:
    plan, seen = RunPlan(tmp_path / "out", (0, 1)), []
    arms = [arm("a", tiny, agent="random"), arm("b", tiny, agent="cycle")]
    make_comparison(arms[:1], plan, nothing)
    kept = tmp_path / "out" / "runs" / "a" / "seed0"
    before = (kept / "config.json").stat().st_mtime_ns
    half_made = tmp_path / "out" / "runs" / "b" / "seed1.unfinished"
    half_made.mkdir(parents=True)
    (half_made / "config.json").write_text("{}")
    make_comparison(arms, plan, lambda done, total: seen.append((done, total)))
    assert (kept / "config.json").stat().st_mtime_ns == before
    assert seen[-1] == (4, 4)
    assert (2, 4) in seen
    assert len(read(tmp_path / "out" / "runs" / "b" / "seed1")) == 4
    assert not half_made.exists()


def test_each_arm_gets_its_own_learning_rate_by_validation_alone(tmp_path: Path, tiny: Any) -> None:
    plan = RunPlan(tmp_path / "out", (0,), learning_rates=(1e-5, 3e-2), tuning_seeds=(9,))
    after = dataclasses.replace(arm("b", tiny, agent="albert"), after=("a",))
    make_comparison([arm("a", tiny, agent="conventional"), after], plan, nothing)
    assert chosen_learning_rate("a", plan) == 3e-2
    for folder in (tmp_path / "out" / "tuning").rglob("summary.json"):
        assert json.loads(folder.read_text())["test"] is None
    assert len(list((tmp_path / "out" / "tuning").rglob("summary.json"))) == 4
    for name in "ab":
        final = RunDirectory.open(tmp_path / "out" / "runs" / name / "seed0")
        assert final.read_json("config.json")["env"]["learning_rate"] == chosen_learning_rate(name, plan)
        assert final.read_json("config.json")["label"] == name
        assert final.read_json("summary.json")["test"]["final"]["perplexity"] > 1


def test_an_arm_that_needs_another_comes_after_it(tmp_path: Path, tiny: Any) -> None:
    base = arm("a", tiny, agent="random")

    def configure(runs: Path, seed: int) -> RunConfig:
        layers = read(runs / "a" / f"seed{seed}")[-1]["independent_layers"]
        config = base.configure(runs, seed)
        return dataclasses.replace(config, agent="conventional", env=dataclasses.replace(config.env, n_layer=layers))

    plan = RunPlan(tmp_path / "out", (0, 1))
    make_comparison([base, ArmSpec("b", configure, after=("a",))], plan, nothing)
    for seed in (0, 1):
        layers = read(tmp_path / "out" / "runs" / "a" / f"seed{seed}")[-1]["independent_layers"]
        assert read(tmp_path / "out" / "runs" / "b" / f"seed{seed}")[-1]["independent_layers"] == layers
    with pytest.raises(ValueError, match="the arm 'b' needs the arm 'a' before it"):
        make_comparison([ArmSpec("b", configure, after=("a",))], RunPlan(tmp_path / "x", (0,)), nothing)
    with pytest.raises(ValueError, match="the arm 'a' is there twice"):
        make_comparison([base, base], RunPlan(tmp_path / "x", (0,)), nothing)


def test_a_comparison_can_be_added_to_and_finished_runs_cannot_be_changed(tmp_path: Path, tiny: Any) -> None:
    folder = tmp_path / "out"
    one, two = arm("a", tiny, agent="random"), arm("b", tiny, agent="cycle")
    make_comparison([one], RunPlan(folder, (0,)), nothing)
    before = (folder / "runs" / "a" / "seed0" / "config.json").stat().st_mtime_ns
    make_comparison([two, one], RunPlan(folder, (1, 0)), nothing)  # another arm, another seed, another order
    assert len(list(folder.glob("runs/*/*/summary.json"))) == 4
    assert (folder / "runs" / "a" / "seed0" / "config.json").stat().st_mtime_ns == before
    assert RunDirectory(folder).read_json("comparison.json") == {"arms": ["b", "a"]}
    make_comparison([arm("c", tiny, agent="albert")], RunPlan(folder, (0,)), nothing)
    assert RunDirectory(folder).read_json("comparison.json") == {"arms": ["c", "b", "a"]}
    other = arm("a", {**tiny, "k": 3}, agent="random")
    with pytest.raises(ValueError, match=r"seed0 is a finished run with other settings: env.k is 2 there, 3 here\. Ch"):
        make_comparison([arm("d", tiny, agent="albert"), other], RunPlan(folder, (0,)), nothing)
    assert not (folder / "runs" / "d").exists()
    tuned = RunPlan(tmp_path / "tuned", (0,), (1e-3, 1e-2), (9,))
    make_comparison([one], tuned, nothing)
    with pytest.raises(ValueError, match=r"lr0.001.seed9 is a finished run with other settings: env.k is 2 there, 3"):
        make_comparison([other], dataclasses.replace(tuned, seeds=(1,)), nothing)


def test_runs_of_a_version_that_lacked_a_setting_count_if_it_is_at_its_default(tmp_path: Path) -> None:
    about = json.loads(to_json(dataclasses.asdict(RunConfig())))
    del about["parameter_penalty"], about["env"]["weight_decay"]
    assert differences_to_config(about, RunConfig()) == []
    asked = RunConfig(env=EnvConfig(weight_decay=0.5))
    assert differences_to_config(about, asked) == ["env.weight_decay is 0.01 there, 0.5 here"]
    assert differences_to_config(about, asked, but=("env.weight_decay",)) == []


def test_a_start_that_fails_leaves_no_folder(tmp_path: Path, tiny: Any) -> None:
    replay = arm("a", tiny, agent="replay", controller=ReplayConfig(trace=tmp_path / "none"))
    with pytest.raises(FileNotFoundError, match="there is no trace"):
        make_comparison([arm("b", tiny), replay], RunPlan(tmp_path / "out", (0,)), nothing)
    with pytest.raises(ValueError, match="the arm 'x/y' cannot be a folder"):
        make_comparison([arm("x/y", tiny)], RunPlan(tmp_path / "out", (0,)), nothing)
    assert not (tmp_path / "out").exists()


def test_a_folder_with_something_else_is_refused(tmp_path: Path, tiny: Any) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    with pytest.raises(ValueError, match="is no comparison"):
        make_comparison([arm("a", tiny)], RunPlan(tmp_path / "mine", (0,)), nothing)


def test_a_process_killed_before_it_had_written_anything_leaves_a_folder_that_can_be_used(
    tmp_path: Path, tiny: Any
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "comparison.json.tmp").touch()
    make_comparison([arm("a", tiny)], RunPlan(tmp_path / "out", (0,)), nothing)
    assert (tmp_path / "out" / "comparison.json").is_file()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"seeds": ()}, "seeds must be different"),
        ({"seeds": (1, 1)}, "seeds must be different"),
        ({"learning_rates": (1.0,)}, "needs at least one tuning seed"),
        ({"tuning_seeds": (0,)}, "must be other seeds"),
        ({"jobs": 0}, "jobs must be at least 1, got 0"),
        ({"folder": Path("out"), "backend": "dask"}, "must be an absolute path, got 'out'"),
        ({"jobs": 1, "backend": "ray"}, "jobs must be at least 2 with the backend ray"),
        ({"backend": "threads"}, "backend must be one of loky, ray, dask, got 'threads'"),
    ],
)
def test_wrong_plans_are_refused(tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RunPlan(**{"folder": tmp_path, "seeds": (0, 1)} | settings)


def test_a_cluster_needs_an_address_and_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DASK_SCHEDULER_ADDRESS", raising=False)
    with pytest.raises(ValueError, match="needs a cluster: give its --address, or set DASK_SCHEDULER_ADDRESS"):
        RunPlan(tmp_path, (0,), backend="dask")
    with pytest.raises(ValueError, match="address is for the backends ray and dask, got 'tcp://x:1' with loky"):
        RunPlan(tmp_path, (0,), address="tcp://x:1")
    monkeypatch.setitem(sys.modules, "ray", None)  # as if it were not installed
    with pytest.raises(ImportError, match="needs the package 'ray': pip install ray"):
        RunPlan(tmp_path, (0,), jobs=2, backend="ray", address="auto")


def test_runs_go_to_a_dask_cluster(tmp_path: Path, tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    arms = [arm("a", tiny, agent="random"), arm("b", tiny, agent="dqn")]
    seen = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Dask's own
        import dask
        import distributed

        # The worker is forked from a process that has imported what runs need, and keeps that.
        assert server_pid() != os.getpid()
        monkeypatch.setattr(distributed.utils, "_forkserver_preload_set", True)
        monkeypatch.setitem(dask.config.get("distributed.worker"), "multiprocessing-method", "forkserver")
        with distributed.LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=":0") as cluster:
            plan = RunPlan(tmp_path / "cluster", (0, 1), backend="dask", address=cluster.scheduler_address)
            make_comparison(arms, plan, lambda done, total: seen.append((done, total)))
    make_comparison(arms, RunPlan(tmp_path / "here", (0, 1)), nothing)
    assert seen == sorted(seen)
    assert set(seen) == {(done, 4) for done in range(5)}  # it moves
    for run in (f"runs/{label}/seed{seed}" for label in "ab" for seed in (0, 1)):
        there, here = tmp_path / "cluster" / run, tmp_path / "here" / run
        assert read(there) == read(here)
    # TensorBoard's files say which process wrote them: the worker.
    writers = {path.name.split(".")[-2] for path in tmp_path.glob("cluster/runs/*/*/events*")}
    assert len(writers) == 1 and str(os.getpid()) not in writers
    reports = [load_comparison([tmp_path / name]) for name in ("cluster", "here")]
    assert [len(summary.counted) for summary in reports[0].arms] == [2, 2]
    assert results_table(reports[0]) == results_table(reports[1])
