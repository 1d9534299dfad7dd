"""The bugs that `tests.reliability.mutants` puts back fit the package as it is."""

import pytest

from tests.reliability.bugs import MUTANTS, Mutant
from tests.reliability.mutants import ROOT


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_known_bug_can_be_put_back(mutant: Mutant) -> None:
    assert mutant.right in (ROOT / mutant.file).read_text(encoding="utf-8")
    assert (ROOT / mutant.tests.split()[0]).exists()
