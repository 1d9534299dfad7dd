"""LayerTyingEnv: a transformer under training as a Gymnasium environment."""

import copy as copying
import dataclasses
import gc
import math
from collections.abc import Callable, Sequence
from typing import Any, Self

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from torch import nn

import tying_env.forking  # noqa: F401 - an AsyncVectorEnv forks
from tying_env import partition
from tying_env.config import PLACE_SETTINGS
from tying_env.data import Batch
from tying_env.data.corpus import Split
from tying_env.distributed import agreed_action, agreed_number, agreed_stop
from tying_env.episode import Episode
from tying_env.primary.assembly import build_trainer, choose_workload
from tying_env.primary.custom import Draw
from tying_env.primary.evaluation import MAX_MEAN_LOSS, UNMEASURED, Evaluation, Measurement, perplexity
from tying_env.primary.optimizers import MakeOptimizer, choose_optimizer
from tying_env.primary.tasks import Loss
from tying_env.primary.trainer import Trainer, never
from tying_env.render import replication_map_image, replication_map_text
from tying_env.seeding import capture_numpy, check_seed, restore_numpy

_STATE_KEYS = {
    *("config", "np_random", "np_random_seed", "trainer", "reward_batches", "decisions", "tied_at", "train_step"),
    *("frozen_steps_left", "validation_perplexity", "over", "under_way"),
}


class LayerTyingEnv(gym.Env[partition.IntVector, partition.IntVector]):
    """Tie the layers of a transformer while it trains (Hay & Wolf, ICLR 2024).

    ## Description
    The environment wraps the primary network under training: a GPT-2, a BERT or a ViT. A step applies a tying, runs `k`
    training steps and returns the network's negative perplexity. One episode is one whole training run.

    ## Action Space
    `MultiDiscrete([1, 2, ..., L])`. Entry i is a layer 0..i: i itself makes layer i independent, a smaller one makes
    it copy that layer. Layer 0 is always independent.

    ## Observation Space
    The same space: the tying in force, entry i is the lowest layer with the same weights as layer i (Eq. 1).

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
    `independent_layers`, `trainable_parameters`, `tied_events`, `untied_events` (of this step), `train_step`, `tokens`
    (trained on so far), `diverged`; of a network that classifies also `accuracy` (of the reward's batches) and
    `validation_accuracy`. A number not yet measured, or not finite, is infinity; such an accuracy is 0.

    ## Arguments
    Every field of `tying_env.EnvConfig` is a keyword: `gym.make("LayerTying-GPT2-v0", n_layer=24, k=15)`.

    ## Version History
    - v0: first version.

    A network of your own is given as a module, with its blocks and its data:
    `LayerTyingEnv(model=my_model, blocks="model.layers", batches=my_examples, loss=my_loss)`. The other settings are
    then those of training, tying and validation; `batch_size` counts where `batches` are examples.

    Args:
        render_mode: `"ansi"` or `"rgb_array"`: the replication map (paper, Fig. 1).
        model: "gpt2", "bert" or "vit"; or a network of your own: a module, of which every episode trains a copy, or a
            function that makes one with random weights.
        blocks, batches, loss, validation, test: of a network of your own; see
            `tying_env.primary.custom.CustomParts`.
        optimizer: "adamw", "sgd" or "muon"; or a function that makes an optimizer of your own from parameter groups,
            `torch.optim.NAdam` for one. Learning rate and weight decay are in the groups. It may keep numbers and
            tensors of the Parameter's shape for each Parameter; another one is refused.
        settings: fields of `EnvConfig`.

    Raises:
        TypeError, ValueError: a setting is unknown or wrong; the message names it.
    """

    metadata = {"render_modes": ["ansi", "rgb_array"], "render_fps": 4}  # noqa: RUF012 (Gymnasium's own form)

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
        optimizer: str | MakeOptimizer = "adamw",
        **settings: Any,
    ) -> None:
        if render_mode is not None and render_mode not in self.metadata["render_modes"]:
            raise ValueError(f"render_mode must be one of {self.metadata['render_modes']}, got {render_mode!r}")
        self.render_mode = render_mode
        own = {"blocks": blocks, "batches": batches, "loss": loss, "validation": validation, "test": test}
        settings = settings | {"optimizer": optimizer if isinstance(optimizer, str) else "custom"}
        self.workload, self.device = choose_workload(model, own, settings)
        self.config = config = self.workload.config
        self._make_optimizer = choose_optimizer(config, None if isinstance(optimizer, str) else optimizer)
        self.action_space = gym.spaces.MultiDiscrete(np.arange(1, config.n_units + 1))
        self.observation_space = gym.spaces.MultiDiscrete(np.arange(1, config.n_units + 1))
        self.should_stop: Callable[[], bool] = never
        self._episode: Episode | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[partition.IntVector, dict[str, Any]]:
        """Begin a training run: fresh weights, data order and tying, all from `seed`.

        Args:
            seed: without one, the next is drawn from the generator that the last seed started.
            options: `{"tying": vector}`, shape (L,), begins with this tying instead of the frozen start.
                `{"state": state}` goes on from a `state_dict` instead of beginning anew; so Gymnasium's wrappers know
                that the environment is ready.

        Raises:
            TypeError, ValueError: an unknown option or a wrong tying; the running episode goes on.
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
            return self.tying, self._info(math.inf, UNMEASURED, partition.TyingEvents(0, 0), False)
        tying = (options or {}).get("tying")
        if tying is not None:
            tying = self._permitted(tying)
        start = np.arange(self.config.n_units) if tying is None and not self.config.freeze_at_start else tying
        super().reset(seed=seed)
        episode_seed = seed if seed is not None else int(self.np_random.integers(2**31))
        self._let_go()  # two networks at once would double the memory
        self._episode = self._begin(episode_seed, start, frozen_start=tying is None)
        return self.tying, self._info(math.inf, UNMEASURED, partition.TyingEvents(0, 0), False)

    def step(self, action: partition.IntVector) -> tuple[partition.IntVector, float, bool, bool, dict[str, Any]]:
        """Apply a tying, train for k steps, measure the reward.

        A program that may have to end at any time sets the attribute `should_stop`, a function that is asked between
        training steps. When it says yes, `step` raises `tying_env.episode.Stopped`; the same call later goes on with
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
        action = agreed_action(self._permitted(action))
        outcome = episode.decide(action, agreed_stop(self.should_stop), self._validate)
        truncated = bool(episode.over) and not outcome.diverged
        measured = UNMEASURED if outcome.diverged else outcome.measured
        info = self._info(outcome.train_loss, measured, outcome.events, outcome.diverged)
        return self.tying, self._reward(measured), outcome.diverged, truncated, info

    def evaluate(self, split: Split, max_windows: int | None = None) -> Evaluation:
        """Measure the network as it is on examples of a split, always the same, without dropout.

        Args:
            split: "train", "validation" or "test".
            max_windows: how many sequences of `seq_len` tokens, or images, 0 for all; `validation_windows` by default.
        """
        most = self.config.validation_windows if max_windows is None else max_windows
        return self.workload.evaluate(self._running().trainer.network.model, split, most, self.device)

    def windows(self, split: Split, max_windows: int) -> Batch:
        """Return up to `max_windows` examples of a split, 0 for all. They never change.

        GPT-2's are windows (N, T + 1); for the others see `Workload.examples`.
        """
        return self.workload.examples(split, max_windows)

    def render(self) -> Any:
        """Return the replication map: text for `"ansi"`, pixels (height, width, 3) for `"rgb_array"`."""
        if self.render_mode is None:
            gym.logger.warn('render() needs a render_mode: gym.make(..., render_mode="ansi" or "rgb_array")')
            return None
        tying, title = self.tying, f"Replication map at training step {self._running().train_step}"
        if self.render_mode == "ansi":
            return f"{title}: {len(partition.leaders(tying))} of {len(tying)} layers independent\n" + (
                replication_map_text(tying)
            )
        return replication_map_image(tying, title)

    def state_dict(self, copy: bool = True) -> dict[str, Any]:
        """Return the whole training state: a restored environment goes on with the same bits.

        Tensors are under `trainer.weights`, `trainer.optimizer` and `trainer.dropout`; the rest is ready for JSON.

        Args:
            copy: whether the tensors are copies. Without, they are the live ones: write them down at once.
        """
        return {
            "config": dataclasses.asdict(self.config),
            "np_random": capture_numpy(self.np_random),
            "np_random_seed": self.np_random_seed,
            **self._running().state_dict(copy),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state that `state_dict` gave, of an environment with the same settings.

        Raises:
            ValueError: the state does not fit, and in what; this environment is as before then.
        """
        if not isinstance(state, dict) or (missing := _STATE_KEYS - set(state)):
            lacks = f"lacks {sorted(missing)[0]!r}" if isinstance(state, dict) else f"is a {type(state).__name__}"
            raise ValueError(f"the state must be a dictionary that state_dict gave; it {lacks}")
        mine, theirs = dataclasses.asdict(self.config), state["config"]
        differ = [name for name in mine if name not in PLACE_SETTINGS and mine[name] != theirs.get(name)]
        if differ:
            listed = "; ".join(f"{name} is {theirs.get(name)!r} there, {mine[name]!r} here" for name in differ)
            raise ValueError(f"the state is of an environment with other settings: {listed}")
        try:
            generator = np.random.default_rng(0)
            restore_numpy(generator, state["np_random"])
            saved = state["trainer"]
            episode = self._begin(0, None if saved["frozen"] else saved["tying"], saved["sources"])
            episode.load_state_dict(state)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"the state is damaged: {error!r}") from error
        self._np_random, self._np_random_seed = generator, state["np_random_seed"]
        self._episode = episode

    def fork(self) -> Self:
        """Return an independent environment in the same state: a counterfactual to try a tying on the same batches.

        Weights, optimizer, data position and generators are copies; the data in memory are shared.
        """
        state = self.state_dict()
        twin = copying.copy(self)  # the data are read-only
        twin.action_space, twin.observation_space = copying.deepcopy((self.action_space, self.observation_space))
        twin._episode = None
        twin.load_state_dict(state)
        return twin

    def close(self) -> None:
        """Let go of the network and its optimizer."""
        self._let_go()
        super().close()

    @property
    def train_step(self) -> int:
        """Training steps done in this episode."""
        return self._running().train_step

    @property
    def tying(self) -> partition.IntVector:
        """The tying in force, shape (L,); after a step that was stopped, the one it was decided on."""
        return self._running().tying

    @property
    def decisions(self) -> int:
        """Decisions made in this episode; a step that was stopped does not count yet."""
        return self._running().decisions

    @property
    def tied_at(self) -> int:
        """Training step at which the last action was applied."""
        return self._running().tied_at

    @property
    def over(self) -> bool:
        """Whether the episode has ended, so that the next call must be reset()."""
        return self._running().over

    @property
    def trainer(self) -> Trainer:
        """The primary network under training, with its optimizer."""
        return self._running().trainer

    def _begin(
        self,
        seed: int,
        tying: npt.ArrayLike | None,
        sources: npt.ArrayLike | None = None,
        frozen_start: bool = False,
    ) -> Episode:
        trainer = build_trainer(self.workload, self.device, seed, tying, sources, self._make_optimizer)
        return Episode(trainer, self.workload.reward_batches(seed), self.config, frozen_start)

    def _let_go(self) -> None:
        self._episode = None
        if self.config.checkpoint_blocks or self.config.frozen_weights == "redrawn":
            gc.collect()  # blocks with a forward pass of their own refer to themselves

    def _validate(self) -> Evaluation:
        """Measure on the validation split, as process 0 measures it."""
        found = self.evaluate("validation")
        accuracy = None if found.accuracy is None else agreed_number(found.accuracy)
        mean_loss, measured = agreed_number(found.mean_loss), agreed_number(found.perplexity)
        return found._replace(mean_loss=mean_loss, perplexity=measured, accuracy=accuracy)

    def _running(self) -> Episode:
        if self._episode is None:
            raise gym.error.ResetNeeded("no training run has begun: call reset() first")
        return self._episode

    def _permitted(self, action: object) -> partition.IntVector:
        """Check an action, and return what it comes to where only blocks of one kind can be tied."""
        valid = partition.validate_action(action, self.config.n_units)
        return valid if self.workload.kinds is None else partition.within_kinds(valid, self.workload.kinds)

    def _reward(self, measured: Measurement) -> float:
        """Return a finite number whatever was measured; the lowest there is if training diverged."""
        if self.config.reward == "accuracy":
            return measured.accuracy or 0.0
        return -math.exp(MAX_MEAN_LOSS) if math.isinf(measured.mean_loss) else -perplexity(measured.mean_loss)

    def _info(
        self, train_loss: float, measured: Measurement, events: partition.TyingEvents, diverged: bool
    ) -> dict[str, Any]:
        episode = self._running()
        tying = self.tying
        return {
            "tying": tying,
            "train_loss": train_loss,
            "perplexity": perplexity(measured.mean_loss),
            "validation_perplexity": episode.validation_perplexity,
            "independent_layers": len(partition.leaders(tying)),
            "trainable_parameters": episode.trainer.count_trainable(),
            "tied_events": events.tied,
            "untied_events": events.untied,
            "train_step": episode.train_step,
            "tokens": episode.trainer.tokens,
            "diverged": diverged,
            **(
                {"accuracy": measured.accuracy or 0.0, "validation_accuracy": episode.validation_accuracy}
                if self.workload.classifies
                else {}
            ),
        }
