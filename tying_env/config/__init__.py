"""Settings of the environment: one frozen dataclass, from which the command line is made as well.

Its fields are declared in groups, each in a module of its own with the rules that guard it.
"""

import dataclasses
import difflib
from dataclasses import dataclass
from typing import Any, Self

from tying_env.config.checks import check_type, declared_types
from tying_env.config.computing import PLACE_SETTINGS, ComputingSettings, check_computing
from tying_env.config.network import MAX_LAYERS, Model, NetworkSettings, check_network
from tying_env.config.presets import CONVENTIONAL_RATES, PAPER, PRESETS, STATIC_RATES, Size
from tying_env.config.training import MeasuringSettings, TrainingSettings, check_measuring, check_training
from tying_env.config.tying import TyingSettings, check_tying
from tying_env.kinds import ATTENTION, FEED_FORWARD, Kinds

__all__ = [
    "CONVENTIONAL_RATES",
    "MAX_LAYERS",
    "PAPER",
    "PLACE_SETTINGS",
    "PRESETS",
    "STATIC_RATES",
    "EnvConfig",
    "Model",
    "Size",
    "with_later_settings",
]


# A dataclass has the fields of its last base first.
@dataclass(frozen=True)
class EnvConfig(ComputingSettings, MeasuringSettings, TyingSettings, TrainingSettings, NetworkSettings):
    """What is trained, on what, for how long, and how tying behaves.

    The defaults are GPT-2's small preset: its architecture on bytes, at a size that trains on two CPU cores in minutes.
    Its learning rate was tuned on validation for tyings that change (docs/tuning.md); those that stay want twice as
    much, `STATIC_RATES`. `PRESETS` has the settings of the other networks, and the paper's.

    Raises:
        ValueError: a setting is outside its range, or does not apply to this network; the message names it, its value
            and what was expected.
    """

    def __post_init__(self) -> None:
        for name, kind in declared_types(type(self)).items():
            check_type(name, getattr(self, name), kind)
        for check in (check_network, check_training, check_tying, check_measuring, check_computing):
            check(self)

    @property
    def n_units(self) -> int:
        """Length of an action and of a tying: how many units can be tied. Every block is one, or has two."""
        return 2 * self.n_layer if self.units == "sublayers" else self.n_layer

    @property
    def kinds(self) -> Kinds:
        """The kinds of the units, as far as settings tell: of blocks that are not all alike only the network does."""
        if self.units == "sublayers":
            return Kinds.one_after_the_other((self.n_layer, self.n_layer), (ATTENTION, FEED_FORWARD))
        return Kinds.alike(self.n_layer)

    @property
    def warmup_length(self) -> int:
        """Training steps over which the learning rate rises: `warmup_steps`, or a share of the run.

        BERT's is long: its norms stand behind the residual branches, and such networks bear a high rate late (Xiong et
        al., ICML 2020).
        """
        if self.warmup_steps is not None:
            return self.warmup_steps
        return self.total_steps // (2 if self.model == "bert" else 10)

    @classmethod
    def from_settings(cls, settings: dict[str, Any]) -> Self:
        """Make a configuration from keywords.

        Raises:
            TypeError: a keyword is unknown; the message names the nearest one.
        """
        known = [field.name for field in dataclasses.fields(cls)]
        for name in settings:
            if name not in known:
                near = difflib.get_close_matches(name, known, 1)
                hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
                raise TypeError(f"unknown setting {name!r}; {hint}")
        return cls(**settings)


def with_later_settings(saved: dict[str, Any]) -> dict[str, Any]:
    """Return saved settings with those that came later, each at the value that was in force before there was one.

    That is its default, unless the field says otherwise: `field(default=..., metadata={"before": ...})`.

    Args:
        saved: the settings as an earlier version wrote them.
    """
    fields = dataclasses.fields(EnvConfig)
    return {field.name: field.metadata.get("before", field.default) for field in fields} | saved
