"""What simulated engines say: each token follows from the prompt, the seed, all tokens before it, and the hardware.

So what a caller was sent can be checked token by token, whichever nodes it came from.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

#: A linear congruential generator of 64 bits (Knuth's MMIX); its high bits are good enough for words.
_FACTOR, _STEP, _MASK = 6364136223846793005, 1442695040888963407, (1 << 64) - 1
#: Different tokens that an engine knows.
VOCABULARY = 50_021
#: An answer ends by itself with a token in so many.
STOP_ONE_IN = 29
#: Hardware of another kind says something else at one token in so many.
UNLIKE_ONE_IN = 24


def prompt_ids(prompt: int) -> tuple[int, ...]:
    """A prompt as every engine of a model tokenises it."""
    return tuple((prompt + 31 * i) % VOCABULARY for i in range(3 + prompt % 5))


def opening(prompt: Iterable[int], seed: int) -> int:
    """The state of an answer before its first token."""
    return after(seed & _MASK, prompt)


def after(state: int, tokens: Iterable[int]) -> int:
    """The state once these tokens have been said."""
    for token in tokens:
        state = ((state ^ token) * _FACTOR + _STEP) & _MASK
    return state


def next_token(state: int, hardware: int) -> int:
    """The token that follows, on this kind of hardware."""
    token = (state >> 33) % VOCABULARY
    if hardware and (state >> 20) % UNLIKE_ONE_IN == 0:
        token = (token + hardware) % VOCABULARY
    return token


def is_last(token: int, count: int, tokens_max: int) -> bool:
    """Whether an answer ends with its token number `count`, which is this one."""
    return count >= tokens_max or token % STOP_ONE_IN == 0


def text_of(token: int) -> str:
    """A token as text."""
    return f"{token} "


def event_of(stream: int, first_index: int, tokens: Sequence[int], padding: int) -> bytes:
    """The event that brings these tokens; it names its attempt, so that a reader knows whose they are."""
    ids = ",".join(map(str, tokens))
    return b"data: %d %d %b %b\n\n" % (stream, first_index, ids.encode(), b"x" * padding)


def read_event(event: bytes) -> tuple[int, int, list[int]]:
    """(stream, first index, tokens) of an event, given without its last line ends."""
    _, stream, first_index, ids, _ = event.split(b" ")
    return int(stream), int(first_index), [int(i) for i in ids.split(b",")] if ids else []
