"""Speech: .ts files, recordings as log-mel features, and splits in which every class has its share."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
from transformers.audio_utils import hertz_to_mel

from tests.speech_files import CLASSES, LONGEST, F, tone, ts_text, write_recordings, write_ts, write_wav
from tying_env.data import load_speech
from tying_env.data import speech as speech_module
from tying_env.data.corpus import SPLITS
from tying_env.data.recordings import N_MELS


@pytest.mark.skipif(
    not any(importlib.util.find_spec(package) for package in ("sktime", "aeon")), reason="no package has the data"
)
def test_japanese_vowels_come_from_an_installed_package_that_is_not_imported() -> None:
    before = set(sys.modules)
    vowels = load_speech("japanese-vowels", 29)
    assert not {"sktime", "aeon"} & (set(sys.modules) - before)
    assert vowels.classes == tuple("123456789")
    assert {split: len(labels) for split, labels in vowels.labels.items()} == {
        "train": 216,
        "validation": 54,
        "test": 370,
    }
    assert np.bincount(vowels.labels["validation"]).tolist() == [6] * 9
    assert vowels.features == 12
    assert [min(v.min() for v in vowels.lengths.values()), max(v.max() for v in vowels.lengths.values())] == [7, 29]


def test_without_a_package_that_has_them_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speech_module, "_PACKAGES", ("no_such_package",))
    with pytest.raises(ImportError, match=r"pip install 'tying-env\[speech\]'"):
        load_speech("japanese-vowels", 29)


def test_frames_of_a_file_are_padded_behind_their_ends(tmp_path: Path) -> None:
    first, second = np.arange(6.0).reshape(3, 2), np.array([[0.5, -0.25]])
    (tmp_path / "A_TRAIN.ts").write_text(ts_text([(first, "b")] * 5 + [(second, "a")] * 5))
    (tmp_path / "A_TEST.ts").write_text(ts_text([(second, "a"), (first, "b")]))
    speech = load_speech(str(tmp_path), 3)
    assert (speech.classes, speech.rate) == (("a", "b"), None)
    np.testing.assert_array_equal(speech.frames["test"], [[[0.5, -0.25], [0, 0], [0, 0]], first])
    assert (speech.lengths["test"].tolist(), speech.labels["test"].tolist()) == ([1, 3], [0, 1])
    mean, deviation = speech.scale()
    inside = np.concatenate([first] * 4 + [second] * 4)
    np.testing.assert_allclose([mean, deviation], [inside.mean(0), inside.std(0)], rtol=1e-6)


def test_a_fifth_of_every_class_is_for_validation_and_always_the_same(tmp_path: Path) -> None:
    folder = str(write_ts(tmp_path))
    speech, again = load_speech(folder, LONGEST), load_speech(folder, LONGEST)
    for split, each in (("train", 8), ("validation", 2), ("test", 3)):
        assert np.bincount(speech.labels[split]).tolist() == [each] * len(CLASSES)
        np.testing.assert_array_equal(speech.frames[split], again.frames[split])
    kept = np.concatenate([speech.frames[split][:, :2].reshape(-1, 2 * F) for split in SPLITS])
    assert len(np.unique(kept, axis=0)) == len(kept)  # nothing is in two splits


@pytest.mark.parametrize(
    ("name", "lines", "message"),
    [
        ("TRAIN", None, "A_TRAIN.ts is no .ts file: it has no line '@data'"),
        ("TRAIN", [], "A_TRAIN.ts has no utterances behind '@data'"),
        ("TEST", ["1,2:3,4"], "A_TEST.ts, line 6 must be numbers .* and a class behind the last ':'"),
        ("TEST", ["1,2"], "A_TEST.ts, line 6 must be numbers"),
        ("TEST", ["1,x:3,4:a"], "A_TEST.ts, line 6: could not convert string to float: 'x'"),
        ("TEST", ["1,?:3,4:a"], r"A_TEST.ts, line 6: could not convert string to float: '\?'"),
        ("TEST", ["1,nan:3,4:a"], "A_TEST.ts, line 6 has a number that is not finite"),
        ("TEST", ["1,2:3:a"], r"line 6: all features must have as many frames, got \[1, 2\]"),
        ("TEST", ["1,2:a"], "line 6 has 1 features in a frame, .*A_TRAIN.ts, line 6 has 2"),
        ("TEST", ["1:2:c"], "A_TEST.ts, line 6 is of the class 'c', of which there is no training utterance"),
        ("TEST", ["1:2:a"], "the test split of .* has no utterance of the class 'b'"),
        ("TEST", ["1,2,3,4:1,2,3,4:a", "1:1:b"], "line 6 has 4 frames, more than the 3 of seq_len: raise that"),
        ("TRAIN", ["1:2:a"] * 5, "A_TEST.ts, line 11 is of the class 'b', of which there is no training utterance"),
        ("TRAIN", ["1:2:a"] * 9 + ["1:2:b"] * 4, "has 4 training utterances of the class 'b'; it needs 5"),
    ],
)
def test_a_damaged_file_is_refused_by_name(tmp_path: Path, name: str, lines: list[str] | None, message: str) -> None:
    for part in ("TRAIN", "TEST"):
        (tmp_path / f"A_{part}.ts").write_text(ts_text([]) + "\n".join(["", *["1:2:a"] * 5, *["1:2:b"] * 5]))
    path = tmp_path / f"A_{name}.ts"
    path.write_text("a text" if lines is None else ts_text([]) + "\n".join(["", *lines]))
    with pytest.raises(ValueError, match=message):
        load_speech(str(tmp_path), 3)


def test_what_is_no_speech_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="unknown speech 'timit': no such folder, and not one of japanese-vowels"):
        load_speech("timit", 9)
    for name in "AB":
        (tmp_path / f"{name}_TRAIN.ts").write_text("")
    with pytest.raises(ValueError, match=r"must have one file _TRAIN.ts, got A_TRAIN.ts, B_TRAIN.ts"):
        load_speech(str(tmp_path), 9)
    (tmp_path / "B_TRAIN.ts").unlink()
    (tmp_path / "A_TRAIN.ts").write_text(ts_text([(np.ones((1, 1)), "a")]))
    with pytest.raises(ValueError, match=r"A_TEST.ts cannot be read"):
        load_speech(str(tmp_path), 9)


def test_recordings_are_frames_of_log_mel_energies(tmp_path: Path) -> None:
    pytest.importorskip("soundfile")
    speech = load_speech(str(write_recordings(tmp_path)), 20)
    assert (speech.classes, speech.features, speech.rate) == (("high", "low"), N_MELS, 8000)
    assert {split: np.bincount(labels).tolist() for split, labels in speech.labels.items()} == {
        "train": [8, 8],
        "validation": [1, 1],
        "test": [1, 1],
    }
    # A frame every 10 ms, one at the start as well; its strongest band is that of the tone.
    assert sorted({*speech.lengths["train"].tolist()}) == [6, 7]
    for name, hertz in (("high", 2000), ("low", 400)):
        rows = speech.frames["train"][speech.labels["train"] == speech.classes.index(name)]
        band = int(rows[:, 1:4].mean((0, 1)).argmax())
        expected = hertz_to_mel(hertz + 45.0) / hertz_to_mel(4000.0) * (N_MELS + 1) - 1
        assert abs(band - expected) < 1


def test_splits_of_recordings_may_be_folders(tmp_path: Path) -> None:
    pytest.importorskip("soundfile")
    for split, hertz in (("train", 500.0), ("valid", 600.0), ("test", 700.0)):
        for label in ("a", "b"):
            write_wav(tmp_path / split / label / "x.WAV", tone(hertz))
        write_wav(tmp_path / split / "_noise_" / "x.wav", tone(hertz, 9.0))
    speech = load_speech(str(tmp_path), 20)
    assert [speech.labels[split].tolist() for split in SPLITS] == [[0, 1]] * 3
    assert (speech.frames["train"] != speech.frames["validation"]).any()


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("text", r"low/3.wav is no recording that can be read"),
        ("rate", r"low/3.wav has 16,000 samples a second and .*high/0.wav has 8,000: resample"),
        ("channels", r"low/3.wav must have one channel with samples, got 2"),
        ("empty", r"low/3.wav must have one channel with samples, got 1 with 0"),
        ("long", r"low/3.wav has 101 frames, more than the 20 of seq_len"),
        ("slow", r"high/0.wav must have at least 4,000 samples a second, got 2,000"),
        ("no files", r"folder .*none must have .wav files, the utterances of the class 'none'"),
        (
            "cut",
            r"low/3.wav .* is cut short: its header promises 448 frames \(896 bytes\), and 400 \(800 bytes\)",
        ),
        ("cut by a byte", r"low/3.wav .* promises 448 frames \(896 bytes\), and 447 \(895 bytes\) are there"),
        ("cut to its header", r"low/3.wav .* promises 448 frames \(896 bytes\), and 0 \(0 bytes\) are there"),
        ("few", r"has 9 training utterances of the class 'low'; it needs 10"),
        ("no test", r"must have both train/ and test/, or neither, got train/"),
    ],
)
def test_recordings_that_cannot_be_read_are_named(tmp_path: Path, fault: str, message: str) -> None:
    pytest.importorskip("soundfile")
    folder = write_recordings(tmp_path / "data")
    path = folder / "low" / "3.wav"
    whole = path.read_bytes()
    {
        "text": lambda: path.write_text("no sound"),
        "rate": lambda: write_wav(path, tone(400), 16000),
        "channels": lambda: write_wav(path, tone(400), channels=2),
        "empty": lambda: write_wav(path, tone(400, 0)),
        "long": lambda: write_wav(path, tone(400, 1)),
        "slow": lambda: write_wav(folder / "high" / "0.wav", tone(400), 2000),
        "no files": (folder / "none").mkdir,
        "cut": lambda: path.write_bytes(whole[:-96]),
        "cut by a byte": lambda: path.write_bytes(whole[:-1]),
        "cut to its header": lambda: path.write_bytes(whole[:44]),
        "few": path.unlink,
        "no test": (folder / "train").mkdir,
    }[fault]()
    with pytest.raises(ValueError, match=message):
        load_speech(str(folder), 20)


def test_utterances_of_a_single_class_are_refused(tmp_path: Path) -> None:
    pytest.importorskip("soundfile")
    for i in range(10):
        write_wav(tmp_path / "wav" / "yes" / f"{i}.wav", tone(400))
    (tmp_path / "ts").mkdir()
    for part in ("TRAIN", "TEST"):
        (tmp_path / "ts" / f"A_{part}.ts").write_text(ts_text([(np.ones((1, 1)), "yes")] * 5))
    for name in ("wav", "ts"):
        with pytest.raises(ValueError, match=rf"{name}' has one class, 'yes', and nothing to tell apart"):
            load_speech(str(tmp_path / name), 20)


@pytest.mark.parametrize("promised", [0xFFFFFFFF, 0x7FFFFFFF])
def test_a_recording_that_was_written_into_a_pipe_is_read_to_its_end(tmp_path: Path, promised: int) -> None:
    pytest.importorskip("soundfile")
    folder = write_recordings(tmp_path)
    expected = load_speech(str(folder), 20)
    path = folder / "low" / "3.wav"
    whole = path.read_bytes()
    path.write_bytes(whole[:40] + promised.to_bytes(4, "little") + whole[44:])
    found = load_speech(str(folder), 20)
    assert all(np.array_equal(found.frames[split], expected.frames[split]) for split in SPLITS)


def test_recordings_need_a_folder_of_classes_and_a_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"must have a subfolder of \.wav files for each class, got none"):
        load_speech(str(tmp_path), 9)
    write_wav(tmp_path / "a" / "0.wav", tone(400))
    monkeypatch.setitem(sys.modules, "soundfile", None)
    with pytest.raises(ImportError, match=r"recordings need the package soundfile \(pip install 'tying-env\[speech\]'"):
        load_speech(str(tmp_path), 9)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("train/a/1.flac", r"1\.flac must be a \.wav file"),
        ("train/a/more/1.wav", r"the recordings of the class 'a' must stand in .*a itself, got .*more"),
        ("train/1.wav", r"train/1\.wav stands beside the subfolders of the classes"),
        ("1.wav", r"1\.wav stands beside the subfolders of the classes"),
        ("val/a/1.wav", r"may have train/, valid/ and test/, got val/ beside them"),
    ],
)
def test_sound_that_would_not_be_read_is_refused(tmp_path: Path, path: str, message: str) -> None:
    pytest.importorskip("soundfile")
    for split in ("train", "test"):
        for label in ("a", "b"):
            for number in range(10):
                write_wav(tmp_path / split / label / f"{number}.wav", tone(500.0 + 10 * number))
    for text in ("LICENSE", "train/README.md", "train/a/words.txt"):
        (tmp_path / text).write_text("a text")
    assert len(load_speech(str(tmp_path), 20).labels["test"]) == 20
    write_wav(tmp_path / path, tone(700.0))
    with pytest.raises(ValueError, match=message):
        load_speech(str(tmp_path), 20)
