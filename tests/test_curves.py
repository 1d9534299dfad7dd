"""TensorBoard's pictures of the tying: some in an episode, and none twice on end."""

from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.conftest import TINY
from tying_env import EnvConfig
from tying_env.runs.tensorboard import Curves


def steps_of_pictures(path: Path, tyings: list[list[int]]) -> list[int]:
    """Return the training steps that have a picture, of decisions about these tyings."""
    with Curves(path, EnvConfig(**TINY | {"k": 1, "total_steps": len(tyings)})) as curves:
        for step, tying in enumerate(tyings, 1):
            curves.add({"decision": step, "train_step": step, "tying": tying}, 1.0)
    events = EventAccumulator(str(path), {"images": 0}).Reload()
    return [event.step for event in events.Images("replication_map")]


def test_a_tying_that_stays_has_one_picture(tmp_path: Path) -> None:
    assert steps_of_pictures(tmp_path, [[0, 0, 2, 2]] * 20) == [1]


def test_a_change_has_its_picture_and_one_back_another(tmp_path: Path) -> None:
    one, other = [0, 0, 2, 2], [0, 0, 0, 3]
    assert steps_of_pictures(tmp_path, [one] * 5 + [other] * 10 + [one] * 5) == [1, 6, 16]


def test_a_long_episode_has_twenty_pictures_and_the_first(tmp_path: Path) -> None:
    found = steps_of_pictures(tmp_path, [[0, 0, 2, 2 + step % 2] for step in range(1, 41)])
    assert found == [1, 2]  # every other decision, and there the tying is always the same
    found = steps_of_pictures(tmp_path / "changing", [[0, 0, 2, 2 + step // 2 % 2] for step in range(1, 41)])
    assert found == [1, *range(2, 41, 2)]
