"""Do the tests notice? Puts known bugs into a scratch copy, one at a time, and looks for a red test.

python -m tests.reliability.mutants
python -m tests.reliability.mutants stream measurement   # those whose names have one of these words

The bugs are of the kind that neighbouring packages have or had, and of the kind that the tests here promise to find.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.reliability.bugs import MUTANTS

ROOT = Path(__file__).parents[2]
COPIED = ("tying_env", "agents", "scripts", "tests", "pyproject.toml", "README.md", "constraints.txt")


def main(words: list[str]) -> int:
    """Try all, or those whose names have one of these words; return 0 if each was noticed."""
    mutants = [mutant for mutant in MUTANTS if not words or any(word in mutant.name for word in words)]
    noticed = 0
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        for mutant in mutants:
            started, path = time.monotonic(), Path(folder) / "copy"
            shutil.rmtree(path, ignore_errors=True)
            path.mkdir()
            for name in COPIED:
                copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copyfile
                copy(ROOT / name, path / name)
            text = (path / mutant.file).read_text()
            assert mutant.right in text, f"{mutant.name}: {mutant.file} has changed"
            (path / mutant.file).write_text(text.replace(mutant.right, mutant.wrong))
            red = _is_red(path, mutant.tests)
            noticed += red
            print(f"{'red  ' if red else 'GREEN'}  {mutant.name}  ({time.monotonic() - started:.0f} s)", flush=True)
    print(f"{noticed} of {len(mutants)} bugs noticed")
    return 0 if noticed == len(mutants) > 0 else 1


def _is_red(path: Path, tests: str) -> bool:
    """Run the tests in a copy, and tell whether one failed. Not to find any is an error, not a success."""
    arguments = [word for word in tests.split() if word != "-k"]
    files = [word for word in arguments if word.endswith(".py")]
    names = [word for word in arguments if not word.endswith(".py")]
    chosen = ["-k", " and ".join(names)] if names else []
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *files, *chosen],
        cwd=path,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(path), str(path / "agents")]), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    if done.returncode not in (0, 1):
        raise RuntimeError(f"pytest could not run {tests}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.returncode == 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
