"""GLUE's files, two rows each, and what is to be read from them."""

from pathlib import Path

import numpy as np

from tying_env.data.glue import GlueExample

# Two rows of each task in the form of its file.
FILES = {
    "sst2": ("SST-2", "sentence\tlabel\nof course \t1\nno \t0\n"),
    "cola": ("CoLA", "gj04\t1\t\tThe sailors rode.\nbc01\t0\t*\tRode the.\n"),
    "qnli": ("QNLI", "index\tquestion\tsentence\tlabel\n0\tWho?\tHe.\tentailment\n1\tWhy?\tBlue.\tnot_entailment\n"),
    "mrpc": ("MRPC", '\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\n1\t7\t8\tHe " said\tSo he\n0\t9\t10\tA\tB\n'),
    "rte": (
        "RTE",
        "index\tsentence1\tsentence2\tlabel\r\n0\tA man.\tA \u2028 man.\tentailment\r\n1\tA.\tB.\tnot_entailment\r\n",
    ),
}
EXPECTED = {
    "sst2": [GlueExample(("of course",), 1), GlueExample(("no",), 0)],
    "cola": [GlueExample(("The sailors rode.",), 1), GlueExample(("Rode the.",), 0)],
    "qnli": [GlueExample(("Who?", "He."), 0), GlueExample(("Why?", "Blue."), 1)],
    "mrpc": [GlueExample(('He " said', "So he"), 1), GlueExample(("A", "B"), 0)],
    "rte": [GlueExample(("A man.", "A \u2028 man."), 0), GlueExample(("A.", "B."), 1)],
}


def write_glue(folder: Path) -> Path:
    """Write the files, and an SST-2 whose label is whether a sentence has an "!"."""
    for name, text in FILES.values():
        (folder / name).mkdir()
        for split in ("train", "dev"):
            (folder / name / f"{split}.tsv").write_text(text, encoding="utf-8", newline="")
    rng = np.random.default_rng(0)
    for split, count in (("train", 160), ("dev", 60)):
        labels = rng.integers(2, size=count)
        rows = [f"{'ab '[rng.integers(3)] * rng.integers(1, 9)}x{'!' if label else '?'}\t{label}" for label in labels]
        (folder / "SST-2" / f"{split}.tsv").write_text("\n".join(["sentence\tlabel", *rows]))
    return folder
