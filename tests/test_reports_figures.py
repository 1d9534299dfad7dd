import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from tying_agents.controllers.traces import read_trace
from tying_agents.run_config import RunConfig
from tying_agents.running.runner import run as make_real_run

from tests.run_folders import change, make_arms, make_records, make_run
from tying_env import EnvConfig
from tying_env.env import LayerTyingEnv
from tying_env.reports import figures, learned, pareto, run_figures
from tying_env.reports.comparison import load_comparison
from tying_env.reports.drawing import COLOURS, arm_styles, as_png, as_svg, new_axes, save_figure
from tying_env.reports.gallery import comparison_pictures, run_pictures
from tying_env.reports.loading import Run, load_run
from tying_env.runs import save_network

OF_A_RUN: list[Callable[[Run], Figure]] = [
    run_figures.replication_map,
    run_figures.tying_events,
    run_figures.trainable_steps,
    run_figures.tying_raster,
    run_figures.memory_over_time,
]


def drawn(figure: Figure) -> str:
    """The text of everything drawn."""
    as_png(figure, dpi=40)  # lays it out: a warning is an error
    artists: Any = figure.findobj(lambda artist: hasattr(artist, "get_text"))
    return " | ".join(artist.get_text() for artist in artists)


def saved_run(path: Path, env: LayerTyingEnv, tying: list[int]) -> Run:
    """A run with the network of an environment, trained a little under one tying."""
    env.reset(seed=0, options={"tying": tying})
    env.step(np.array(tying))
    make_run(path)
    save_network(path / "final.safetensors", env.trainer, env.config, env.workload.sizes)
    return load_run(path)


@pytest.mark.parametrize("draw", OF_A_RUN)
@pytest.mark.parametrize(("n_layer", "decisions"), [(1, 1), (4, 1), (6, 120), (48, 30)])
def test_every_figure_of_a_run_can_be_drawn(
    tmp_path: Path, draw: Callable[[Run], Figure], n_layer: int, decisions: int
) -> None:
    records = make_records(decisions, n_layer, 0)
    run = load_run(make_run(tmp_path / "run", env={"n_layer": n_layer}, records=records))
    axes = draw(run).axes[-1]
    assert drawn(axes.figure)  # type: ignore[arg-type]
    assert axes.get_xlabel() or axes.get_ylabel()


@pytest.mark.parametrize("draw", OF_A_RUN)
def test_a_run_without_decisions_is_an_error_that_says_so(tmp_path: Path, draw: Callable[[Run], Figure]) -> None:
    run = load_run(make_run(tmp_path / "run", records=[], status=None))
    with pytest.raises(ValueError, match="no decision yet"):
        draw(run)


def test_steps_as_leader_count_training_steps_not_decisions(tmp_path: Path) -> None:
    records = make_records(3, 3, 0)
    for record, tying, step in zip(records, ([0, 1, 0], [0, 0, 2], [0, 1, 2]), (5, 10, 12), strict=True):
        record |= {"tying": tying, "train_step": step}
    settings = {"n_layer": 3, "k": 5, "total_steps": 12}
    run = load_run(make_run(tmp_path / "static", env=settings, records=records))
    assert run_figures.steps_as_leader(run).tolist() == [12, 7, 7]  # began with its first tying
    for record, step in zip(records, (10, 15, 17), strict=True):
        record |= {"train_step": step}
    settings["total_steps"] = 17
    run = load_run(make_run(tmp_path / "frozen", env={**settings, "freeze_at_start": True}, records=records))
    assert run_figures.steps_as_leader(run).tolist() == [17, 7, 7]  # five steps of layer 0 alone come first
    run = load_run(make_run(tmp_path / "free", env={**settings, "freeze_at_start": False}, records=records))
    assert run_figures.steps_as_leader(run).tolist() == [17, 12, 12]
    copied = {**settings, "freeze_at_start": True, "replication": "copied"}
    run = load_run(make_run(tmp_path / "copied", env=copied, records=records))
    assert run_figures.steps_as_leader(run).tolist() == [17, 12, 12]
    with pytest.raises(ValueError, match="copied, not tied"):
        run_figures.replication_map(run)


def test_the_frozen_start_of_a_real_run_is_counted_where_it_was(tmp_path: Path, tiny: Any) -> None:
    settings = EnvConfig(**tiny | {"k": 2, "total_steps": 20})
    config = RunConfig(agent="random", seed=3, env=settings, run_dir=tmp_path / "run", measure_test=False)
    directory, _ = make_real_run(config)
    run = load_run(directory.path)
    changes = read_trace(directory.path)
    expected = np.array([2, 0, 0, 0])
    for tying in changes.tyings:
        expected += 2 * (tying == np.arange(4))
    assert run.frozen_steps == 2
    assert run_figures.steps_as_leader(run).tolist() == expected.tolist()
    assert expected[0] == 20


def test_the_figures_show_what_chance_gives(tmp_path: Path) -> None:
    run = load_run(make_run(tmp_path / "run", env={"n_layer": 12}, records=make_records(9, 12, 0)))
    assert "random actions: 3.10" in drawn(run_figures.tying_raster(run))
    assert "untied, random actions (1.54)" in drawn(run_figures.tying_events(run))
    assert "random actions" in drawn(run_figures.trainable_steps(run))


def test_the_most_frequent_leaders_can_be_told_apart_and_have_a_legend(tmp_path: Path) -> None:
    run = load_run(make_run(tmp_path / "run", env={"n_layer": 48}, records=make_records(30, 48, 0)))
    figure = run_figures.tying_raster(run)
    (image,) = figure.axes[0].get_images()
    colours = [to_hex(colour).upper() for colour in image.get_cmap()(np.arange(48))]
    tyings = np.array(run.column("tying"))
    frequent = np.argsort(-np.bincount(tyings.ravel()), kind="stable")[:7]
    assert len({colours[i] for i in frequent}) == 7
    assert {colours[i] for i in frequent} <= set(COLOURS)
    greys = [colours[i][1:] for i in range(48) if i not in frequent]
    assert all(grey[:2] == grey[2:4] == grey[4:] for grey in greys)
    text = drawn(figure)
    for i in frequent:
        assert f"{i} ({np.mean(tyings == i):.0%})" in text
    assert f"{len(np.unique(tyings)) - 7} others" in text
    few = drawn(run_figures.tying_raster(load_run(make_run(tmp_path / "few", records=make_records(9, 4, 0)))))
    assert "its leader" in few and "others" not in few


def test_a_validation_curve_has_a_point_for_each_measurement(tmp_path: Path) -> None:
    run = load_run(make_run(tmp_path / "run"))  # measured every 4 of 20 steps, two steps a decision
    points, values = figures.validation_curve(run)
    assert points.tolist() == [4, 8, 12, 16, 20]
    assert values.tolist() == [100, 50, 100 / 3, 25, 20]
    assert figures.validation_curve(run, "tokens")[0].tolist() == [256, 512, 768, 1024, 1280]
    never = load_run(make_run(tmp_path / "never", env={"validate_every": 0}))
    assert len(figures.validation_curve(never)[0]) == 0


def test_the_end_of_a_diverged_run_is_no_measurement(tmp_path: Path) -> None:
    records = make_records(4, 4, 0)
    records[-1] |= {"diverged": True}
    run = load_run(make_run(tmp_path / "run", records=records, status="diverged"))
    assert figures.validation_curve(run)[0].tolist() == [4]


def test_learning_curves_name_arms_and_seeds(tmp_path: Path) -> None:
    make_arms(tmp_path)
    make_run(tmp_path / "x", "dqn", 6, status="diverged", records=make_records(5, 4, 6))
    arms = [summary.arm for summary in load_comparison([tmp_path]).arms]
    text = drawn(figures.learning_curves(arms))
    assert "dqn (n = 6)" in text and "random (n = 6)" in text
    assert "training step" in text
    assert "tokens" in drawn(figures.learning_curves(arms, "tokens"))


def test_wide_intervals_of_few_seeds_leave_the_curves_their_room(tmp_path: Path) -> None:
    for seed in range(3):
        records = make_records(10, 4, 0)
        for record in records[1:]:
            record["validation_perplexity"] = 10.0 + seed
        make_run(tmp_path / str(seed), "dqn", seed, records=records, perplexity=10.0 + seed)
    found = load_comparison([tmp_path])
    assert figures.results_by_arm(found).axes[0].get_xlim() == pytest.approx((9.9, 12.1))
    for figure in (figures.learning_curves([found.arms[0].arm]), pareto.pareto(found)):
        assert figure.axes[0].get_ylim() == pytest.approx((9.9, 12.1))
    interval = found.arms[0].interval
    assert interval is not None and interval.low < 9 < 13 < interval.high


def test_long_names_of_arms_leave_room_for_the_axes(tmp_path: Path) -> None:
    make_run(tmp_path / "a", "dqn")
    make_run(tmp_path / "b", "dqn", env={"n_layer": 6, "learning_rate": 0.0003, "total_steps": 40, "batch_size": 64})
    comparison = load_comparison([tmp_path])
    arms = [summary.arm for summary in comparison.arms]
    for figure in (
        figures.learning_curves(arms),
        pareto.pareto(comparison),
        figures.training_speed(arms),
        figures.results_by_arm(comparison),
    ):
        assert drawn(figure)
        assert figure.axes[0].get_position().width > 0.5


def test_without_validation_there_are_no_learning_curves(tmp_path: Path) -> None:
    make_run(tmp_path / "run", env={"validate_every": 0})
    pictures = comparison_pictures(load_comparison([tmp_path]))
    assert pictures[0].figure is None
    assert "validate_every is 0" in pictures[0].problem
    assert all(picture.figure is not None for picture in pictures[1:])


def test_the_cost_of_change_stands_against_all_events_of_a_run(tmp_path: Path) -> None:
    make_arms(tmp_path)
    comparison = load_comparison([tmp_path])
    figure = figures.cost_of_change(comparison)
    run = comparison.arms[0].counted[0]
    events = sum(record["tied_events"] + record["untied_events"] for record in run.records)
    assert events > 0
    assert events in [x for line in figure.axes[0].lines for x in np.atleast_1d(line.get_xdata()).tolist()]
    assert "groups)" in drawn(figure)


def test_bits_per_byte_stand_against_the_bytes_of_the_network(tmp_path: Path) -> None:
    make_arms(tmp_path)
    assert "pareto-bytes" not in [picture.name for picture in comparison_pictures(load_comparison([tmp_path]))]
    for seed in range(6):
        for agent, size in (("random", 40_000 + seed), ("dqn", 30_000)):
            change(tmp_path / agent / str(seed), "summary.json", packed={"bits": 6, "bytes": size})
            change(tmp_path / agent / str(seed), "config.json", rewards=["max-bytes"], max_bytes=35_000)
    found = load_comparison([tmp_path])
    figure = pareto.pareto_bytes(found)
    text = drawn(figure)
    assert "6 bits a weight" in text and "limit: 35,000 bytes" in text and "bits per byte (bits/byte)" in text
    points = {
        (round(x, 3), round(y, 3))
        for line in figure.axes[0].lines
        for x, y in zip(np.atleast_1d(line.get_xdata()), np.atleast_1d(line.get_ydata()), strict=True)
    }
    assert {(40.005, 3.0), (30.0, 1.82)} <= points  # one run of each: perplexities of 15 and 9.1, of a fifth the bits
    assert "pareto-bytes" in [picture.name for picture in comparison_pictures(found)]
    # Without a limit runs count in 8 bits, and know the others.
    by_bits = {"8": 31_000, "6": 30_000, "4": 29_000}
    for seed in range(6):
        change(tmp_path / f"dqn/{seed}", "summary.json", packed={"bits": 8, "bytes": 31_000, "bytes_by_bits": by_bits})
        change(tmp_path / f"dqn/{seed}", "config.json", rewards=[])
    again = pareto.pareto_bytes(load_comparison([tmp_path]))
    assert "6 bits a weight" in drawn(again)
    assert 30.0 in {round(float(x), 3) for line in again.axes[0].lines for x in np.atleast_1d(line.get_xdata())}
    change(tmp_path / "dqn/3", "summary.json", packed={"bits": 8, "bytes": 30_000})
    with pytest.raises(ValueError, match="in the same bits a weight"):
        pareto.pareto_bytes(load_comparison([tmp_path]))


def test_the_pareto_front_keeps_what_is_not_beaten() -> None:
    points = [(1.0, 9.0), (2.0, 5.0), (3.0, 7.0), (3.0, 5.0), (4.0, 1.0), (1.0, 9.5)]
    assert pareto.pareto_front(points) == [(1.0, 9.0), (2.0, 5.0), (4.0, 1.0)]


def test_one_seed_can_be_drawn(tmp_path: Path) -> None:
    comparison = load_comparison([make_run(tmp_path / "run")])
    for picture in comparison_pictures(comparison):
        assert picture.figure is not None
        assert drawn(picture.figure)


def test_correlations_are_those_of_the_feed_forward_weights(tmp_path: Path, env: LayerTyingEnv) -> None:
    run = saved_run(tmp_path / "run", env, [0, 1, 0, 3])
    layers, correlations = run_figures.correlate_feed_forward(run)
    mlps: list[Any] = [env.trainer.network.blocks[i].mlp for i in (0, 1, 3)]
    rows = [np.concatenate([m.c_fc.weight.detach().ravel(), m.c_proj.weight.detach().ravel()]) for m in mlps]
    assert layers == [0, 1, 3]
    np.testing.assert_allclose(correlations, np.corrcoef(rows), atol=1e-6)
    assert "Pearson" in drawn(run_figures.feed_forward_correlations(run))


def test_near_copies_show_how_far_they_are_apart(tmp_path: Path, env: LayerTyingEnv) -> None:
    env.reset(seed=0, options={"tying": [0, 0, 0, 0]})
    env.step(np.array([0, 0, 0, 3]))  # layer 3 is a copy of layer 0 and drifts from it for a few steps
    make_run(tmp_path / "run")
    save_network(tmp_path / "run" / "final.safetensors", env.trainer, env.config, env.workload.sizes)
    run = load_run(tmp_path / "run")
    _, correlations = run_figures.correlate_feed_forward(run)
    assert 0.99 < correlations[0, 1] < 1
    figure = run_figures.feed_forward_correlations(run)
    text = drawn(figure)
    assert f"{1 - correlations[0, 1]:.1e}" in text and "1 - Pearson's r" in text
    assert "1.000" not in text
    box = figure.axes[0].get_position()
    bar = figure.axes[1].get_position()
    assert abs(box.x0 - (1 - bar.x1)) < 0.12  # as much room left of it as right
    with torch.no_grad():  # equal to the last bit
        for one, other in zip(*(env.trainer.network.blocks[i].parameters() for i in (0, 3)), strict=True):
            other.copy_(one)
    save_network(tmp_path / "run" / "final.safetensors", env.trainer, env.config, env.workload.sizes)
    assert drawn(run_figures.feed_forward_correlations(run))


def test_correlations_say_why_there_are_none(tmp_path: Path, env: LayerTyingEnv) -> None:
    run = saved_run(tmp_path / "tied", env, [0, 0, 0, 0])
    with pytest.raises(ValueError, match="one independent layer"):
        run_figures.feed_forward_correlations(run)
    with pytest.raises(ValueError, match="larger than"):
        run_figures.feed_forward_correlations(run, max_bytes=100)
    broken = saved_run(tmp_path / "broken", env, [0, 1, 2, 3])
    next(env.trainer.network.blocks[1].mlp.parameters()).data.fill_(float("nan"))  # type: ignore[union-attr]
    save_network(broken.path / "final.safetensors", env.trainer, env.config, env.workload.sizes)
    with pytest.raises(ValueError, match="not finite"):
        run_figures.feed_forward_correlations(broken)
    without = load_run(make_run(tmp_path / "without"))
    assert "no network file" in run_pictures(without, "a/b c")[-1].problem


def test_names_of_pictures_fit_files(tmp_path: Path) -> None:
    names = [picture.name for picture in run_pictures(load_run(make_run(tmp_path / "run")), "arm1-dqn/../x y")]
    assert names[0] == "arm1-dqn-..-x-y-replication-map"
    assert len(set(names)) == len(names)


def test_arms_look_different_and_always_the_same() -> None:
    labels = [f"arm {i}" for i in range(30)]
    styles = arm_styles(labels)
    assert len(set(styles.values())) == 30
    assert arm_styles(labels) == styles
    assert styles["arm 0"].colour == COLOURS[0]


def test_equal_figures_are_equal_files(tmp_path: Path) -> None:
    run = load_run(make_run(tmp_path / "run"))
    for write in (as_svg, as_png):
        assert write(run_figures.tying_raster(run)) == write(run_figures.tying_raster(run))


def test_figures_are_saved_as_png_and_svg(tmp_path: Path) -> None:
    figure, _ = new_axes("Title", "x (m)", "y (s)")
    paths = save_figure(figure, tmp_path / "new" / "folder", "name")
    assert [path.name for path in paths] == ["name.png", "name.svg"]
    assert paths[0].read_bytes().startswith(b"\x89PNG")
    assert b"<svg" in paths[1].read_bytes()


def test_records_here_have_the_keys_of_real_ones(tmp_path: Path, env: LayerTyingEnv) -> None:
    _, info = env.reset(seed=0)
    record = json.loads((make_run(tmp_path / "run") / "metrics.jsonl").read_text().splitlines()[0])
    memory = {f"{kind}_bytes" for kind in env.trainer.memory_in_training._asdict()}
    assert set(record) <= set(info) | memory | {"decision"}


def test_how_a_run_trained_is_drawn_against_training_steps(tmp_path: Path) -> None:
    records = make_records(3, 4, 0)
    curves = {"learning_rate": [1e-3, 5e-4, 0.0], "gradient_norm": [0.5, None, 0.25], "reward": [-9.0, -8.0, -9.5]}
    for i, record in enumerate(records):
        record |= {name: values[i] for name, values in curves.items()}
    run = load_run(make_run(tmp_path / "run", records=records))
    figure = learned.training(run)
    for axes, name in zip(figure.axes, curves, strict=True):
        (line,) = axes.get_lines()
        expected = np.array(curves[name], dtype=np.float64)  # null, not finite, is left out
        np.testing.assert_array_equal(line.get_xydata(), np.stack([[2, 4, 6], expected], axis=1))
    text = drawn(figure)
    assert all(word in text for word in ("learning rate", "norm of the gradient", "reward", "training step"))
    pictures = {picture.name: picture for picture in run_pictures(run, "run")}
    assert pictures["run-training"].figure is not None
    earlier = load_run(make_run(tmp_path / "earlier"))
    with pytest.raises(ValueError, match="learning_rate and gradient_norm and reward were not recorded"):
        learned.training(earlier)
