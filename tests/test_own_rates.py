"""The learning rates of agents that never change the tying: another default than the preset's, and no more."""

from pathlib import Path

import pytest
from transformers import GPT2Config
from tying_agents.commands.compare import parse_agent, parse_arm
from tying_agents.commands.early import chosen_preset, chosen_settings, default_run
from tying_agents.commands.many_runs import as_run
from tying_agents.commands.tune import next_commands
from tying_agents.commands.tune import parse as parse_tune
from tying_agents.controllers.base import Context
from tying_agents.controllers.fixed import FixedController
from tying_agents.many.tuning.plan import Sweep
from tying_agents.many.tuning.search import parse_searches
from tying_agents.registry import agent_names, find_agent
from tying_agents.settings import PatternConfig

from tying_env import PRESETS, EnvConfig
from tying_env.config import CONVENTIONAL_RATES, STATIC_RATES
from tying_env.kinds import ATTENTION, FEED_FORWARD, Kinds

PARTS = Kinds.one_after_the_other((3, 3), (ATTENTION, FEED_FORWARD))


def test_agents_are_static_whose_controller_is_a_fixed_one(tmp_path: Path) -> None:
    (tmp_path / "pattern.txt").write_text("0 0 0 0 0 0")
    chosen = {"pattern": PatternConfig(tmp_path / "pattern.txt")}
    for agent in map(find_agent, agent_names()):
        if agent.kind == "controller" and agent.name != "replay":
            kinds = PARTS if agent.name.startswith("shared-") else None
            made = agent.make(chosen.get(agent.name, agent.settings()), Context(6, 0, 5, 10, kinds))
            assert agent.static == (type(made) is FixedController), agent.name
    assert not find_agent("replay").static


def test_rates_are_of_presets_that_there_are() -> None:
    assert set(STATIC_RATES) | set(CONVENTIONAL_RATES) <= set(PRESETS)
    assert EnvConfig().learning_rate == 1e-3


@pytest.mark.parametrize(
    ("words", "rate"),
    [
        ("--agent dqn", 1e-3),
        ("--agent random", 1e-3),
        ("--agent prior", 2e-3),
        ("--agent prior --model gpt2 --seq-len 64", 2e-3),
        ("--agent prior --n-embd 768 --n-layer 24", 1e-3),
        ("--agent conventional --schedule constant --warmup-steps 0", 1e-3),
        ("--agent conventional --optimizer muon", 1e-3),
        ("--agent conventional", 4e-3),
        ("--agent prior --preset paper", 1e-4),
        ("--agent prior --model bert", 2e-3),
        ("--agent prior --model vit", 1e-3),
        ("--agent merge-alike", 1e-3),
    ],
)
def test_a_run_and_an_arm_have_the_rate_of_their_agent(words: str, rate: float) -> None:
    argv = words.split()
    assert chosen_settings(argv).run.env.learning_rate == rate
    preset, env = chosen_preset(argv)
    arm = parse_arm(f"mine: {words.partition(' --preset')[0]}", default_run(preset, env), None, preset, argv)
    assert arm.configure(Path(), 0).env.learning_rate == rate


def test_a_rate_that_somebody_chose_stays(tmp_path: Path) -> None:
    base = default_run("small", EnvConfig(learning_rate=3e-3))
    given = ["--learning-rate", "3e-3"]
    arms = (
        (parse_agent("conventional", base, None, "small", given), 3e-3),
        (parse_arm("mine: --agent prior", base, None, "small", given), 3e-3),
        (parse_arm("mine: --agent prior --learning-rate 5e-3", base, None, "small", []), 5e-3),
        (parse_arm("mine: --agent conventional --n-embd 32", base, None, "small", []), 3e-3),
        (parse_arm("mine: --agent prior --model vit", base, None, "small", []), 3e-3),
    )
    for arm, rate in arms:
        assert arm.configure(Path(), 0).env.learning_rate == rate
    file = tmp_path / "run.toml"
    file.write_text("[env]\nlearning_rate = 1e-3\n")
    assert chosen_settings(["--agent", "prior", "--config", str(file)]).run.env.learning_rate == 1e-3
    file.write_text("[env]\nn_embd = 32\n")
    assert chosen_settings(["--agent", "prior", "--config", str(file)]).run.env.learning_rate == 1e-3
    file.write_text("agent = 'prior'\n")
    assert chosen_settings(["--config", str(file)]).run.env.learning_rate == 2e-3


def test_weights_to_begin_from_have_no_rate_of_a_network_that_begins_anew(tmp_path: Path) -> None:
    GPT2Config(n_layer=2, n_embd=16, n_head=2, vocab_size=256).save_pretrained(tmp_path)
    assert chosen_settings(["--agent", "prior", "--init-from", str(tmp_path)]).run.env.learning_rate == 1e-3


def test_the_comparison_that_a_sweep_names_does_not_give_its_rate_to_all() -> None:
    parsed = parse_tune(["--agent", "prior", "--search", "groups: 2..4"], "layer-tying tune")
    assert parsed.run.env.learning_rate == 2e-3
    base = as_run(parsed.run)
    sweep = Sweep(Path("unused"), base, parse_searches(parsed.search, parsed.run), (1000,))
    _, line = next_commands(sweep, parsed, base, "best.toml")
    assert "--learning-rate" not in line
