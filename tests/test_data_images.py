"""Images, their streams and their augmentation; masks of masked language modelling."""

import copy
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tying_env.data import MaskedWindows, RandomExamples, ShuffledExamples, ShuffledWindows, load_images, mask_tokens
from tying_env.data.batches import sample
from tying_env.data.examples import augment_images
from tying_env.env import LayerTyingEnv


def test_digits_come_in_three_splits_that_share_nothing() -> None:
    digits = load_images("digits")
    assert digits.shape == (1, 8, 8)
    assert {split: len(labels) for split, labels in digits.labels.items()} == {
        "train": 1439,
        "validation": 179,
        "test": 179,
    }
    assert digits.images["train"].max() == 16
    counts = {split: np.bincount(labels) for split, labels in digits.labels.items()}
    for share, split in ((0.8, "train"), (0.1, "validation"), (0.1, "test")):
        assert (abs(counts[split] - share * sum(counts.values())) < 2).all()


def packed(
    path: Path, train: int = 20, test: int = 4, size: int = 8, broken: int | None = None, **changed: Any
) -> Path:
    rng, arrays = np.random.default_rng(0), {}
    for split, count in (("train", train), ("test", test)):
        files = []
        for _ in range(count):
            buffer = io.BytesIO()
            Image.fromarray(rng.integers(256, size=(size, size, 3), dtype=np.uint8)).save(buffer, "JPEG")
            files.append(buffer.getvalue())
        if broken is not None and split == "train":
            files[broken] = b"no image at all"
        arrays[f"{split}_jpeg"] = np.frombuffer(b"".join(files), dtype=np.uint8)
        arrays[f"{split}_offsets"] = np.cumsum([0, *map(len, files)])
        arrays[f"{split}_labels"] = np.arange(count) % 2
    arrays["class_names"] = np.array(["cat", "dog"])
    arrays = {key: value for key, value in (arrays | changed).items() if value is not None}
    np.savez(path, **arrays)
    return path


def test_packed_jpegs_are_decoded(tmp_path: Path) -> None:
    images = load_images(str(packed(tmp_path / "a.npz")))
    assert images.shape == (3, 8, 8)
    assert images.classes == ("cat", "dog")
    assert [len(images.labels[split]) for split in ("train", "validation", "test")] == [18, 2, 4]
    assert sorted(images.labels["validation"]) == [0, 1]


def test_classes_that_take_turns_are_in_every_split_and_every_measurement(tmp_path: Path) -> None:
    names = np.array([f"class {i}" for i in range(10)])
    path = packed(
        tmp_path / "turns.npz",
        train=200,
        test=100,
        train_labels=np.arange(200) % 10,
        test_labels=np.arange(100) % 10,
        class_names=names,
    )
    images, again = load_images(str(path)), load_images(str(path))
    for split, each in (("train", 18), ("validation", 2), ("test", 10)):
        assert np.bincount(images.labels[split]).tolist() == [each] * 10
        np.testing.assert_array_equal(images.images[split], again.images[split])
    env = LayerTyingEnv(model="vit", dataset=str(path), n_layer=2, n_embd=8, n_head=2, device="cpu")
    measured = env.windows("train", 60)
    assert len(np.unique(measured["labels"])) == 10
    np.testing.assert_equal(env.windows("train", 60), measured)
    np.testing.assert_array_equal(env.windows("train", 30)["labels"], measured["labels"][:30])


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"broken": 7}, "a.npz, train: image 7 cannot be decoded"),
        ({"train_offsets": np.linspace(0, 9, 21)}, "train_offsets must be whole numbers, got float64, \\[0.0\\] first"),
        ({"train_labels": np.full(20, 0.5)}, "train_labels must be whole numbers, got float64, \\[0.5\\] first"),
        ({"test_labels": np.full(4, "cat")}, "a.npz: test_labels must be whole numbers, got <U3, \\['cat'\\] first"),
        ({"train_offsets": np.arange(20, -1, -1)}, "but image 0 begins at 20 and ends at 19"),
        ({"train_offsets": np.arange(-1, 20)}, "but image 0 begins at -1 and ends at 0"),
        ({"test_jpeg": np.zeros(9, dtype=np.uint8)}, "ascend from 0 to the 9 bytes of test_jpeg, but image 0 begins"),
        ({"class_names": np.array("cat")}, r"class_names must be texts, \(classes,\), got <U3 of shape \(\)"),
        ({"class_names": np.arange(2)}, r"class_names must be texts, \(classes,\), got int64 of shape \(2,\)"),
        ({"train_labels": np.arange(19)}, r"train_labels \(N,\) and train_offsets \(N \+ 1,\), got"),
        ({"train_labels": np.full(20, 2)}, "2 classes, but image 0 of the train split is of class 2"),
        ({"class_names": np.array(["cat"])}, "a.npz' has one class, 'cat', and nothing to tell apart"),
        (
            {"train_labels": np.zeros(20, dtype=int)},
            "the train split of '.*a.npz' has one class, .* and nothing",
        ),
        ({"test_jpeg": None}, "it has no array 'test_jpeg'"),
        ({"class_names": np.array([{}], dtype=object)}, "not a file of packed images"),
    ],
)
def test_a_damaged_file_of_images_is_refused(tmp_path: Path, changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_images(str(packed(tmp_path / "a.npz", **changed)))


def test_what_is_no_file_of_images_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.npz").write_text("text")
    with pytest.raises(ValueError, match=r"text.npz is not a file of packed images"):
        load_images(str(tmp_path / "text.npz"))
    (tmp_path / "one.npz").write_bytes(b"")
    with (tmp_path / "one.npz").open("wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(ValueError, match=r"one.npz is not a file of packed images: it holds one array"):
        load_images(str(tmp_path / "one.npz"))
    with pytest.raises(ValueError, match="unknown images 'mnist': no such file, and not one of digits, cifar10"):
        load_images("mnist")


def test_cifar10_of_the_hub_is_read_from_a_data_set_of_its_form(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    names = ["airplane", "automobile", "bird"]
    features = datasets.Features({"img": datasets.Image(), "label": datasets.ClassLabel(names=names)})
    folder = tmp_path / "plain_text"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for split, count in (("train", 20), ("test", 3)):
        pixels = [Image.fromarray(rng.integers(256, size=(32, 32, 3), dtype=np.uint8)) for _ in range(count)]
        rows = datasets.Dataset.from_dict({"img": pixels, "label": [i % 3 for i in range(count)]}, features=features)
        rows.to_parquet(folder / f"{split}-00000-of-00001.parquet")
        last = np.asarray(pixels[-1]).transpose(2, 0, 1)
    monkeypatch.setattr("tying_env.data.images._HUB_CIFAR10", str(folder))
    images = load_images("cifar10")
    assert images.shape == (3, 32, 32)
    assert images.classes == tuple(names)
    assert [len(images.labels[split]) for split in ("train", "validation", "test")] == [18, 2, 3]
    np.testing.assert_array_equal(images.images["test"][-1], last)


def test_an_epoch_shows_every_example_once_and_continues_where_it_was() -> None:
    examples = {"x": np.arange(10), "labels": np.arange(10) * 2}
    stream = ShuffledExamples(examples, 4, np.random.default_rng(0))
    seen = [stream.next_batch() for _ in range(5)]
    order = np.concatenate([batch["x"] for batch in seen])
    assert sorted(order[:10]) == sorted(order[10:]) == list(range(10))
    assert order[:10].tolist() != order[10:].tolist()
    assert all((batch["labels"] == 2 * batch["x"]).all() for batch in seen)
    for kind in (ShuffledExamples, RandomExamples):
        one, two = (kind(examples, 3, np.random.default_rng(seed)) for seed in (0, 1))
        for _ in range(5):
            one.next_batch()
        two.load_state_dict(json.loads(json.dumps(one.state_dict())))
        twin = copy.deepcopy(one)
        for _ in range(5):
            expected = one.next_batch()
            np.testing.assert_equal([two.next_batch(), twin.next_batch()], [expected, expected])


@pytest.mark.parametrize("change", [{"done": 11}, {"done": "1"}, {"epoch_seed": -1}, {"examples": 9}, {"rng": {}}])
def test_a_state_that_does_not_fit_changes_nothing(change: dict[str, Any]) -> None:
    stream = ShuffledExamples({"x": np.arange(10)}, 4, np.random.default_rng(0))
    before = stream.state_dict()
    with pytest.raises(ValueError, match=r"state|generator"):
        stream.load_state_dict(before | change)
    with pytest.raises(ValueError, match="must be a dictionary"):
        stream.load_state_dict({})
    assert stream.state_dict() == before


def test_augmentation_shifts_and_mirrors_whole_images() -> None:
    pixels = np.arange(1.0, 257.0, dtype=np.float32).reshape(1, 1, 16, 16).repeat(200, axis=0)
    out = augment_images({"pixel_values": pixels, "labels": np.arange(200)}, np.random.default_rng(0), flip=True)
    padded = np.pad(pixels[0, 0], 2)
    possible = {
        window[:, ::step].tobytes(): (row, column, step)
        for row in range(5)
        for column in range(5)
        for step in (1, -1)
        for window in [padded[row : row + 16, column : column + 16]]
    }
    found = {possible[image[0].tobytes()] for image in out["pixel_values"]}
    assert len(found) > 45  # of 50
    assert out["labels"].tolist() == list(range(200))
    still = augment_images({"pixel_values": pixels}, np.random.default_rng(0), flip=False)
    assert {possible[image[0].tobytes()][2] for image in still["pixel_values"]} == {1}


def test_of_the_hidden_tokens_eight_in_ten_are_masked_one_random_one_kept() -> None:
    windows = np.random.default_rng(1).integers(50, size=(400, 100)).astype(np.uint16)
    batch = mask_tokens(windows, 50, np.random.default_rng(0))
    assert batch["positions"].shape == (400, 15)
    assert (np.diff(batch["positions"], axis=1) > 0).all()
    shown = np.take_along_axis(batch["input_ids"], batch["positions"], axis=1)
    np.testing.assert_array_equal(np.take_along_axis(windows, batch["positions"], axis=1), batch["targets"])
    assert (shown == 50).mean() == pytest.approx(0.8, abs=0.02)
    assert (shown == batch["targets"]).mean() == pytest.approx(0.1 + 0.1 / 50, abs=0.02)
    assert ((shown != batch["targets"]) & (shown < 50)).mean() == pytest.approx(0.1, abs=0.02)
    restored = batch["input_ids"].copy()
    np.put_along_axis(restored, batch["positions"], batch["targets"], axis=1)
    np.testing.assert_array_equal(restored, windows)  # nothing else was touched
    assert np.bincount(batch["positions"].ravel(), minlength=100).min() > 30  # anywhere in the window


def test_masks_continue_where_they_were() -> None:
    def stream(seed: int) -> MaskedWindows:
        windows = ShuffledWindows(np.arange(100, dtype=np.uint16), 2, 7, np.random.default_rng(seed))
        return MaskedWindows(windows, 100, np.random.default_rng(seed + 10))

    one, two = stream(0), stream(1)
    for _ in range(3):
        one.next_batch()
    two.load_state_dict(json.loads(json.dumps(one.state_dict())))
    np.testing.assert_equal([two.next_batch() for _ in range(9)], [one.next_batch() for _ in range(9)])
    before = two.state_dict()
    with pytest.raises(ValueError, match="state"):
        two.load_state_dict(before | {"rng": {}})
    assert two.state_dict() == before


def test_a_sample_is_always_the_same_and_a_larger_one_begins_with_it() -> None:
    assert sample(10, 5).tolist() == sample(10, 8).tolist()[:5] != sorted(sample(10, 5))
    assert sorted(set(sample(10, 8))) == sorted(sample(10, 8))
    assert sample(3, 0).tolist() == sample(3, 7).tolist() == [0, 1, 2]
    with pytest.raises(ValueError, match="at least 0"):
        sample(3, -1)
