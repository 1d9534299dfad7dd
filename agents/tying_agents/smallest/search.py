"""Finds the smallest network whose perplexity is within so many per cent of conventional training's, in a budget.

Candidates are tried from the smallest up. Each gets its own learning rate by validation, then paired seeds beside
conventional training; what is clearly worse is left, and what is not gets more seeds, until the interval of the
difference lies within the margin (a non-inferiority test) or the budget is spent. All of that goes by the validation
split. The test split says afterwards what the choice is worth.

The budget counts the training time that the runs wrote down, each when the search first asks for it: so a search that
was stopped and is called again comes to the same.

The interval is looked at after every seed, and every look is a chance to be wrong: a candidate that is just as bad as
the margin is called within it 3.0 times in a hundred with up to ten seeds and normal differences, where a single look
at ten would say so 0.8 times (simulated in tests/test_smallest.py); and each candidate has its own.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tying_agents.many.comparison import final_run, make_waiting
from tying_agents.many.plan import ArmSpec, RunPlan, planned_run, tuning_folder, tuning_runs
from tying_agents.many.rates import chosen_learning_rate
from tying_agents.run_config import RunConfig
from tying_agents.smallest.candidates import CONVENTIONAL, candidate_arm, conventional_arm
from tying_agents.stopping import StopFile
from tying_env.reports.statistics import Interval, mean_interval
from tying_env.runs import RunDirectory
from tying_env.runs.run_directory import SUMMARY

# Seeds of an arm that is not clearly worse after its rate was chosen; fewer give no interval worth the name.
LEAST_SEEDS = 3
# Per cent above the margin at which a candidate is left without further seeds: one tuning seed differs by 1 to 2.
_CLEARLY = 4.0


@dataclass(frozen=True)
class Tried:
    """What is known of an arm.

    Attributes:
        label: its name.
        parameters: that it trains.
        rate: its learning rate.
        validation: the perplexity of its best network on validation, by seed.
        test: the same network's on test.
        frequencies: what token frequencies alone come to on validation; None where it is not known.
        differences: in validation to conventional training, per cent, of each seed both have.
        interval: of their mean; None where seeds are too few.
        verdict: what became of it.
    """

    label: str
    parameters: int
    rate: float
    validation: dict[int, float]
    test: dict[int, float]
    frequencies: float | None = None
    differences: tuple[float, ...] = ()
    interval: Interval | None = None
    verdict: str = ""

    @property
    def mean(self) -> float:
        """The mean difference in per cent; infinity where there is none."""
        return sum(self.differences) / len(self.differences) if self.differences else math.inf


@dataclass
class Search:
    """A search under way.

    Attributes:
        base: settings of every run.
        plan: where and how runs are made; its seeds are the most that an arm gets.
        within: per cent that the perplexity may be above conventional training's.
        seconds: of training that the search may take, with as many runs at a time as the plan says.
        stop: asks runs to stop.
        on_step: is told what is under way, how many of its runs are there, and of how many.
        tried: what has been tried, conventional training first.
    """

    base: RunConfig
    plan: RunPlan
    within: float
    seconds: float
    stop: StopFile
    on_step: Callable[[str, int, int], None]
    tried: list[Tried] = field(default_factory=list)
    _seconds_of: dict[Path, float] = field(default_factory=dict)  # of the runs that were asked for

    def run(self, groups: Sequence[int]) -> Tried | None:
        """Try these numbers of groups, in ascending order; return the first that is within the margin, or None.

        Raises:
            ValueError: the budget does not even pay for conventional training and one candidate.
            As `tying_agents.many.comparison.make_comparison`.
        """
        own = conventional_arm(self.base)
        first = self._tuned(own)
        a_run = sum(self._seconds_of.values()) / len(self._seconds_of)
        least = self._cost(a_run, len(tuning_runs(own, self.plan)) + 2 * LEAST_SEEDS)
        if self._spent() + least > self.seconds:
            raise ValueError(
                f"a budget of {self.seconds / 60:.3g} minutes is too small: a run takes {a_run:,.1f} s, and to tell "
                f"one candidate from conventional training takes {(self._spent() + least) / 60:,.3g} minutes. Give it "
                "more --minutes, more --jobs or fewer --learning-rates"
            )
        self._seeded(own, LEAST_SEEDS)
        self.tried = [self._read(own)]
        for n_groups in groups:
            arm = candidate_arm(self.base, n_groups)
            if not self._affords(a_run, len(tuning_runs(arm, self.plan)) + LEAST_SEEDS):
                break
            found = self._judged(arm, own, first, a_run)
            self.tried.append(found)
            if found.verdict == "within":
                return found
        return None

    def _judged(self, arm: ArmSpec, own: ArmSpec, first: float, a_run: float) -> Tried:
        above = 100 * (self._tuned(arm) / first - 1)
        if above > self.within + _CLEARLY:
            return self._read(arm, f"left when its rate was chosen, at {above:+.1f} %")
        seeds = LEAST_SEEDS
        self._seeded(arm, seeds)
        while True:
            found = self._read(arm, "not shown")
            if found.interval is not None and found.interval.high <= self.within:
                return self._read(arm, "within")
            if found.interval is not None and found.interval.low > self.within:
                return self._read(arm, "worse")
            more = sum(len(each.validation) <= seeds for each in (found, self.tried[0]))
            if seeds == len(self.plan.seeds) or not self._affords(a_run, more):
                return found
            seeds += 1
            for each in (own, arm):
                self._seeded(each, seeds)
            self.tried[0] = self._read(own)

    def _tuned(self, arm: ArmSpec) -> float:
        """Choose an arm's rate; return its mean best validation perplexity at that rate."""
        self._make(f"{arm.label}: learning rate", tuning_runs(arm, self.plan))
        rate = chosen_learning_rate(arm.label, self.plan)
        assert rate is not None
        folders = [tuning_folder(self.plan, arm.label, rate, seed) for seed in self.plan.tuning_seeds]
        values = [_validation(RunDirectory.open(folder)) for folder in folders]
        return sum(values) / len(values)

    def _seeded(self, arm: ArmSpec, seeds: int) -> None:
        configs = [final_run(arm, self.plan, seed) for seed in self.plan.seeds[:seeds]]
        self._make(f"{arm.label}: seeds", configs)

    def _make(self, what: str, configs: Sequence[RunConfig]) -> None:
        make_waiting(configs, self.plan, self.stop, lambda done: self.on_step(what, done, len(configs)))
        for path in (config.run_dir for config in configs):
            assert path is not None
            self._seconds_of[path] = float(RunDirectory.open(path).read_json(SUMMARY)["seconds"])

    def _read(self, arm: ArmSpec, verdict: str = "") -> Tried:
        runs = {seed: planned_run(arm, self.plan, seed).run_dir for seed in self.plan.seeds}
        there = {s: RunDirectory.open(p) for s, p in runs.items() if p is not None and p in self._seconds_of}
        rate = chosen_learning_rate(arm.label, self.plan)
        assert rate is not None
        any_run = next(iter(there.values()), None)
        any_run = any_run or RunDirectory.open(tuning_folder(self.plan, arm.label, rate, self.plan.tuning_seeds[0]))
        validation = {seed: _validation(run) for seed, run in there.items()}
        differences: tuple[float, ...] = ()
        if arm.label != CONVENTIONAL:
            beside = self.tried[0].validation
            differences = tuple(100 * (validation[s] / beside[s] - 1) for s in validation if s in beside)
        interval = None
        if len(set(differences)) > 1 and len(differences) >= LEAST_SEEDS:
            interval = mean_interval(differences)
        test = {s: found for s, run in there.items() if (found := _test(run)) is not None}
        parameters = int(any_run.read_metrics()[-1]["trainable_parameters"])
        frequencies = (any_run.read_json(SUMMARY).get("frequency_perplexity") or {}).get("validation")
        return Tried(arm.label, parameters, rate, validation, test, frequencies, differences, interval, verdict)

    def _spent(self) -> float:
        """Return the seconds of training so far, with `jobs` runs at a time."""
        return sum(self._seconds_of.values()) / self.plan.jobs

    def _cost(self, a_run: float, runs: int) -> float:
        return a_run * math.ceil(runs / self.plan.jobs)

    def _affords(self, a_run: float, runs: int) -> bool:
        return self._spent() + self._cost(a_run, runs) <= self.seconds


def best_run(search: Search, found: Tried) -> Path:
    """Return the run of an arm whose network is the best on validation."""
    seed = min(found.validation, key=lambda each: found.validation[each])
    return search.plan.folder / "runs" / found.label / f"seed{seed}"


def _validation(run: RunDirectory) -> float:
    value = run.read_json(SUMMARY)["best_validation_perplexity"]
    return math.inf if value is None else float(value)


def _test(run: RunDirectory) -> float | None:
    measured = (run.read_json(SUMMARY)["test"] or {}).get("best")
    return None if measured is None else float(measured["perplexity"])
