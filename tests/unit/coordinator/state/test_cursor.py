"""The commit cursor: the rule that decides which piece may reach a caller."""

from __future__ import annotations

import random

import pytest

from shrk_coordinator.state.cursor import CommitCursor, PieceVerdict

ACCEPTED, STALE, BROKEN = PieceVerdict.ACCEPTED, PieceVerdict.STALE, PieceVerdict.BROKEN


def accept(cursor: CommitCursor, stream: int, sequence: int, first_index: int, tokens: int = 1) -> PieceVerdict:
    return cursor.accept(stream, sequence, first_index, tokens, digest=sequence)


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


def test_the_next_attempt_goes_on_where_the_cursor_stands_and_the_one_before_is_not_heard() -> None:
    cursor = CommitCursor()
    cursor.admit(1)
    assert accept(cursor, 1, 0, 0, tokens=3) is ACCEPTED
    cursor.hand_on(2)
    assert accept(cursor, 1, 1, 3) is STALE
    assert accept(cursor, 2, 0, 3, tokens=2) is ACCEPTED
    assert accept(cursor, 1, 1, 3) is STALE
    assert (cursor.current, cursor.index) == (2, 5)


@pytest.mark.parametrize("first_index", [0, 2, 4])
def test_who_goes_on_must_begin_with_the_token_that_is_due(first_index: int) -> None:
    cursor = CommitCursor()
    cursor.admit(1)
    assert accept(cursor, 1, 0, 0, tokens=3) is ACCEPTED
    cursor.hand_on(2)
    assert accept(cursor, 2, 0, first_index) is BROKEN
    assert (cursor.current, cursor.index) == (None, 3)


def test_an_answer_may_be_handed_on_again_before_anybody_went_on() -> None:
    cursor = CommitCursor()
    cursor.admit(1)
    assert accept(cursor, 1, 0, 0) is ACCEPTED
    cursor.hand_on(2)
    cursor.hand_on(3)
    assert accept(cursor, 2, 0, 1) is STALE
    assert accept(cursor, 3, 0, 1) is ACCEPTED


def test_half_an_event_leaves_the_digest_and_brings_no_tokens() -> None:
    cursor = CommitCursor()
    cursor.admit(1)
    assert cursor.accept(1, 0, 0, tokens=2, digest=7) is ACCEPTED
    assert cursor.accept(1, 1, 2, tokens=0, digest=8, more=True) is ACCEPTED
    assert (cursor.index, cursor.digest) == (2, 7)
    assert cursor.accept(1, 2, 2, tokens=1, digest=9, more=True) is BROKEN
    assert (cursor.index, cursor.digest) == (2, 7)
    assert cursor.accept(1, 2, 2, tokens=1, digest=9) is ACCEPTED
    assert (cursor.index, cursor.digest) == (3, 9)


def test_what_is_not_accepted_moves_nothing() -> None:
    cursor = CommitCursor()
    cursor.admit(1)
    assert cursor.accept(1, 0, 0, tokens=2, digest=7) is ACCEPTED
    for sequence, first_index in ((0, 0), (2, 2), (1, 1), (1, 3)):
        assert cursor.accept(1, sequence, first_index, tokens=5, digest=8) is not ACCEPTED
    assert (cursor.index, cursor.digest) == (2, 7)


def test_a_repeated_piece_is_dropped_and_a_gap_breaks_the_contract() -> None:
    cursor = CommitCursor()
    cursor.admit(1)
    assert accept(cursor, 1, 0, 0, tokens=3) is ACCEPTED
    assert accept(cursor, 1, 0, 0, tokens=3) is STALE
    assert accept(cursor, 1, 2, 4) is BROKEN
    assert accept(cursor, 1, 1, 2) is BROKEN
    assert accept(cursor, 1, 1, 3) is ACCEPTED
    assert (cursor.index, cursor.digest) == (4, 1)


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


@pytest.mark.parametrize("seed", range(100))
def test_however_often_an_answer_is_handed_on_every_token_is_accepted_exactly_once(seed: int) -> None:
    print(f"seed {seed}")
    rng = random.Random(seed)
    cursor, said, length = CommitCursor(), [], 40
    cursor.admit(1)
    late: list[tuple[int, int, int, int]] = []
    for stream in range(1, 50):
        sequence, index = 0, cursor.index
        while index < length and rng.random() < 0.8:
            piece = (stream, sequence, index, min(rng.randrange(4), length - index))
            sequence, index = sequence + 1, index + piece[3]
            late.append(piece)
            # What others sent before is heard again, in between and in any order.
            for heard in (*rng.sample(late, rng.randrange(min(3, len(late)) + 1)), piece):
                if accept(cursor, *heard) is ACCEPTED:
                    said += range(heard[2], heard[2] + heard[3])
        cursor.hand_on(stream + 1)
    assert said == list(range(cursor.index))
    assert cursor.index == length
