"""The figure of settings that arms vary alone."""

from pathlib import Path
from typing import Any

import pytest

from tests.run_folders import make_arms, make_run
from tying_env.reports.comparison import load_comparison
from tying_env.reports.gallery import comparison_pictures
from tying_env.reports.loading import load_run
from tying_env.reports.sensitivity_figure import sensitivity, settings_varied


def test_settings_varied_alone_have_a_panel_each(tmp_path: Path) -> None:
    def arm(label: str, shift: float, rate: float = 1e-3, **settings: Any) -> None:
        env = {name: settings.pop(name) for name in ("k", "seq_len") if name in settings} | {"learning_rate": rate}
        config: dict[str, Any] = {"controller": {"epsilon_floor": 0.1} | settings, "label": label}
        for seed in range(6):
            path = tmp_path / label.replace(" ", "-") / str(seed)
            make_run(path, "dqn", seed, perplexity=10 + shift + 0.01 * seed * (shift != 0), env=env, config=config)

    arm("dqn", 0)
    arm("k 4", 2, k=4, rate=2e-3)  # its own rate is no other setting
    arm("k 16", -1, k=16)
    arm("floor 0", 0.5, epsilon_floor=0.0)
    arm("floor 0.3", 1, epsilon_floor=0.3)
    arm("both", 5, k=16, epsilon_floor=0.3)
    for length in (4, 16):  # on another scale: no answer to how much a setting matters
        arm(f"length {length}", 3, seq_len=length)
    comparison = load_comparison([tmp_path], "dqn")
    found = {varied.name: varied for varied in settings_varied(comparison)}
    assert found.keys() == {"k", "epsilon floor"}
    assert list(found["k"].differences) == [4, 16] and found["k"].reference == load_run(tmp_path / "dqn" / "0").env["k"]
    assert [round(d.mean, 3) for d in found["epsilon floor"].differences.values()] == [0.525, 1.025]
    figure = sensitivity(comparison)
    assert {axes.get_xlabel() for axes in figure.axes} == {"k", "epsilon floor"}
    assert all(len(axes.lines) > 2 for axes in figure.axes)
    assert "sensitivity" in [picture.name for picture in comparison_pictures(comparison)]


def test_where_no_setting_is_varied_alone_there_is_no_such_figure(tmp_path: Path) -> None:
    comparison = load_comparison([make_arms(tmp_path)])
    assert "sensitivity" not in [picture.name for picture in comparison_pictures(comparison)]
    with pytest.raises(ValueError, match="no setting has two values"):
        sensitivity(comparison)
