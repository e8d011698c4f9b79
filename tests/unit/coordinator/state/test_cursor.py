"""The commit cursor: the rule that decides which piece may reach a caller."""

from __future__ import annotations

import random

import pytest

from shrk_coordinator.state.cursor import CommitCursor, PieceVerdict

ACCEPTED, STALE, BROKEN = PieceVerdict.ACCEPTED, PieceVerdict.STALE, PieceVerdict.BROKEN


def accept(cursor: CommitCursor, stream: int, sequence: int, first_index: int, tokens: int = 1) -> PieceVerdict:
    return cursor.accept(stream, sequence, first_index, tokens, size=10, digest=sequence)


def test_the_first_accepted_piece_makes_its_attempt_current_and_fences_the_others() -> None:
    cursor = CommitCursor()
    cursor.admit(1)
    cursor.admit(2)
    assert accept(cursor, 2, 0, 0) is ACCEPTED
    assert cursor.current == 2
    assert accept(cursor, 1, 0, 0) is STALE


def test_an_attempt_that_was_never_admitted_is_not_heard() -> None:
    cursor = CommitCursor()
    cursor.admit(1)
    assert accept(cursor, 7, 0, 0) is STALE
    assert cursor.current is None


def test_a_withdrawn_attempt_is_not_heard() -> None:
    cursor = CommitCursor()
    cursor.admit(1)
    cursor.withdraw(1)
    assert accept(cursor, 1, 0, 0) is STALE


def test_a_repeated_piece_is_dropped_and_a_gap_breaks_the_contract() -> None:
    cursor = CommitCursor()
    cursor.admit(1)
    assert accept(cursor, 1, 0, 0, tokens=3) is ACCEPTED
    assert accept(cursor, 1, 0, 0, tokens=3) is STALE
    assert accept(cursor, 1, 2, 4) is BROKEN
    assert accept(cursor, 1, 1, 2) is BROKEN
    assert accept(cursor, 1, 1, 3) is ACCEPTED
    assert (cursor.index, cursor.bytes, cursor.digest) == (4, 20, 1)


def test_an_answer_must_begin_at_its_beginning() -> None:
    cursor = CommitCursor()
    cursor.admit(1)
    assert accept(cursor, 1, 1, 0) is BROKEN
    assert accept(cursor, 1, 0, 5) is BROKEN
    assert cursor.current is None


@pytest.mark.parametrize("seed", range(100))
def test_however_pieces_are_repeated_dropped_or_mixed_what_is_accepted_is_one_unbroken_run(seed: int) -> None:
    print(f"seed {seed}")
    rng = random.Random(seed)
    cursor = CommitCursor()
    runs = {}
    for stream in (1, 2):
        cursor.admit(stream)
        index, run = 0, []
        for sequence in range(30):
            tokens = rng.randrange(4)
            run.append((stream, sequence, index, tokens))
            index += tokens
        runs[stream] = run
    sent = [piece for _ in range(200) for piece in [rng.choice(runs[rng.choice((1, 2))])]]
    # In order, with noise in between: an attempt that is never silent gets through.
    sent = [noise for piece in runs[1] for noise in (*rng.sample(sent, 3), piece)]
    accepted = [piece for piece in sent if accept(cursor, *piece) is ACCEPTED]
    [stream] = {piece[0] for piece in accepted} or {1}
    assert accepted == runs[stream][: len(accepted)]
    assert cursor.index == sum(piece[3] for piece in accepted)
