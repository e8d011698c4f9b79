"""Which cases there are, which of them a sample takes, and what is made of their runs."""

from __future__ import annotations

from collections import Counter

import pytest

from reliability.faults import Fault
from reliability.matrix import Case, Run, every_case, failed, rows, sample
from reliability.shapes import POSITIONS, QUESTIONS, Shape, request


def test_the_whole_matrix_has_every_position_of_every_fault_and_shape() -> None:
    assert len(set(every_case())) == len(every_case()) == 65 * 8 * 4


@pytest.mark.parametrize("seed", range(5))
def test_a_sample_has_every_position_equally_often_and_every_fault_with_every_shape(seed: int) -> None:
    cases = sample(seed)
    assert len(set(cases)) == len(cases) == 260
    assert set(Counter(case.position for case in cases).values()) == {4}
    pairs = Counter((case.fault, case.shape) for case in cases)
    assert len(pairs) == 32
    assert set(pairs.values()) == {8, 9}


def test_seeds_choose_other_samples() -> None:
    assert set(sample(1)) != set(sample(2))


def test_a_case_is_read_as_it_is_written() -> None:
    assert all(Case.parse(str(case)) == case for case in every_case())


@pytest.mark.parametrize("text", ["kill-engine", "kill-engine/tool", "burn/tool/1", "drain/song/1", "drain/tool/65"])
def test_a_case_that_is_none_is_refused_with_what_is_allowed(text: str) -> None:
    with pytest.raises(ValueError, match="kill-agent"):
        Case.parse(text)


def test_questions_are_the_same_for_the_same_seed_and_differ_otherwise() -> None:
    asked = [str(request(shape, "m", at, seed)) for shape in Shape for at in range(QUESTIONS) for seed in (1, 2)]
    assert asked == [
        str(request(shape, "m", at, seed)) for shape in Shape for at in range(QUESTIONS) for seed in (1, 2)
    ]
    assert len(set(asked)) == len(asked)


def test_only_a_repeated_piece_of_an_answer_that_is_not_streamed_cannot_be_felt() -> None:
    unfelt = [case for case in every_case() if not case.strikes]
    assert len(unfelt) == POSITIONS
    assert {(case.fault, case.shape) for case in unfelt} == {(Fault.REPEATED_PIECE, Shape.WHOLE)}


def test_every_run_counts_once_and_every_failure_is_named_with_its_command() -> None:
    good = Run(Case(Fault.DRAIN, Shape.TEXT, 3), ways=("by_ids",), seam=3, gap_seconds=0.05)
    late = Run(Case(Fault.DRAIN, Shape.TEXT, 4), ways=("replay",), seam=5, gap_seconds=0.15)
    bad = Run(Case(Fault.DRAIN, Shape.WHOLE, 0), "status 502: lost")
    [row] = rows([good, late, bad])
    assert (row.n, row.failures) == (3, 1)
    assert row.gaps is not None
    assert row.gaps.p99_ms == pytest.approx(150)
    assert "1 of 2 seams exactly" in row.seen
    assert failed([good, late, bad], 9) == (
        'status 502: lost  [python -m reliability --only matrix --case "drain/whole/0" --seed 9]',
    )
