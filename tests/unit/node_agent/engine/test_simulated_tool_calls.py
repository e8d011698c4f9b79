"""Reading tool calls out of the model's text, in whatever pieces it comes."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shrk_node_agent.engine.simulated.tool_calls import Call, ToolCallReader, read_whole

TEXT = '<tool_call>\n{"name": "a\\"b", "arguments": {"x": "}{\\"", "y": [1, {"z": 2}]}}\n</tool_call>'
CALL = Call('a"b', '{"x": "}{\\"", "y": [1, {"z": 2}]}')


@given(st.lists(st.integers(0, len(TEXT)), max_size=20))
def test_a_call_is_the_same_in_whatever_pieces_it_comes(cuts: list[int]) -> None:
    reader = ToolCallReader()
    edges = [0, *sorted(cuts), len(TEXT)]
    pieces = [p for a, b in itertools.pairwise(edges) for p in reader.feed(TEXT[a:b])] + reader.end()
    assert [p.name for p in pieces if p.name is not None] == [CALL.name]
    assert "".join(p.arguments or "" for p in pieces) == CALL.arguments
    assert all(p.content is None for p in pieces)


def test_a_whole_call_is_read_with_name_and_arguments() -> None:
    assert read_whole(TEXT) == (None, CALL)


@pytest.mark.parametrize("text", ["", "plain words", "<tool", "<tool_call>\n{", "< tool_call>", "see <tool_call>"])
def test_all_else_is_content(text: str) -> None:
    assert read_whole(text) == (text, None)
    reader = ToolCallReader()
    pieces = [piece for character in text for piece in reader.feed(character)] + reader.end()
    assert "".join(piece.content or "" for piece in pieces) == text


def test_a_call_that_is_cut_off_keeps_the_arguments_it_had() -> None:
    assert read_whole(TEXT[:45]) == (None, Call('a"b', CALL.arguments[: 45 - TEXT.index('{"x')]))
