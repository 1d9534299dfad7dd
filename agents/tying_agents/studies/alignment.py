"""Is it the alignment of layers that lets a tying change in mid-training? The studies, written before they are run.

The paper supposes so (Sec. 5): layer 0 spreads an order of attention heads and embeddings to all layers, and without it
copying whole layers would set training back. Two things are in that: whether layers are alike, and whether their heads
and units stand in the same order. Permuting heads and units of every layer takes away the second alone, since it leaves
what each layer computes as it is.

A layer that takes its leader's weights takes their order along: for the tying of the paper the order can make no
difference beyond rounding. (`tests/test_alignment_study.py` shows that, so no arm here does.) A mean of layers weight
by weight needs the order. So what ties is varied, too.

Networks have eight heads, not two as in the other studies: of two a random matching is right every other time, and
nothing could be three of its deviations away from it. What is compared are stacks, ten of them, each of its own seed
from its first step to its last: another training from the same stack would say more of training and nothing of stacks.
"""

from tying_agents.studies.recipes import WIDE, quick
from tying_agents.studies.study import Study, folder_of

_STEPS = 192  # of each of three trainings: with what makes a stack what it is, then untied, then tied or not
_SEEDS = tuple(range(10))
_TUNING = 900  # the seed of the stacks on which rates are chosen
_EACH = 9  # commands of a stack of each kind
# How layers share weights in the first training of each kind of stack.
_KINDS = {
    "independent": "--agent conventional",
    "aligned": "--agent albert",
    # The frozen start has k steps: layer 0 and what is outside the blocks train alone, then it is copied.
    "layer-0": f"--agent random-redrawn --groups 1 --redraw-every 0 --no-from-start --k {_STEPS // 2}",
}
_WAYS = {
    "leader": ("leader", "stored"),
    "mean": ("mean", "stored"),
    "mean, permuted": ("mean", "permuted"),
    "mean, matched": ("mean", "matched"),
}
_USUAL = "4e-3"
# The rates of arms that want another, by `alignment-rates`.
_RATES: dict[str, str] = {}


def _arms(kind: str, orders: str) -> dict[str, str]:
    """Return how the third training of a stack goes on, untied or tied into three random groups, and its options."""
    tied = "--agent random-redrawn --groups 3 --redraw-every 0 --no-from-start --reward-timing after_tying"
    found = {f"{kind}, not tied": f"--agent conventional --init-from {orders}/stored"}
    for way, (first, order) in _WAYS.items():
        if kind != "layer-0" or way == "leader":
            found[f"{kind}, {way}"] = f"{tied} --first-tying {first} --init-from {orders}/{order}"
    return found


def _trained(arms: dict[str, str], *options: str) -> tuple[str, ...]:
    words = (f"{name}: {agent}" for name, agent in arms.items())
    return "compare", *quick(_STEPS, _STEPS // 4, n_head=8), "--agents", "--arms", *words, "--seeds", "1", *options


def _stack(seed: int, begin: int, rates: tuple[str, ...] = ()) -> tuple[tuple[str, ...], ...]:
    """Return the commands of a stack of each kind; the first has the number `begin` in its study."""
    made, *stored, untied = (folder_of(begin + place) for place in range(5))
    ordered = dict(zip(_KINDS, (folder_of(begin + 5 + place) for place in range(3)), strict=True))
    here = ("--first-seed", str(seed))
    usual = ("--learning-rate", _USUAL, *here)
    again = {
        kind: f"--agent conventional --init-from {folder}/stored" for kind, folder in zip(_KINDS, stored, strict=True)
    }
    last = {name: words for kind, folder in ordered.items() for name, words in _arms(kind, folder).items()}
    if not rates:
        last = {name: f"{words} --learning-rate {_RATES.get(name, _USUAL)}" for name, words in last.items()}
    return (
        _trained(_KINDS, *usual),
        *(_ordered(f"{made}/runs/{kind}/seed{seed}", "stored") for kind in _KINDS),
        _trained(again, *usual),
        *(_ordered(f"{untied}/runs/{kind}/seed{seed}", "stored", "permuted", "matched") for kind in _KINDS),
        _trained(last, *rates, *here),
    )


def _ordered(run: str, *orders: str) -> tuple[str, ...]:
    return "align", run, "--network", "final", "--orders", *orders, "--seed", "1"


ALIGNMENT = {
    "alignment-rates": Study(
        "Which learning rate does each training want that goes on from a stack, untied, or tied into three groups?",
        "Best validation perplexity, mean of two tuning seeds, on stacks of a seed that takes no part in `alignment`; "
        "the test split is not looked at. A rate at an edge means a wider grid.",
        0.4,
        _stack(_TUNING, 0, (*WIDE, "--tuning-seeds", "2", "--no-measure-test")),
    ),
    "alignment": Study(
        "Is it alignment that lets layers be tied in mid-training: does tying cost less in an aligned stack (copies of "
        "one layer, untied and trained on) than in the same stack with heads and units of each layer permuted, and "
        "than in layers that never shared anything?",
        "Ten stacks of each kind, each trained for three times 192 steps: as what it is, untied, and tied or not. "
        "Copies stay aligned if equal places are beyond random matchings by three of their deviations in all ten. "
        "Paired differences in percent of the test perplexity at the end, and of the perplexity right after the "
        "tying: an interval that does not contain 0. Permuted against stored, taking the mean: if the order matters "
        "anywhere, then here, in the aligned stack, and the matched one gets it back. Tied against not tied, aligned "
        "against independent, taking the leader's weights: what it is worth that layers are alike. Layer 0 trained "
        "alone and then copied, against one layer for all from the start: whether a layer that learned in one place "
        "serves in all. The first decides whether other layers in the same places (ablation iii) can hurt by their "
        "order.",
        0.8,
        (
            *(command for place, seed in enumerate(_SEEDS) for command in _stack(seed, _EACH * place)),
            (
                "align",
                *(
                    path
                    for place, seed in enumerate(_SEEDS)
                    for path in (
                        f"{folder_of(_EACH * place)}/runs/independent/seed{seed}",
                        f"{folder_of(_EACH * place + 4)}/runs",
                        *(f"{folder_of(_EACH * place + 5 + kind)}/permuted" for kind in range(len(_KINDS))),
                        f"{folder_of(_EACH * place + 8)}/runs",
                    )
                ),
                *("--network", "final", "--draws", "20"),
            ),
        ),
    ),
}
