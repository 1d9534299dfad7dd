"""Is it the alignment of layers that lets a tying change in mid-training? The study, written before it is run.

The paper supposes so (Sec. 5): layer 0 spreads an order of attention heads and embeddings to all layers, and without it
copying whole layers would set training back. Two things are in that: whether layers are alike, and whether their heads
and units stand in the same order. Permuting heads and units of every layer takes away the second alone, since it leaves
what each layer computes as it is.

A layer that takes its leader's weights takes their order along: for the tying of the paper the order can make no
difference beyond rounding. (`tests/test_alignment_study.py` shows that.) A mean of layers weight by weight needs the
order. So what ties is varied, too.

Networks have eight heads, not two as in the other studies: of two a random matching is right every other time, and
nothing could be three of its deviations away from it.
"""

from tying_agents.studies.recipes import CLIMB, quick
from tying_agents.studies.study import Study, folder_of

_SEEDS = (0, 1, 2, 3, 4)  # of the stacks, and in each of the trainings that go on from it
_STEPS = 192  # half of a training: before the tying, and after it
_FIRST = 2  # commands before those of the seeds
_EACH = 6  # commands of each seed


def _folders(seed: int) -> tuple[str, str, str, str]:
    """Return the folders of a seed: copies, untied copies, orders of the independent and of the aligned stack."""
    begin = _FIRST + _EACH * seed
    copies, untied, independent, aligned = (folder_of(begin + place) for place in range(4))
    return copies, untied, independent, aligned


def _compare(steps: int) -> tuple[str, ...]:
    return "compare", *quick(steps, steps // 4, n_head=8), "--agents", "--arms"


def _arms(seed: int) -> tuple[str, ...]:
    """Return the arms of a seed: each stack goes on untied, or is tied into three random groups, the same for all."""
    _, _, independent, aligned = _folders(seed)
    found = []
    for stack, folder in (("independent", independent), ("aligned", aligned)):
        found.append(f"{stack}, not tied: --agent conventional --init-from {folder}/stored")
        tied = "--agent random-redrawn --groups 3 --redraw-every 0 --no-from-start --reward-timing after_tying"
        for way, orders in (("leader", ("stored", "permuted")), ("mean", ("stored", "permuted", "matched"))):
            found += [
                f"{stack}, {order}, {way}: {tied} --first-tying {way} --init-from {folder}/{order}" for order in orders
            ]
    return tuple(found)


def _commands() -> tuple[tuple[str, ...], ...]:
    rates = (*CLIMB, "--learning-rates", "1e-3", "2e-3", "4e-3", "8e-3", "1.6e-2", "--tuning-seeds", "1")
    seeds = ("--seeds", str(len(_SEEDS)))
    found = [
        (
            *_compare(2 * _STEPS),
            "independent: --agent conventional",
            "layer 0 for all: --agent albert",
            # The frozen start has k steps: layer 0 and what is outside the blocks train alone, then it is copied.
            "layer 0 alone, then copied: --agent random-redrawn --groups 1 --redraw-every 0 --no-from-start "
            f"--k {_STEPS}",
            *(*rates, *seeds),
        ),
        (*_compare(_STEPS), "copies: --agent albert", *rates, *seeds),
    ]
    orders = ("--orders", "stored", "permuted", "matched", "--seed", "1")
    for seed in _SEEDS:
        copies, untied, independent, aligned = _folders(seed)
        found += [
            ("align", f"{folder_of(1)}/runs/copies/seed{seed}", "--network", "final", "--orders", "stored"),
            (*_compare(_STEPS), f"untied: --agent conventional --init-from {copies}/stored", *rates, "--seeds", "1"),
            ("align", f"{folder_of(0)}/runs/independent/seed{seed}", "--network", "final", *orders),
            ("align", f"{untied}/runs/untied/seed0", "--network", "final", *orders),
            (*_compare(_STEPS), *_arms(seed), *rates, *seeds),
            (
                *("align", f"{folder_of(0)}/runs/independent/seed{seed}", f"{untied}/runs/untied/seed0"),
                *(f"{independent}/permuted", f"{aligned}/permuted", f"{folder_of(_FIRST + _EACH * seed + 4)}/runs"),
                *("--network", "final", "--draws", "20"),
            ),
        ]
    return tuple(found)


ALIGNMENT = Study(
    "Is it alignment that lets layers be tied in mid-training: does tying cost less in an aligned stack (copies of one "
    "layer, untied and trained on) than in the same stack with heads and units of each layer permuted, and than in "
    "layers that never shared anything?",
    "Alignment, beyond chance and beyond random matchings, of each stack, of the same permuted, and of every training "
    "that went on from it, five stacks: copies stay aligned if equal places are beyond random matchings by three of "
    "their deviations in all five. Paired differences in percent of the test perplexity, 25 pairs (five stacks, five "
    "seeds), each arm at its own best rate, and of the perplexity right after the first tying: an interval over the "
    "means of the five stacks that does not contain 0. Permuted against stored, taking the leader's weights: expected "
    "none, so that the order of heads and units is not what lets the tying change; taking the mean: if the order "
    "matters anywhere, then here, in the aligned stack, and the matched one gets it back. Tied against not tied, "
    "aligned against independent, taking the leader's weights: what it is worth that layers are alike. Layer 0 trained "
    "alone and then copied, against one layer for all from the start: whether a layer that learned in one place serves "
    "in all. The first decides whether other layers in the same places (ablation iii) can hurt by their order.",
    2.5,
    _commands(),
)
