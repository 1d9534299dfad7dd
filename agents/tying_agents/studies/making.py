"""The commands of a study, each with its folder and its data."""

from pathlib import Path

from tying_agents.studies.plan import STUDIES
from tying_agents.studies.study import BEFORE, folder_of


def commands_of(name: str, out: Path, dataset: str | None) -> list[list[str]]:
    """Return the commands of a study, each with a folder of its own."""
    study = STUDIES[name]
    found: list[list[str]] = []
    # 0 bytes: all the text there is.
    for train_bytes, commands in study.train_bytes.items() or [(0, study.commands)]:
        data = text_folder(name, out, train_bytes) if train_bytes else dataset
        for number, words in enumerate(commands):
            parts = [f"{train_bytes // 1000}KB"] if train_bytes else []
            parts += [str(number)] if len(commands) > 1 and not study.one_folder else []
            named = ["--dataset", str(data)] if data else []
            before = found[-1][-1] if found else ""
            given = [word.replace(BEFORE, before) for word in words]
            for earlier, made in enumerate(found):
                given = [word.replace(folder_of(earlier), made[-1]) for word in given]
            place = out.joinpath(name, *parts)
            if words[0] == "report":  # a page, and figures beside it
                found.append([*given, "--figures", str(place), "--force", "--out", f"{place}.md"])
            else:
                found.append([*given, *named, "--out", str(place)])
    return found


def text_folder(name: str, out: Path, train_bytes: int) -> Path:
    """Return where so much training text of a study lies."""
    return out / name / "texts" / f"{train_bytes // 1000}KB"
