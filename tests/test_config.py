import dataclasses
from typing import Any

import pytest

from tying_env import PAPER, EnvConfig


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_head": 3}, "n_head must divide n_embd, got n_head=3 and n_embd=64"),
        ({"k": 0}, "k must be at least 1, got 0"),
        ({"total_steps": 0}, "total_steps must be at least 1, got 0"),
        ({"n_layer": -1}, "n_layer must be at least 1, got -1"),
        ({"n_layer": 2.5}, r"n_layer must be int, got 2.5 \(float\)"),
        ({"n_layer": "12"}, r"n_layer must be int, got '12' \(str\)"),
        ({"k": True}, r"k must be int, got True \(bool\)"),
        ({"batch_size": None}, r"batch_size must be int, got None"),
        ({"learning_rate": 0.0}, "learning_rate must be a finite number above 0, got 0.0"),
        ({"learning_rate": float("nan")}, "learning_rate must be a finite number above 0, got nan"),
        ({"max_grad_norm": float("inf")}, "max_grad_norm must be a finite number above 0, got inf"),
        ({"weight_decay": -0.1}, "weight_decay must be at least 0, got -0.1"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\), got 1.0"),
        ({"validate_every": -5}, "validate_every must be at least 0, got -5"),
        ({"tokenizer": "bpe"}, "tokenizer must be one of 'gpt2', 'bytes', 'dna', 'checkpoint', got 'bpe'"),
        ({"dtype": "float16"}, "dtype must be one of 'float32', 'float64', 'bfloat16', got 'float16'"),
        ({"reward_timing": "later"}, "reward_timing must be one of 'after_training', 'after_tying', got 'later'"),
        ({"dataset": ""}, "dataset must be the name of a data set or a path, got ''"),
        ({"dataset": 3}, r"dataset must be str, got 3 \(int\)"),
        ({"cache_dir": 3}, r"cache_dir must be str or none, got 3 \(int\)"),
        ({"gradient": "leader", "replication": "copied"}, "gradient='leader' does not apply to replication='copied'"),
        ({"freeze_at_start": 1}, r"freeze_at_start must be bool, got 1 \(int\)"),
    ],
)
def test_a_wrong_setting_is_named_with_its_value(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EnvConfig(**settings)


def test_an_unknown_setting_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(TypeError, match="unknown setting 'n_layers'; did you mean 'n_layer'"):
        EnvConfig.from_settings({"n_layers": 3})
    with pytest.raises(TypeError, match="unknown setting 'zzz'; known: model, dataset"):
        EnvConfig.from_settings({"zzz": 3})


def test_whole_numbers_do_where_a_fraction_is_expected() -> None:
    assert EnvConfig(learning_rate=1, dropout=0).learning_rate == 1


def test_the_paper_preset_is_the_papers() -> None:
    paper = EnvConfig(**PAPER)
    assert (paper.n_layer, paper.n_embd, paper.n_head) == (48, 1600, 16)
    assert (paper.batch_size, paper.seq_len, paper.k, paper.learning_rate) == (16, 256, 15, 1e-4)
    assert paper.total_steps == 300 * (2_448_382 // (16 * 256))
    assert (paper.weight_decay, paper.max_grad_norm, paper.dropout) == (0.01, 1.0, 0.1)


def test_every_setting_says_what_it_is() -> None:
    import inspect

    groups = [group for group in EnvConfig.__mro__ if dataclasses.is_dataclass(group)]
    source = "\n".join(map(inspect.getsource, groups))
    for field in dataclasses.fields(EnvConfig):
        after = source.split(f"    {field.name}: ", 1)[1].split("\n", 2)[1]
        assert after.strip().startswith('"""'), field.name
