"""DNA: does tying do there what it does in text? The study, written before it is run.

Token frequencies are nearly 2 bits a base in any genome, and a network that knows which base follows which is below
them already. So they cannot tell a network that has learned DNA from one that counts pairs; how far below them
conventional training comes is what says whether there is anything that tyings could be compared on.
"""

from tying_agents.studies.recipes import WIDE, quick
from tying_agents.studies.study import Study

_READ = ("compare", "--tokenizer", "dna")

DNA = {
    "dna-gain": Study(
        "DNA (a FASTA file, a base a token): does conventional training learn enough of it for tyings to be compared?",
        "Its gain over token frequencies in bits per base on the test split, in runs of 384 training steps and in runs "
        "four times as long, five seeds, best rate of one tuning seed. Below 0.02, which is 1.4% of the perplexity, "
        "in both there is nothing to compare, and `dna` is not run; where only the longer ones have it, `dna` becomes "
        "as long first.",
        0.5,
        tuple(
            (*_READ, *network, "--agents", "conventional", *WIDE, "--tuning-seeds", "1", "--seeds", "5")
            for network in (quick(), quick(1_536, 96))
        ),
        dataset=True,
    ),
    "dna": Study(
        "DNA: what does tying cost, and is the paper's DQN better than chance, and tying that changes better than "
        "tying that stays?",
        "Paired differences in percent of the test perplexity to conventional training and to random, ten seeds, each "
        "arm at its own best rate of three tuning seeds; p < 0.05 after Holm's correction. dqn better than random: it "
        "has learned. random worse than random-static: changing costs here as it does in text. Differences are to be "
        "read against conventional training's gain over frequencies: of a gain of 0.1 bits a difference of 1% of the "
        "perplexity is a seventh.",
        0.6,
        (
            (
                *(*_READ, *quick(), "--agents", "--arms"),
                "conventional: --agent conventional",
                "sandwich: --agent sandwich",
                "own first, 3 groups: --agent prior --rule own-first --groups 3",
                "random-static, 3 groups: --agent random-static --groups 3",
                "random: --agent random",
                "dqn: --agent dqn",
                *("--reference", "conventional", "--pairs", "dqn:random", "random:random-static, 3 groups"),
                *(*WIDE, "--tuning-seeds", "3", "--seeds", "10"),
            ),
        ),
        dataset=True,
    ),
}
