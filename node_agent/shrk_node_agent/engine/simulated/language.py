"""What the simulated model says: the next token as a pure function of the whole id sequence before it.

So equal engines give equal text, a resumed prefix goes on as the unbroken run would, and a wrong, short or
repeated prefix gives visibly different text. The seed takes part only where the caller's temperature lets it.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Sequence
from hashlib import blake2b

from shrk_node_agent.engine.simulated import prompts, vocabulary
from shrk_node_agent.engine.simulated.vocabulary import COMMA, END, PERIOD, ROLES, WORDS, word_id

#: An answer ends at a full stop after this many tokens, or …
ANSWER_TOKENS_MIN = 16
#: … at the latest here, its end not counted.
ANSWER_TOKENS_MAX = 64


class Speaker:
    """Goes on from a sequence of token ids, one token a call."""

    def __init__(
        self,
        ids: Sequence[int],
        *,
        seed: int = 0,
        script: Sequence[int] | None = None,
        ignore_eos: bool = False,
        min_tokens: int = 0,
    ) -> None:
        """`script` forces the first tokens (a grammar does that); a call to a tool is read off `ids` instead."""
        # blake2b takes its input in any portions: the digest depends on the ids alone, not on where a prompt ended.
        self._digest = blake2b(array("I", ids).tobytes(), digest_size=8, salt=struct.pack("<q", seed))
        self._last = ids[-1] if ids else -1
        self._run = _words_at_end(ids)
        self._script = script if script is not None else prompts.tool_call_ahead(ids)
        self._said = 0
        self._ignore_eos = ignore_eos
        self._min_tokens = min_tokens

    def next(self) -> int:
        """The next token; END where the answer ends."""
        token = self._next_of_script()
        if token is None:
            token = self._next_word()
        self._digest.update(array("I", (token,)).tobytes())
        self._run = self._run + 1 if vocabulary.is_word(token) else 0
        self._last = token
        self._said += 1
        return token

    def _next_of_script(self) -> int | None:
        if not self._script or self._said >= len(self._script):
            return None
        token = self._script[self._said]
        return None if token == END and not self._may_end() else token

    def _may_end(self) -> bool:
        return not self._ignore_eos and self._said >= self._min_tokens

    def _next_word(self) -> int:
        draw = int.from_bytes(self._digest.copy().digest(), "little")
        word = (draw >> 8) % len(WORDS)
        if self._last == PERIOD:
            long_enough = self._run >= ANSWER_TOKENS_MAX - 1 or (self._run >= ANSWER_TOKENS_MIN and draw & 1)
            if long_enough and self._may_end():
                return END
            return word_id(word, space=True, title=True)
        if self._run == 0:
            begins = self._last in ROLES or self._last == -1
            return word_id(word, space=not begins, title=begins)
        if self._run >= ANSWER_TOKENS_MAX - 1 and self._may_end():
            return PERIOD
        if self._last != COMMA:
            mark = draw & 15
            if mark < 2:
                return PERIOD
            if mark == 2:
                return COMMA
        return word_id(word, space=True, title=False)


def _words_at_end(ids: Sequence[int]) -> int:
    """How many tokens at the end are words: an answer's length so far, wherever it was broken off."""
    count = 0
    for token in reversed(ids):
        if not vocabulary.is_word(token):
            break
        count += 1
    return count


def answer(
    prompt_ids: Sequence[int],
    seed: int = 0,
    max_tokens: int = ANSWER_TOKENS_MAX + 1,
    *,
    script: Sequence[int] | None = None,
    ignore_eos: bool = False,
    min_tokens: int = 0,
) -> list[int]:
    """The ids an engine answers with, END included where it comes within `max_tokens`."""
    speaker = Speaker(prompt_ids, seed=seed, script=script, ignore_eos=ignore_eos, min_tokens=min_tokens)
    ids: list[int] = []
    while len(ids) < max_tokens:
        ids.append(speaker.next())
        if ids[-1] == END and not ignore_eos:
            break
    return ids
