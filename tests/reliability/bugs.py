"""Known bugs to put back, one at a time: see `tests.reliability.mutants`."""

from typing import NamedTuple


class Mutant(NamedTuple):
    """One bug: what it is, where, and which tests are to notice."""

    name: str
    file: str
    right: str
    wrong: str
    tests: str  # arguments of pytest


RESUME = "tests/reliability/test_resume.py"
AFTER_EVERY_DECISION = f"{RESUME} -k test_a_run_stopped_after_every_decision"

MUTANTS = [
    Mutant(
        "resumes without the state of dropout's generator",
        "tying_env/primary/trainer_state.py",
        'trainer.gradients.dropout.set_state(state["dropout"])',
        "pass",
        f"{AFTER_EVERY_DECISION} -k random",
    ),
    Mutant(
        "resumes without the streams of Python's, NumPy's and torch's shared generators",
        "tying_env/primary/trainer_state.py",
        "trainer.streams = streams",
        "pass",
        "tests/test_streams.py -k continue_the_same_streams",
    ),
    Mutant(
        "adapters that are not plain LoRA stay untied",
        "tying_env/slots.py",
        "if _KEPT not in slot[0].__dict__",
        'if _KEPT not in slot[0].__dict__ and "lora_" not in name',
        "tests/test_peft_adapters.py",
    ),
    Mutant(
        "a Parameter in a plain list is not looked for",
        "tying_env/slots.py",
        "    check_reached(tied, blocks if within is None else within)",
        "    pass",
        "tests/test_references.py",
    ),
    Mutant(
        "a replaced Parameter is watched for one training step",
        "tying_env/left_behind.py",
        "        trained = [tensor.requires_grad for _, tensor in replaced]",
        "        self._replaced, trained = [], [tensor.requires_grad for _, tensor in replaced]",
        "tests/test_captured.py",
    ),
    Mutant(
        "nobody pays for trials",
        "tying_env/episode.py",
        "            self.budget.trials += done",
        "            pass",
        "tests/test_budget.py",
    ),
    Mutant(
        "a copy may lead to its original",
        "tying_env/primary/custom.py",
        "        check_copy(network)",
        "        pass",
        "tests/test_captured.py",
    ),
    Mutant(
        "resumes without the data position",
        "tying_env/primary/trainer_state.py",
        'trainer.feed.load_state_dict(state["batches"])',
        "pass",
        f"{AFTER_EVERY_DECISION} -k random",
    ),
    Mutant(
        "resumes without the optimizer's state",
        "tying_env/primary/trainer_state.py",
        "trainer.optimizer.state.update(moments)",
        "pass",
        f"{AFTER_EVERY_DECISION} -k random",
    ),
    Mutant(
        "resumes without the controller's generator",
        "agents/tying_agents/controllers/fixed.py",
        'restore_numpy(self._rng, state["rng"])',
        "pass",
        f"{AFTER_EVERY_DECISION} -k random",
    ),
    Mutant(
        "resumes without epsilon",
        "agents/tying_agents/controllers/dqn.py",
        'self._updates, self.epsilon, self._explored = state["updates"], state["epsilon"], state["explored"]',
        'self._updates, self._explored = state["updates"], state["explored"]',
        f"{AFTER_EVERY_DECISION} -k dqn",
    ),
    Mutant(
        "an SB3 agent starts over instead of reliving its journal",
        "agents/tying_agents/sb3/journal.py",
        "self._past = read_journal(env, directory)",
        "self._past = []",
        f"{AFTER_EVERY_DECISION} -k ppo",
    ),
    Mutant(
        "forgets the decision under way when it is stopped",
        "tying_env/episode_state.py",
        '"under_way": None if episode.under_way is None else dataclasses.asdict(episode.under_way)',
        '"under_way": None',
        f"{RESUME} -k test_a_run_stopped_after_every_training_step",
    ),
    Mutant(
        "metrics recorded after the checkpoint stay and come twice",
        "agents/tying_agents/running/runner.py",
        "directory.shorten(name, 0 if checkpoint is None else checkpoint.logs[name])",
        "pass",
        "tests/reliability/test_crashes.py -k random_times",
    ),
    Mutant(
        "other settings are accepted when resuming",
        "agents/tying_agents/running/saved.py",
        "if differ := differences(same, config):",
        "if differ := []:",
        f"{RESUME} -k other_settings",
    ),
    Mutant(
        "content_key not compared",
        "agents/tying_agents/running/resuming.py",
        'if differ := listed({name: found.about.get(name) for name in now}, now, ["data.code.sha256"]):',
        "if differ := []:",
        f"{RESUME} -k other_data",
    ),
    Mutant(
        "compare throws away what it cannot resume",
        "agents/tying_agents/many/one_run.py",
        '        aside = set_aside(unfinished, f"{config.run_dir.name}.damaged-{{}}{UNFINISHED}")\n',
        "        aside = unfinished\n        shutil.rmtree(unfinished)\n",
        "tests/reliability/test_comparisons.py -k damaged",
    ),
    Mutant(
        "diverged only if all numbers are not finite",
        "tying_env/primary/accounting.py",
        ".isfinite().all())",
        ".isfinite().any())",
        "tests/reliability/test_faults.py -k bad_number",
    ),
    Mutant(
        "an infinite second moment goes unnoticed",
        "tying_env/primary/accounting.py",
        "for tensor in (*parameters, *(value for value in state if isinstance(value, Tensor))):",
        "for tensor in parameters:",
        "tests/reliability/test_faults.py -k bad_number",
    ),
    Mutant(
        "divergence is reported as truncated",
        "tying_env/env.py",
        "outcome.diverged, truncated, info",
        "False, outcome.diverged or truncated, info",
        "tests/test_env_rewards.py",
    ),
    Mutant(
        "weights, data order and rewards ignore the seed",
        "tying_env/env.py",
        "episode_seed = seed if seed is not None else int(self.np_random.integers(2**31))",
        "episode_seed = 0",
        "tests/test_env.py",
    ),
    Mutant(
        "a checkpoint's hashes are not looked at",
        "tying_env/runs/manifest.py",
        'if sha256(path, n_bytes) != described["sha256"]:',
        "if False:",
        "tests/reliability/test_damage.py -k flipped",
    ),
    Mutant(
        "a network file's hash is not looked at",
        "tying_env/runs/network_file.py",
        'if about.pop("sha256") != _seal(about, tensors):',
        'if not about.pop("sha256"):',
        "tests/reliability/test_damage.py -k flipped",
    ),
    Mutant(
        "checkpoints are written under their own name, half of them visible",
        "tying_env/runs/checkpoints.py",
        'final, unfinished = self._folder / f"{number:06d}", self._folder / f"unfinished-{number:06d}"',
        'final = unfinished = self._folder / f"{number:06d}"',
        "tests/reliability/test_crashes.py -k change_of_the_disk",
    ),
    Mutant(
        "a manifest may name files outside its folder",
        "tying_env/runs/manifest.py",
        'fit = {STATE, TENSORS} <= names <= {STATE, TENSORS, BEST} and set(manifest["logs"]) == set(logs)',
        "fit = {STATE, TENSORS} <= names",
        "tests/reliability/test_hostile_files.py -k climbs",
    ),
    Mutant(
        "tensors are read with pickle",
        "tying_env/runs/checkpoints.py",
        "state = join(plain, load_file(folder / TENSORS))",
        "state = join(plain, __import__('torch').load(folder / TENSORS, weights_only=False))",
        "tests/test_architecture.py tests/reliability/test_hostile_files.py",
    ),
    Mutant(
        "weights of another type are converted without a word",
        "tying_env/named_tensors.py",
        "        if tensors[name].dtype != dtype:",
        "        if False:",
        "tests/reliability/test_hostile_files.py -k another -k type",
    ),
    Mutant(
        "two processes may work in one run directory",
        "tying_env/runs/run_directory.py",
        "            lock.acquire()\n",
        "            pass\n",
        "tests/reliability/test_crashes.py -k two_processes",
    ),
    Mutant(
        "a failed change of the tying leaves half of it",
        "tying_env/tied_blocks.py",
        "            self._put(before, optimizer)\n",
        "",
        "tests/test_tied_blocks_failing.py -k any_line",
    ),
    Mutant(
        "a diverged state is written over the good checkpoint",
        "agents/tying_agents/running/runner.py",
        "if not loop.diverged:",
        "if True:",
        "tests/reliability/test_faults.py -k bad_number",
    ),
    Mutant(
        "parts of a batch weigh as their examples, not as what is predicted in them",
        "tying_env/primary/gradients.py",
        "counts = [self.task.count(self._model, part) for part in parts]",
        "counts = [count_examples(part) for part in parts]",
        "tests/test_counted_targets.py -k step_in_parts",
    ),
    Mutant(
        "a measurement is the mean of its batches' means",
        "tying_env/primary/evaluation.py",
        "measured, count = task.measure(model, there, logits=dependence), task.count(model, there)",
        "measured, count = task.measure(model, there, logits=dependence), 1",
        "tests/test_counted_targets.py -k measurement",
    ),
    Mutant(
        "a network draws from the generators of the program around it",
        "tying_env/primary/trainer.py",
        "with self.streams.lent() if own else contextlib.nullcontext():",
        "with contextlib.nullcontext():",
        "tests/test_streams.py -k equal_seeds",
    ),
    Mutant(
        "a weight that a tying replaced is trained on without a word",
        "tying_env/primary/trainer.py",
        "with self.tied.left_behind.untouched():",
        "with contextlib.nullcontext():",
        "tests/test_captured.py -k replaced_parameter",
    ),
    Mutant(
        "the caller's default type reaches into training",
        "tying_env/ambient.py",
        "            torch.set_default_dtype(torch.float32)\n",
        "",
        "tests/test_ambient.py -k default -k dtype",
    ),
]
