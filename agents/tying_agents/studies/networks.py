"""The studies of other networks than GPT-2: do their presets learn, and do fixed tyings rank as they do there?"""

from tying_agents.studies.recipes import LOWER, STEADIER, STEADY, quick
from tying_agents.studies.study import Study

# Of the rule it is known of GPT-2 that it is better than chance.
_FOUR = ("--agents", "conventional", "dqn", "random", "prior", "--pairs", "prior:random", "dqn:random", *STEADY, *LOWER)
_TWO = ("--tuning-seeds", "2", "--seeds", "1")
_LEARNS = (
    "dqn has at least half of conventional's gain over knowing nothing, medians of ten seeds on the test split, each "
    "arm at its own best rate of three tuning seeds: of BERT in nats of the masked loss, from token frequencies on; of "
    "the ViT in accuracy, from the most frequent class on. No seed ends above 1.15 times the arm's median perplexity. "
    "Beside them the rule 'own first': better than random, p < 0.05, if it holds here as it does for GPT-2."
)

# A sequence has five hidden bytes: frequencies alone are 21.87 on the default's 128 of the test split, 20.70 on all.
_BERT = ("compare", "--model", "bert", "--validation-windows", "512", "--test-windows", "4096", *_FOUR)
_VIT = ("compare", "--model", "vit", "--test-windows", "0", *_FOUR)

NETWORKS = {
    "bert": Study(
        "Does BERT's preset learn, conventionally and while the paper's DQN or chance ties its layers?",
        _LEARNS,
        2.4,
        (_BERT,),
    ),
    "bert-wikitext": Study("Does BERT's preset learn on WikiText-2, too?", _LEARNS, 2.4, (_BERT,), dataset=True),
    "vit": Study(
        "Does the ViT's preset learn, conventionally and while the paper's DQN or chance ties its layers?",
        _LEARNS,
        2.4,
        (_VIT,),
    ),
    "llama-rates": Study(
        "Which learning rate does the small LLaMA preset want, for tyings that change and for conventional training?",
        "Best validation perplexity, mean of two tuning seeds; a rate whose neighbours are both worse. The preset "
        "takes that of tyings that change, as GPT-2's does.",
        0.8,
        (("compare", "--model", "llama", "--agents", "conventional", "dqn", "random", *LOWER, *_TWO),),
    ),
    "llama": Study(
        "A decoder of today (RMSNorm, RoPE, SwiGLU, grouped-query attention), as small as the GPT-2 of `final-12`: do "
        "the arms rank as they do there?",
        "Paired differences in percent to conventional training and to the rule, over ten seeds on the test split, "
        "each arm at its own best rate of three tuning seeds, p < 0.05 after Holm's correction. As on GPT-2 if random "
        "tyings that change are worse than all that stay, dqn is not better than random, and the first layer alone is "
        "better than equal runs; an arm that token frequencies beat has learned nothing.",
        # The preset (12 x 64, 600 steps) would take 4.8 hours, and have no GPT-2 of its size to stand beside.
        0.9,
        (
            (
                *("compare", "--model", "llama", *quick(), "--n-kv-head", "1", "--agents", "--arms"),
                "conventional: --agent conventional",
                "dqn: --agent dqn",
                "dqn+shuffled: --agent dqn --rewards shuffled",
                "random: --agent random",
                "random-static: --agent random-static --groups 3",
                "sandwich: --agent sandwich",
                "own first: --agent prior --rule own-first --groups 3",
                "contiguous: --agent contiguous --groups 3",
                "albert: --agent albert",
                *("--reference", "conventional", "--pairs", "own first:contiguous", "dqn:random", "dqn:dqn+shuffled"),
                *("random:random-static", "random:albert"),
                *STEADIER,
            ),
        ),
    ),
}
