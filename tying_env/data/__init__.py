"""Text, images and speech: where they come from, how text becomes tokens, and how batches are drawn from them."""

from tying_env.data.batches import Batch, Batches
from tying_env.data.cache import Corpus, load_corpus
from tying_env.data.corpus import known_datasets
from tying_env.data.examples import RandomExamples, ShuffledExamples
from tying_env.data.images import ImageSet, load_images
from tying_env.data.masking import MaskedWindows, mask_tokens
from tying_env.data.speech import SpeechSet, load_speech
from tying_env.data.tokenizers import Tokenizer, load_tokenizer
from tying_env.data.windows import RandomWindows, ShuffledWindows, check_windows, evaluation_windows

__all__ = [
    "Batch",
    "Batches",
    "Corpus",
    "ImageSet",
    "MaskedWindows",
    "RandomExamples",
    "RandomWindows",
    "ShuffledExamples",
    "ShuffledWindows",
    "SpeechSet",
    "Tokenizer",
    "check_windows",
    "evaluation_windows",
    "known_datasets",
    "load_corpus",
    "load_images",
    "load_speech",
    "load_tokenizer",
    "mask_tokens",
]
