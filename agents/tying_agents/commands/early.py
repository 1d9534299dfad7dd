"""Reads command lines: first what the defaults depend on (network, size, semantics, agent), then all of it."""

import argparse
import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar, get_args, get_type_hints

import tyro

from tying_agents.config_files import overlaid, read_config_file
from tying_agents.registry import agent_names, find_agent, owner_of
from tying_agents.run_config import RunConfig, with_agent
from tying_agents.settings import DQNConfig
from tying_env import PRESETS, EnvConfig
from tying_env.config import CONVENTIONAL_RATES, STATIC_RATES, Size
from tying_env.config.network import DECODER, is_own
from tying_env.plugins import is_import_string

Semantics = Literal["paper", "published-code"]
T = TypeVar("T")


class Chosen(NamedTuple):
    """The settings that a command line leads to before its options of single settings are read."""

    preset: Size
    semantics: Semantics
    config: Path | None
    run: RunConfig


def chosen_settings(argv: Sequence[str]) -> Chosen:
    """Return the defaults of a command line: its preset, semantics, configuration file and agent decide them.

    Raises:
        FileNotFoundError, ValueError: the configuration file cannot be read, or there is no such agent.
    """
    given = early(argv, "config").config
    file = Path(given) if given else None
    plain = {} if file is None else read_config_file(file, named_code(argv), overruling(argv))
    preset, env = chosen_preset(argv, plain.get("env"))
    run, semantics = default_run(preset, env), chosen_semantics(argv)
    if semantics == "published-code":
        run = as_published(run)
    if file is not None:
        run = overlaid(run, plain, str(file))
    run = at_its_rate(with_chosen_agent(run, argv), preset, argv, plain.get("env"))
    return Chosen(preset, semantics, file, run)


def read_options(kind: type[T], argv: Sequence[str], prog: str, about: str | None, default: T | None = None) -> T:
    """Read a command line; --help and wrong options end the program.

    Args:
        kind: the dataclass of the options.
        argv: the arguments.
        prog: how the command was called, for its help text.
        about: what the command does, for its help text.
        default: values of options that are not given, where those of the class will not do.

    Raises:
        ValueError: an option has the name that other programs have for one of these.
    """
    _refuse_usual_names(kind, argv)
    return tyro.cli(
        kind,
        prog=prog,
        args=argv,
        default=tyro.MISSING_NONPROP if default is None else default,
        description=re.sub(r"\n(?=layer-tying |python |torchrun )", "\n\n", about or ""),  # each example a paragraph
        config=(tyro.conf.OmitArgPrefixes,),
    )


# What other programs call an option -> what it is called here.
_USUAL_NAMES = {
    **{"lr": "learning-rate", "steps": "total-steps", "max-steps": "total-steps", "bs": "batch-size"},
    **{"layers": "n-layer", "num-layers": "n-layer", "heads": "n-head", "hidden-size": "n-embd", "wd": "weight-decay"},
    **{"block-size": "seq-len", "context": "seq-len", "output": "out", "output-dir": "run-dir"},
}


def _refuse_usual_names(kind: Any, argv: Sequence[str]) -> None:
    """Refuse an option that is none, but has a well-known name of one.

    Raises:
        ValueError: there is one; the message says what it is called here.
    """
    known = {name.replace("_", "-") for name in _field_names(kind)}
    for word in argv:
        name = word.removeprefix("--").partition("=")[0].replace("_", "-")
        meant = _USUAL_NAMES.get(name)
        if word.startswith("--") and name not in known and meant in known:
            raise ValueError(f"there is no option --{name}: it is called --{meant} here")


def _field_names(kind: Any) -> set[str]:
    names = set()
    for name, hint in get_type_hints(kind).items():
        names |= _field_names(hint) if dataclasses.is_dataclass(hint) else {name}
    return names


def early(argv: Sequence[str], *names: str, several: Sequence[str] = ()) -> argparse.Namespace:
    """Return what these options are in a command line, None where they are not; all others are passed over.

    Args:
        argv: the arguments.
        names: options with one value, "init-from"; `--init_from` is read as well.
        several: options with any number of values.
    """
    parser = argparse.ArgumentParser(add_help=False, exit_on_error=False, allow_abbrev=False)
    for name in names:
        parser.add_argument(*_spellings(name), nargs="?", const="")
    for name in several:
        parser.add_argument(*_spellings(name), nargs="*")
    try:
        return parser.parse_known_args(list(argv))[0]
    except argparse.ArgumentError:  # the full parser says what is wrong
        return argparse.Namespace(**{name.replace("-", "_"): None for name in (*names, *several)})


def chosen_preset(argv: Sequence[str], of_file: dict[str, Any] | None = None) -> tuple[Size, EnvConfig]:
    """Return the size, and the settings of the environment that --model, --preset and --init-from lead to.

    It is GPT-2 and small where they are not given, or not any that there is.

    Args:
        argv: the arguments.
        of_file: settings of the environment in a configuration file: they count where the arguments do not.

    Raises:
        FileNotFoundError, ValueError: the checkpoint of --init-from is not there, or not of such a network; or there
            is no preset of this size for the network.
    """
    chosen = early(argv, "model", "preset", "init-from")
    size: Size = chosen.preset if chosen.preset in get_args(Size) else "small"
    given = of_file or {}
    folder = chosen.init_from or given.get("init_from")
    named = chosen.model or given.get("model")
    known = (DECODER, *(model for model, _ in PRESETS))
    if named is not None and named not in known and not is_own(named):
        return size, EnvConfig()
    started: dict[str, Any] = {}
    if folder:
        from tying_env.primary.checkpoint import checkpoint_settings

        started = checkpoint_settings(folder, named)
    model = named or started.get("model", "gpt2")
    sizes = {kind: settings for (of, kind), settings in PRESETS.items() if of == model}
    # Decoders of a checkpoint, and networks of the user's own, have no presets.
    if size not in (sizes or ("small", "paper")):
        there = " or ".join(sizes or ("small", "paper"))
        raise ValueError(f"preset must be {there} for the model {model!r}, got {size!r}")
    preset = sizes.get(size, {})
    return size, EnvConfig(**preset | started | {"model": model})


def note_on_the_papers_recipe(size: Size, env: EnvConfig) -> str | None:
    """Return what to know of the paper's recipe before a run of its size; None where another one is chosen."""
    papers = env.freeze_at_start and env.warmup_steps == 0 and env.schedule == "constant"
    if size != "paper" or not papers:
        return None
    return (
        "Note: the paper names no schedule, so the learning rate is constant. With the frozen start that stalled small "
        "networks at token frequencies (12 x 64: validation perplexity 20.4, not frozen 11.8; frequencies alone "
        "21). Options --warmup-steps and --schedule cosine of run and compare avoid it: docs/recipe.md."
    )


def chosen_semantics(argv: Sequence[str]) -> Semantics:
    """Return what --semantics is; the paper's if it is not given."""
    found = early(argv, "semantics").semantics
    return "published-code" if found == "published-code" else "paper"


def named_code(argv: Sequence[str]) -> list[str]:
    """Return the import strings in a command line: code of the user's own that it asks to run."""
    words = [word.partition("=")[2] if word.startswith("--") and "=" in word else word for word in argv]
    return [word for word in words if is_import_string(word)]


def overruling(argv: Sequence[str]) -> dict[str, Any]:
    """Return the settings that may name code and are given in a command line: they overrule those of a file."""
    lists = ("rewards", "wrappers", "callbacks")
    given = early(argv, "agent", "model", several=lists)
    known = {"agent": given.agent, "env.model": given.model, **{name: getattr(given, name) for name in lists}}
    return {name: value for name, value in known.items() if value is not None}


def default_run(size: Size, env: EnvConfig) -> RunConfig:
    """Return the settings of a run of a size in this environment."""
    windows = RunConfig.test_windows if size == "small" else 0  # the paper measures the whole test split
    return RunConfig(env=env, test_windows=windows)


def as_published(config: RunConfig) -> RunConfig:
    """Return the choices of the paper's published code: tying_agents.controllers.published, tying_env.replication."""
    vit = config.env.model == "vit"
    env = dataclasses.replace(config.env, k=10 if vit else 4, gradient="leader", replication="aliased", dropout=0.2)
    dqn = config.controller if isinstance(config.controller, DQNConfig) else DQNConfig()
    own = dataclasses.replace(dqn, epsilon_floor=0.1 if vit else 0.01)
    return dataclasses.replace(with_agent(config, "layer-sweep-dqn", own), rewards=("clipped",), env=env)


def with_chosen_agent(config: RunConfig, argv: Sequence[str]) -> RunConfig:
    """Return the settings with the agent that --agent names, whose own settings become options.

    Raises:
        ValueError: its settings have names of others; or an option is one of another agent.
        ValueError, OSError, ImportError, TypeError, tying_env.plugins.ForeignCodeError: there is no such agent.
    """
    agent = early(argv, "agent").agent
    if agent and agent != config.agent:
        same_settings = with_agent(config, agent)
        kept = config.controller if type(same_settings.controller) is type(config.controller) else None
        config = with_agent(config, agent, kept)
    own = {field.name for field in dataclasses.fields(config.controller)}  # type: ignore[arg-type]
    taken = {field.name for kind in (RunConfig, EnvConfig) for field in dataclasses.fields(kind)}
    if clash := sorted(own & (taken | {"preset", "semantics", "resume", "config", "print_config", "help"})):
        raise ValueError(
            f"the setting {clash[0]!r} of the agent {config.agent!r} has the name of another option: rename it, "
            f"own_{clash[0]}, say"
        )
    refuse_options_of_others(argv, [config.agent], own | taken)
    return config


# What a learning rate was tuned for: with another of these, or with weights to begin from, nothing is known of it.
_TUNED_FOR = ("learning-rate", "init-from", "n-embd", "n-layer", "optimizer", "schedule", "warmup-steps")


def at_its_rate(
    config: RunConfig, preset: Size, argv: Sequence[str], of_file: dict[str, Any] | None = None
) -> RunConfig:
    """Return the settings with the learning rate that suits an agent that never changes the tying, if one is known.

    Args:
        config: the settings so far.
        preset: its size.
        argv: the arguments; --model counts. Where they name a learning rate, or what one was tuned for, the settings
            stay as they are.
        of_file: settings of the environment in a configuration file, likewise.
    """
    given = vars(early(argv, "model", *_TUNED_FOR))
    model = given.pop("model") or config.env.model
    rates = CONVENTIONAL_RATES if config.agent == "conventional" else STATIC_RATES
    known = rates.get((model, preset)) if find_agent(config.agent).static else None
    chosen = any(value is not None for value in given.values()) or bool(set(given) & set(of_file or {}))
    if known is None or chosen or config.env.init_from:
        return config
    return dataclasses.replace(config, env=dataclasses.replace(config.env, learning_rate=known))


def refuse_options_of_others(argv: Sequence[str], agents: Sequence[str], known: set[str]) -> None:
    """Refuse options that are settings of other agents than those of this command line.

    Raises:
        ValueError: there is one; the message says whose it is.
    """
    for word in argv:
        option = word.partition("=")[0].removeprefix("--").removeprefix("no-").replace("-", "_")
        if word.startswith("--") and option not in known and (owners := owner_of(option)):
            raise ValueError(
                f"--{option.replace('_', '-')} is an option of {' and '.join(owners)}, and the agent here is "
                f"{' and '.join(agents)}"
            )


def agents_in_help() -> str:
    """Return a sentence that names all agents."""
    return f"Agents: {', '.join(agent_names())}."


def _spellings(name: str) -> list[str]:
    return list(dict.fromkeys((f"--{name}", f"--{name.replace('-', '_')}")))
