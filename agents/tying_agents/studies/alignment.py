"""Is it the alignment of layers that lets a tying change in mid-training? The studies, written before they are run.

The paper supposes so (Sec. 5): layer 0 spreads an order of attention heads and embeddings to all layers, and without it
copying whole layers would set training back. Two things are in that: whether layers are alike, and whether their heads
and units stand in the same order. Permuting heads and units of every layer takes away the second alone, since it leaves
what each layer computes as it is.

A layer that takes its leader's weights takes their order along: for the tying of the paper the order can make no
difference beyond rounding. (`tests/test_alignment_study.py` shows that, so no arm here does.) A mean of layers weight
by weight needs the order. So what ties is varied, too.

Networks have eight heads, not two as in the other studies: of two a random matching is right every other time, and
nothing could be three of its deviations away from it. What is compared are stacks, ten of them, each of three trainings
with seeds and batches of their own: another training from the same stack would say more of training and nothing of
stacks.
"""

from tying_agents.studies.recipes import WIDE, quick
from tying_agents.studies.study import Study, folder_of

_STEPS = 192  # of each of the three trainings: as what makes a stack what it is, then untied, then tied or not
_SEEDS = tuple(range(10))
_TUNING = 300  # the seed of the stacks on which rates are chosen
_LATER = 100  # between the seeds of two trainings of a stack: other batches
_EACH = 9  # commands of a stack of each kind
# How layers share weights in the first training of each kind of stack.
_KINDS = {
    "independent": "--agent conventional",
    "aligned": "--agent albert",
    # The frozen start has k steps: layer 0 and what is outside the blocks train alone, then it is copied. With k of 16,
    # 32, 48 and 96 such networks ended at token frequencies (seed 1000, 2e-3), with 8 they learn.
    "layer-0": "--agent random-redrawn --groups 1 --redraw-every 0 --no-from-start --k 8",
}
_WAYS = {
    "leader": ("leader", "stored"),
    "mean": ("mean", "stored"),
    "mean, permuted": ("mean", "permuted"),
    "mean, matched": ("mean", "matched"),
}
_PAIRS = (
    *(f"{kind}, leader:{kind}, not tied" for kind in _KINDS),
    *(f"{kind}, mean, permuted:{kind}, mean" for kind in ("independent", "aligned")),
    *(f"{kind}, mean, matched:{kind}, mean, permuted" for kind in ("independent", "aligned")),
    *(f"{kind}, moved:{kind}, not tied" for kind in _KINDS),
    "aligned, moved:independent, moved",
    "aligned, leader:independent, leader",
)
_USUAL = "1.6e-2"
# By `alignment-rates`: the rates of arms that want another, training by training.
_RATES: tuple[dict[str, str], ...] = (
    {"independent, made": "4e-3", "aligned, made": "2e-3", "layer-0, made": "2e-3"},
    {"aligned, untied": "8e-3", "layer-0, untied": "8e-3"},
    {
        **dict.fromkeys(("independent, moved", "aligned, moved", "aligned, mean", "aligned, mean, permuted"), "8e-3"),
        "layer-0, not tied": "8e-3",
        "layer-0, leader": "3.2e-2",
    },
)


def _arms(kind: str, orders: str) -> dict[str, str]:
    """Return how the third training of a stack goes on, untied or tied into three random groups, and its options."""
    measured = "--reward-timing after_tying"
    tied = f"--agent random-static --groups 3 {measured}"  # the same tying for all of a seed
    found = {
        f"{kind}, not tied": f"--agent conventional {measured} --init-from {orders}/stored",
        f"{kind}, moved": f"--agent conventional {measured} --init-from {orders}/moved",
    }
    for way, (first, order) in _WAYS.items():
        if kind != "layer-0" or way == "leader":
            found[f"{kind}, {way}"] = f"{tied} --first-tying {first} --init-from {orders}/{order}"
    return found


def _trained(training: int, arms: dict[str, str], seed: int, rates: tuple[str, ...]) -> tuple[str, ...]:
    """Return the command that trains these arms, at rates to choose from or at those that were chosen."""
    chosen = {name: "" if rates else f" --learning-rate {_RATES[training].get(name, _USUAL)}" for name in arms}
    words = (f"{name}: {agent}{chosen[name]}" for name, agent in arms.items())
    seeds = ("--seeds", "1", "--first-seed", str(seed + _LATER * training))
    return "compare", *quick(_STEPS, _STEPS // 4, n_head=8), "--agents", "--arms", *words, *rates, *seeds


def _stack(seed: int, begin: int, rates: tuple[str, ...] = ()) -> tuple[tuple[str, ...], ...]:
    """Return the commands of a stack of each kind; the first has the number `begin` in its study."""
    made, *stored, untied = (folder_of(begin + place) for place in range(5))
    ordered = dict(zip(_KINDS, (folder_of(begin + 5 + place) for place in range(3)), strict=True))
    first = {f"{kind}, made": agent for kind, agent in _KINDS.items()}
    again = {
        f"{kind}, untied": f"--agent conventional --init-from {folder}/stored"
        for kind, folder in zip(_KINDS, stored, strict=True)
    }
    last = {name: words for kind, folder in ordered.items() for name, words in _arms(kind, folder).items()}
    every = ("stored", "permuted", "matched", "moved")
    return (
        _trained(0, first, seed, rates),
        *(_ordered(f"{made}/runs/{kind}, made/seed{seed}", seed, "stored") for kind in _KINDS),
        _trained(1, again, seed, rates),
        *(_ordered(f"{untied}/runs/{kind}, untied/seed{seed + _LATER}", seed, *every) for kind in _KINDS),
        _trained(2, last, seed, rates),
    )


def _ordered(run: str, seed: int, *orders: str) -> tuple[str, ...]:
    return "align", run, "--network", "final", "--orders", *orders, "--seed", str(seed)


def _all_stacks() -> tuple[tuple[str, ...], ...]:
    begins = [_EACH * place for place in range(len(_SEEDS))]
    measured = [
        path
        for seed, begin in zip(_SEEDS, begins, strict=True)
        for path in (
            f"{folder_of(begin)}/runs/independent, made/seed{seed}",
            f"{folder_of(begin + 4)}/runs",
            *(f"{folder_of(begin + 5 + kind)}/permuted" for kind in range(len(_KINDS))),
            f"{folder_of(begin + 8)}/runs",
        )
    ]
    trained = [f"{folder_of(begin + 8)}/runs" for begin in begins]
    compared = ("--reference", "independent, not tied", "--pairs", *_PAIRS)
    return (
        *(command for seed, begin in zip(_SEEDS, begins, strict=True) for command in _stack(seed, begin)),
        ("align", *measured, "--network", "final", "--draws", "20"),
        *(("report", *trained, "--metric", metric, *compared) for metric in ("first-perplexity", "test-perplexity")),
    )


ALIGNMENT = {
    "alignment-rates": Study(
        "Which learning rate does each of the three trainings of a stack want?",
        "Best validation perplexity, mean of two tuning seeds, on stacks of a seed that takes no part in `alignment`; "
        "the test split is not looked at. A rate at an edge means a wider grid.",
        0.6,
        _stack(_TUNING, 0, (*WIDE, "--tuning-seeds", "2", "--no-measure-test")),
    ),
    "alignment": Study(
        "Is it alignment that lets layers be tied in mid-training: does tying cost less in an aligned stack (copies of "
        "one layer, untied and trained on) than in the same stack with heads and units of each layer permuted, and "
        "than in layers that never shared anything?",
        "Ten stacks of each kind, each of three trainings of 192 steps: as what it is, untied, tied or not; one that "
        "ends at token frequencies is left out, and said. Copies stay aligned if equal places are beyond random "
        "matchings by three of their deviations in all ten. Paired differences in percent of the test perplexity at "
        "the end, and of the perplexity right after the tying: an interval that does not contain 0. Permuted against "
        "stored, taking the mean: if the order of heads and units matters anywhere, then here, in the aligned stack, "
        "and the matched one gets it back. Tied against not tied, taking the leader's weights, in either stack: what "
        "it is worth that layers are alike. Whole layers moved, in either stack: whether a layer serves in another "
        "place, which is what ablation (iii) does to a tying.",
        0.9,
        _all_stacks(),
    ),
}
