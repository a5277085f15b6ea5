"""The planted bugs fit the code they are planted in, so that `make mutants` never plants none."""

from pathlib import Path

import pytest

from tests.mutations.mutants import MUTANTS, mutated

ROOT = Path(__file__).parents[2]

every_mutant = pytest.mark.parametrize("mutant", MUTANTS, ids=[one.name for one in MUTANTS])


@every_mutant
def test_a_planted_bug_changes_the_code_and_compiles(mutant):
    changed = mutated(mutant, ROOT)

    assert changed != (ROOT / mutant.file).read_text()
    if mutant.file.endswith(".py"):
        compile(changed, mutant.file, "exec")


@every_mutant
def test_the_tests_that_must_see_a_bug_exist(mutant):
    assert mutant.tests
    for test in mutant.tests:
        assert (ROOT / test.partition("::")[0]).exists()
