"""Import strings: what they name is found, once, and errors say whose they are."""

import hashlib
import pickle
import sys
from pathlib import Path

import pytest

from tying_env.plugins import (
    ForeignCodeError,
    describe_object,
    foreign_code,
    is_import_string,
    load_object,
    named_again,
)

SOURCE = """
from dataclasses import dataclass

calls = []


@dataclass
class Thing:
    size: "int" = 3


def make():
    return Thing()
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(SOURCE)
    return path


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("my_file.py:make", True),
        ("/some/where/my file.py:Make", True),
        ("package.module:Name", True),
        ("module:name", True),
        ("gpt2", False),
        ("my_file.py", False),
        ("my_file.py:", False),
        (":make", False),
        ("folder/file:make", False),
        ("my_file.py:a.b", False),
        ("a..b:c", False),
        ("module:1", False),
    ],
)
def test_import_strings_are_told_from_names(text: str, expected: bool) -> None:
    assert is_import_string(text) is expected


def test_an_object_of_a_file_is_found_by_absolute_and_by_relative_path(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(file.parent)
    make = load_object(f"{file}:make", "a function")
    assert load_object("mine.py:make", "a function") is make
    assert load_object("../" + file.parent.name + "/mine.py:make", "a function") is make


def test_a_file_runs_once_and_its_classes_are_known_to_pickle(tmp_path: Path, file: Path) -> None:
    file.write_text(
        SOURCE + "\nimport pathlib\nwith open(pathlib.Path(__file__).parent / 'log', 'a') as f: f.write('x')"
    )
    for _ in range(2):
        thing = load_object(f"{file}:Thing", "a class")()
    assert (tmp_path / "log").read_text() == "x"
    assert pickle.loads(pickle.dumps(thing)) == thing
    assert not (tmp_path / "__pycache__").exists()


def test_files_of_one_name_are_two_modules(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "net.py").write_text(f"def f(): return {name!r}")
    assert [load_object(f"{tmp_path}/{name}/net.py:f", "a function")() for name in ("a", "b")] == ["a", "b"]
    assert "net" not in sys.modules


def test_a_module_is_found_by_its_name() -> None:
    assert load_object("tying_env.partition:is_tying", "a function").__module__ == "tying_env.partition"


def test_what_is_not_there_is_named(file: Path, tmp_path: Path) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"absent\.py:f: there is no file .*absent\.py, expected one with a net"
    ):
        load_object(f"{tmp_path}/absent.py:f", "a net")
    with pytest.raises(ModuleNotFoundError, match=r"there is no module 'no_such\.module'.*PYTHONPATH"):
        load_object("no_such.module:f", "a net")
    with pytest.raises(ModuleNotFoundError, match=r"there is no module 'tying_env\.partition\.deeper'"):
        load_object("tying_env.partition.deeper:f", "a net")
    with pytest.raises(ImportError, match=r"mine\.py has no 'mak', expected a net; did you mean 'make'\?"):
        load_object(f"{file}:mak", "a net")
    with pytest.raises(TypeError, match=r"mine\.py:calls must be a net, got list: \[\]"):
        load_object(f"{file}:calls", "a net")
    with pytest.raises(TypeError, match="must be a class"):
        load_object(f"{file}:make", "a class", lambda found: isinstance(found, type))
    with pytest.raises(ValueError, match=r"a net must be named by an import string, .*got 'gpt2'"):
        load_object("gpt2", "a net")


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        ("1 / 0", ZeroDivisionError, "division by zero"),
        ("def f(:", SyntaxError, "invalid syntax"),
        ("import no_such_thing", ModuleNotFoundError, "no_such_thing"),
        ("import sys; sys.exit(3)", SystemExit, "3"),
    ],
)
def test_a_file_that_raises_is_said_to_have_done_so_and_leaves_nothing(
    file: Path, source: str, error: type[BaseException], message: str
) -> None:
    file.write_text(source)
    modules = set(sys.modules)
    with pytest.raises(
        ForeignCodeError, match=rf"mine\.py:f raised {error.__name__} while it was imported: .*{message}"
    ) as caught:
        load_object(f"{file}:f", "a function")
    assert isinstance(caught.value.__cause__, error)
    assert caught.value.__cause__.__traceback__ is not None
    assert set(sys.modules) == modules
    file.write_text("def f(): return 1")  # mended, it can be loaded
    assert load_object(f"{file}:f", "a function")() == 1


def test_a_module_that_raises_is_said_to_have_done_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    package = tmp_path / "raising_package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "inner.py").write_text("import no_such_thing")
    with pytest.raises(ForeignCodeError, match=r"raising_package\.inner:f raised ModuleNotFoundError"):
        load_object("raising_package.inner:f", "a function")
    (package / "__init__.py").write_text("raise OSError('own')")
    for name in [name for name in sys.modules if name.startswith("raising_package")]:
        del sys.modules[name]
    with pytest.raises(ForeignCodeError, match=r"raising_package\.inner:f raised OSError .*own"):
        describe_object("raising_package.inner:f")


def test_errors_of_called_code_say_whose_they_are() -> None:
    with (
        pytest.raises(ForeignCodeError, match="mine:f raised KeyError while it was called: 'x'"),
        foreign_code("mine:f", "while it was called"),
    ):
        raise KeyError("x")


def test_the_description_has_the_hash_of_the_source_that_was_loaded(file: Path) -> None:
    spec = f"{file}:make"
    first = hashlib.sha256(file.read_bytes()).hexdigest()
    assert describe_object(spec) == {"import": spec, "sha256": first}
    load_object(spec, "a function")
    file.write_text(SOURCE + "# changed\n")
    assert describe_object(spec)["sha256"] == first, "the code in memory is the former one"
    found = describe_object("tying_env.partition:is_tying")["sha256"]
    import tying_env.partition

    assert found == hashlib.sha256(Path(tying_env.partition.__file__).read_bytes()).hexdigest()
    with pytest.raises(FileNotFoundError):
        describe_object("absent.py:f")
    with pytest.raises(ImportError, match="has no file"):
        describe_object("sys:exit")


def test_a_description_runs_no_file(file: Path) -> None:
    file.write_text("raise SystemExit")
    assert describe_object(f"{file}:make")["sha256"]


def test_code_that_made_a_file_has_to_be_named_again(
    file: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spec = f"{file}:make"
    stored = describe_object(spec)
    with pytest.raises(
        ValueError, match=r"net was made by .* never makes code run: name it again, model='.*' or --model "
    ):
        named_again(stored, None, "net", "model")
    assert named_again(stored, spec, "net", "model") == spec
    moved, other = tmp_path / "moved.py", tmp_path / "other.py"
    moved.write_text(SOURCE)
    other.write_text(SOURCE + "1")
    assert named_again(stored, f"{moved}:make", "net", "model") == f"{moved}:make"
    with pytest.raises(ValueError, match=r"net was made by '.*mine\.py:make'; '.*other\.py:make' is other code"):
        named_again(stored, f"{other}:make", "net", "model")
    file.write_text(SOURCE + "2")
    assert named_again(stored, spec, "net", "model") == spec
    assert "mine.py:make has changed since net was made by it" in caplog.text
