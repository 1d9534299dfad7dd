"""Text: where it comes from, how it becomes tokens, where they are kept, and how batches are drawn from them."""

from tying_env.data.cache import Corpus, load_corpus
from tying_env.data.corpus import known_datasets
from tying_env.data.tokenizers import Tokenizer, load_tokenizer
from tying_env.data.windows import RandomWindows, ShuffledWindows, check_windows, evaluation_windows

__all__ = [
    "Corpus",
    "RandomWindows",
    "ShuffledWindows",
    "Tokenizer",
    "check_windows",
    "evaluation_windows",
    "known_datasets",
    "load_corpus",
    "load_tokenizer",
]
