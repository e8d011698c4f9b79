"""Two machines with one identity take turns; the starts of one agent never do."""

from __future__ import annotations

from shrk_coordinator.state.starts import ALONE_SECONDS, FORGET_SECONDS, STARTS_MAX, Starts

A, B = (5, b"a"), (6, b"b")


def test_starts_that_follow_each_other_are_one_agent() -> None:
    starts = Starts()
    assert all(starts.dialled(float(n), (n, bytes([n])), "h", None) for n in range(200))


def test_one_start_may_dial_as_often_as_it_likes() -> None:
    starts = Starts()
    assert all(starts.dialled(float(n), A, "h", A) for n in range(100))


def test_a_late_hello_of_an_agent_that_was_followed_is_forgiven_once() -> None:
    starts = Starts()
    assert starts.dialled(0.0, A, "h", None)
    assert starts.dialled(1.0, B, "h", A)
    assert starts.dialled(2.0, A, "h", B)
    assert starts.dialled(3.0, B, "h", B)
    assert starts.copied_since is None


def test_starts_that_take_turns_are_two_machines_whether_they_tell_an_id_or_not() -> None:
    for first, second in ((A, B), ((5, b""), (6, b"")), ((6, b"a"), (6, b"b"))):
        starts = Starts()
        assert starts.dialled(0.0, first, "192.0.2.1", None)
        assert starts.dialled(1.0, second, "192.0.2.2", first)
        assert starts.dialled(61.0, first, "192.0.2.1", second)
        assert not starts.dialled(121.0, first, "192.0.2.1", second)
        assert starts.copied_since == 121.0
        assert starts.words() == "two machines use its identity (they dial from 192.0.2.1 and 192.0.2.2)"


def copied() -> Starts:
    starts = Starts()
    for at, start in ((0.0, A), (1.0, B), (2.0, A), (3.0, A)):
        starts.dialled(at, start, "", None)
    assert starts.copied_since == 3.0
    return starts


def test_while_both_go_on_neither_is_let_in() -> None:
    starts = copied()
    moments = [60.0 * n for n in range(1, 100)]
    assert not any(starts.dialled(at, start, "", None) for at in moments for start in (A, B))


def test_the_one_that_goes_on_alone_is_let_in_again() -> None:
    starts = copied()
    assert not starts.dialled(4.0, B, "", None)
    assert not starts.dialled(4.0 + ALONE_SECONDS, A, "", None)
    assert starts.dialled(5.0 + ALONE_SECONDS, A, "", None)
    assert starts.copied_since is None
    assert starts.dialled(6.0 + ALONE_SECONDS, A, "", None)


def test_a_start_that_was_not_heard_of_for_long_is_new_when_it_comes_back() -> None:
    starts = Starts()
    starts.dialled(0.0, A, "", None)
    starts.dialled(1.0, B, "", A)
    for n in range(1, 5):
        assert starts.dialled(n * (FORGET_SECONDS + 2), (6 + n, b""), "", None)
    assert starts.dialled(5 * (FORGET_SECONDS + 2), A, "", None)


def test_what_is_remembered_is_bounded_and_the_one_that_is_linked_is_kept() -> None:
    starts = Starts()
    starts.dialled(0.0, A, "", None)
    for n in range(10 * STARTS_MAX):
        starts.dialled(float(n), (n, b"other"), "", A)
    assert len(starts._seen) <= STARTS_MAX + 1
    assert A in starts._seen
