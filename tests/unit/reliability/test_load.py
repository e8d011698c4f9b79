"""What a struck stream's pause is, and how streams are counted."""

from __future__ import annotations

import pytest

from reliability.caller import Answer, says_something
from reliability.load import Blow, Load, Plan, Stream, failed, gap_of, rows


def test_a_gap_is_the_longest_pause_less_the_normal_one() -> None:
    answer = Answer(200, "req_1", pieces=[0.0, 0.1, 0.2, 0.5, 0.6])
    assert gap_of(answer) == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("event", "says"),
    [
        (b'data: {"choices":[{"delta":{"content":"a"}}]}', True),
        (b'data: {"choices":[{"delta":{"tool_calls":[{"index":0}]}}]}', True),
        (b'data: {"choices":[{"delta":{"role":"assistant","content":""}}]}', False),
        (b'data: {"choices":[],"usage":{}}', False),
        (b"data: [DONE]", False),
        (b": keep-alive", False),
    ],
)
def test_only_events_with_words_are_pieces(event: bytes, says: bool) -> None:
    assert says_something(event) is says


def test_every_stream_counts_and_only_carried_on_ones_have_gaps() -> None:
    streams = (
        Stream(0),
        Stream(1, struck=True, gap_seconds=0.1),
        Stream(2, struck=True),
        Stream(3, "the stream ends in the middle of an event", struck=True, gap_seconds=0.3),
    )
    load = Load(Plan(Blow.KILL, 4), streams, blows=2)
    [row] = rows(load)
    assert (row.n, row.failures) == (4, 1)
    assert row.gaps is not None
    assert row.gaps.n == 2
    assert row.seen == "2 blows struck 3 streams"
    assert len(failed(streams, 1)) == 1
