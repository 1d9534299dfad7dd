"""LayerTyingEnv: a transformer under training as a Gymnasium environment.

What it has beside Gymnasium's methods it gets from floors below: `running` (the training run and what is asked of it)
and `saving` (state, forks). `reporting` says what a step tells.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from torch import nn

import tying_env.forking  # noqa: F401 - an AsyncVectorEnv forks
from tying_env import partition
from tying_env.ambient import usual_modes
from tying_env.data import Batch
from tying_env.decision import Outcome
from tying_env.distributed import agreed_action, agreed_stop
from tying_env.environment import tying_space
from tying_env.primary.assembly import choose_workload
from tying_env.primary.custom import Draw
from tying_env.primary.optimizers import choose_optimizer
from tying_env.primary.own_optimizer import MakeOptimizer
from tying_env.primary.own_tasks import Loss
from tying_env.reporting import BEGINNING, info_of, rendered_tying, reward_of
from tying_env.saving import SavedEnv
from tying_env.seeding import check_seed


class LayerTyingEnv(SavedEnv):
    """Tie the layers of a transformer while it trains (Hay & Wolf, ICLR 2024).

    ## Description
    The environment wraps the primary network under training: a GPT-2, a LLaMA, a BERT, a ViT or an encoder of speech. A
    step applies a tying, runs `k` training steps and returns the network's negative perplexity. One episode is one
    whole training run.

    ## Action Space
    `MultiDiscrete([1, 2, ..., L])`. Entry i is a layer 0..i: i itself makes layer i independent, a smaller one makes
    it copy that layer. Layer 0 is always independent.

    With units of several kinds (`units="sublayers"`, or `unequal_blocks="within-kind"`) an entry counts within the kind
    of its unit: `MultiDiscrete([1, ..., L, 1, ..., L])` for L attentions and L feed-forward parts.

    ## Observation Space
    The same space: the tying in force, entry i is the lowest layer with the same weights as layer i (Eq. 1), counted as
    in an action. (`info["tying"]` counts over all units.)

    ## Rewards
    Minus the perplexity on `reward_batches` fresh random training batches, without dropout: after the k training
    steps, or right after tying (`reward_timing="after_tying"`). It is bounded below by -e^20, which is also the reward
    of a step in which training diverged. With `reward="accuracy"`, for a network that classifies, it is the share of
    these examples that it classifies correctly, and 0 when training diverged.

    ## Starting State
    A primary network with random weights and an all-zero tying. The first k training steps lie before the first
    decision, and in them only layer 0 and what lies outside the blocks trains (`freeze_at_start`): the first step runs
    them, then applies its action and runs k more. (So says the paper's Sec. 3 and Appendix A; Algorithm 1 to the letter
    would decide after a single step.) `reset(options={"tying": vector})` begins with a tying instead, and without those
    k steps: all layers independent from the start is conventional training.

    ## Episode End
    Truncated after `total_steps` training steps. Terminated when training diverged: a loss, gradient or weight that
    is not finite.

    ## Info
    Always the same keys, and no clock reading, so that equal seeds give equal infos: `tying`, `train_loss` (mean over
    the k steps after the action, nats per token), `perplexity` (of the reward), `validation_perplexity` (the last one),
    `input_dependence` (measured with it: the share of the logits' mean square that varies with position, 0 to 1; near 0
    the network says the same whatever it reads; see `tying_env.primary.dependence`), `independent_layers`,
    `trainable_parameters`, `tied_events`, `untied_events` (of this step), `train_step`, `tokens` (trained on so far),
    `diverged`; of a network that classifies also `accuracy` (of the reward's batches) and `validation_accuracy`. A
    number not yet measured, not to be had, or not finite, is infinity; such an accuracy is 0.

    ## Arguments
    Every field of `tying_env.EnvConfig` is a keyword: `gym.make("LayerTying-GPT2-v0", n_layer=24, k=15)`.

    ## Version History
    - v0: first version.

    A network of your own is given as a module, with its blocks and its data:
    `LayerTyingEnv(model=my_model, blocks="model.layers", batches=my_examples, loss=my_loss)`. The other settings are
    then those of training, tying and validation; `batch_size` counts where `batches` are examples.

    Args:
        render_mode: `"ansi"` or `"rgb_array"`: the replication map (paper, Fig. 1).
        model: "gpt2", "llama", "bert", "vit" or "speech"; "causal-lm", a decoder that `init_from` names; or a
            network of your own: the import string of a function that makes it (docs/doors/network.md), a module, of
            which every episode trains a copy, or a function that makes one with random weights.
        blocks: where the list of blocks of a network of your own is. `tying_env.OwnNetwork` says more about this and
            the next five.
        batches: its training examples, or a function that draws a batch of them.
        loss: a function of the network and a batch; its own loss by default.
        validation: examples to validate on.
        test: examples to test on.
        units: what is tied: "block"; "sublayers", the attention and the feed-forward part of each block; or, of a
            network of your own, the paths of its units by kind.
        optimizer: "adamw", "sgd" or "muon"; or a function that makes an optimizer of your own from parameter groups,
            `torch.optim.NAdam` for one. Learning rate and weight decay are in the groups. It may keep numbers and
            tensors of the Parameter's shape for each Parameter; another one is refused.
        settings: fields of `EnvConfig`.

    Raises:
        TypeError, ValueError: a setting is unknown or wrong; the message names it.
        tying_env.plugins.ForeignCodeError: the code that an import string names raised.
    """

    metadata = {"render_modes": ["ansi", "rgb_array"], "render_fps": 4}  # noqa: RUF012 (Gymnasium's own form)

    @usual_modes()
    def __init__(
        self,
        *,
        render_mode: str | None = None,
        model: str | nn.Module | Callable[[], nn.Module] = "gpt2",
        blocks: str | Sequence[str] | None = None,
        batches: Draw | Batch | None = None,
        loss: Loss | None = None,
        validation: Batch | None = None,
        test: Batch | None = None,
        units: str | Mapping[str, Sequence[str | Sequence[str]]] = "block",
        optimizer: str | MakeOptimizer = "adamw",
        **settings: Any,
    ) -> None:
        if render_mode is not None and render_mode not in self.metadata["render_modes"]:
            raise ValueError(f"render_mode must be one of {self.metadata['render_modes']}, got {render_mode!r}")
        self.render_mode = render_mode
        own: dict[str, Any] = {"blocks": blocks, "batches": batches, "loss": loss, "validation": validation}
        own |= {"test": test, "units": None if isinstance(units, str) else units}
        settings = settings | {"units": units if isinstance(units, str) else "own"}
        settings = settings | {"optimizer": optimizer if isinstance(optimizer, str) else "custom"}
        workload, device = choose_workload(model, own, settings)
        own_optimizer = None if isinstance(optimizer, str) else optimizer
        super().__init__(workload, device, choose_optimizer(workload.config, own_optimizer))
        self.action_space, self.observation_space = tying_space(self.kinds), tying_space(self.kinds)

    @usual_modes()
    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[partition.IntVector, dict[str, Any]]:
        """Begin a training run: fresh weights, data order and tying, all from `seed`.

        Args:
            seed: without one, the next is drawn from the generator that the last seed started.
            options: `{"tying": vector}`, shape (L,), begins with this tying instead of the frozen start.
                `{"state": state}` continues from a `state_dict` instead of starting over; so Gymnasium's wrappers know
                that the environment is ready.

        Raises:
            TypeError, ValueError: an unknown option or a wrong tying; the running episode is kept.
        """
        seed = None if seed is None else check_seed(seed)
        if options is not None and not isinstance(options, dict):
            raise ValueError(f"options must be a dictionary, got {options!r}")
        if unknown := [name for name in options or {} if name not in ("tying", "state")]:
            raise ValueError(f"unknown reset option {unknown[0]!r}; known: 'tying', 'state'")
        if options and "state" in options:
            if seed is not None or "tying" in options:
                raise ValueError("a state brings its own generators and tying: give no seed and no tying with it")
            self.load_state_dict(options["state"])
            return self._observation(), self._info(BEGINNING)
        tying = (options or {}).get("tying")
        if tying is not None:
            tying = self.permitted(tying)
        start = np.arange(self.n_units) if tying is None and not self.config.freeze_at_start else tying
        super().reset(seed=seed)
        episode_seed = seed if seed is not None else int(self.np_random.integers(2**31))
        self._let_go()  # two networks at once would double the memory
        self._episode = self._begin(episode_seed, start, frozen_start=tying is None)
        return self._observation(), self._info(BEGINNING)

    @usual_modes()
    def step(self, action: partition.IntVector) -> tuple[partition.IntVector, float, bool, bool, dict[str, Any]]:
        """Apply a tying, train for k steps, measure the reward.

        A program that may have to end at any time sets the attribute `should_stop`, a function that is asked between
        training steps. When it says yes, `step` raises `tying_env.episode.Stopped`; the same call later continues with
        the same bits, also from a `state_dict` of that moment.

        Raises:
            TypeError, ValueError: not a valid action, or another than that of a step that was stopped; nothing is
                changed.
            gymnasium.error.ResetNeeded: no episode is running.
            tying_env.episode.Stopped: `should_stop` said so.
        """
        episode = self._running()
        if episode.over:
            raise gym.error.ResetNeeded("the episode is over: call reset() before step()")
        action = agreed_action(self.permitted(action))
        outcome = episode.run(action, agreed_stop(self.should_stop), self._validate)
        truncated = bool(episode.over) and not outcome.diverged
        info = self._info(outcome)
        return self._observation(), reward_of(outcome, self.config), outcome.diverged, truncated, info

    def render(self) -> Any:
        """Return the replication map: text for `"ansi"`, pixels (height, width, 3) for `"rgb_array"`."""
        if self.render_mode is None:
            gym.logger.warn('render() needs a render_mode: gym.make(..., render_mode="ansi" or "rgb_array")')
            return None
        return rendered_tying(self._running(), self.render_mode, self.kinds)

    def close(self) -> None:
        """Let go of the network and its optimizer."""
        self._let_go()
        super().close()

    def _observation(self) -> partition.IntVector:
        return self.kinds.action_for(self.tying)

    def _info(self, outcome: Outcome) -> dict[str, Any]:
        return info_of(self._running(), outcome, self.workload.classifies)
