"""The simulated model's vocabulary: ids for every text, and back without loss.

Words it speaks are one token each; other English-looking words are spelt in syllables of up to three letters;
all else is UTF-8 bytes. Real tokenizers come to about four characters a token; this one to three.
"""

from __future__ import annotations

import itertools
import re
import string
from collections.abc import Iterable, Sequence
from functools import lru_cache

BEGIN, END, SYSTEM, USER, ASSISTANT, TOOL, TOOLS, TOOL_CALL, TOOL_CALL_END, PERIOD, COMMA = range(11)
ROLES = frozenset({SYSTEM, USER, ASSISTANT, TOOL})
#: How END looks to those who want to see markers; all others are never generated.
END_TEXT = "<|end|>"
#: Ids below are markers that no text encodes to; a byte's id is BYTES + its value.
BYTES = 16
#: Each word has FORMS ids from here: "word", " word", "Word", " Word".
WORDS_START = BYTES + 256
FORMS = 4

_SPOKEN = """
the a of and in on to with for from by at over under near after before while where that this each no every one
two three four many some small large long short slow quick warm cold bright dark quiet loud old new blue green
red grey white black golden silver river stone light water wind fire cloud rain snow storm sea shore wave tide
ship sail harbour island mountain valley forest tree leaf root branch flower seed field garden path road
bridge gate wall window door house room table lamp clock bell book page line word letter song story dream
memory morning evening night day year hour moment summer winter spring autumn moon sun star sky earth sand
glass iron copper paper thread cloth colour sound silence shark fish whale bird owl fox wolf horse cat dog bee
spider engine wheel signal wire node graph number pattern shape circle square corner edge centre distance
weight heat speed motion turns moves waits falls rises sleeps wakes sings speaks listens answers follows
returns carries holds keeps opens closes grows fades shines burns flows rests drifts gathers remembers forgets
begins ends
"""
WORDS = tuple(_SPOKEN.split())

_MARKS = {
    BEGIN: "",
    END: "",
    SYSTEM: "",
    USER: "",
    ASSISTANT: "",
    TOOL: "",
    TOOLS: "",
    TOOL_CALL: "<tool_call>",
    TOOL_CALL_END: "</tool_call>",
    PERIOD: ".",
    COMMA: ",",
}
_SPELLED_START = WORDS_START + FORMS * len(WORDS)


def _spelled() -> Iterable[str]:
    for length in (1, 2, 3):
        for letters in itertools.product(string.ascii_lowercase, repeat=length):
            yield " " + "".join(letters)
            if length > 1:  # A single letter is its byte.
                yield "".join(letters)


def _entries() -> list[bytes]:
    entries = [_MARKS.get(token, "").encode() for token in range(BYTES)]
    entries += [bytes([value]) for value in range(256)]
    for word in WORDS:
        title = word.capitalize()
        entries += [word.encode(), f" {word}".encode(), title.encode(), f" {title}".encode()]
    entries += [text.encode() for text in _spelled()]
    return entries


#: id -> UTF-8 bytes; markers are empty.
ENTRIES: list[bytes] = _entries()
SIZE = len(ENTRIES)
#: id -> text, for tokens that are whole characters: all that is ever generated.
TEXTS: list[str] = [entry.decode("utf-8", "replace") for entry in ENTRIES]

_IDS: dict[str, int] = {text: token for token, text in reversed(list(enumerate(TEXTS))) if token >= WORDS_START} | {
    ".": PERIOD,
    ",": COMMA,
}
_PIECES = re.compile(r" ?[A-Za-z]+|.", re.DOTALL)
_SYLLABLES = re.compile(r" ?[a-z]{1,3}|.", re.DOTALL)


def word_id(index: int, *, space: bool, title: bool) -> int:
    """The id of WORDS[index] in one of its four forms."""
    return WORDS_START + FORMS * index + (2 if title else 0) + (1 if space else 0)


def is_word(token: int) -> bool:
    """Of the kind the model speaks in: a word, a comma or a full stop."""
    return WORDS_START <= token < _SPELLED_START or token in (PERIOD, COMMA)


@lru_cache(maxsize=8192)  # A prompt's rarer words; bounded, about 2 MB.
def _spell(piece: str) -> tuple[int, ...]:
    token = _IDS.get(piece)
    if token is not None:
        return (token,)
    ids: list[int] = []
    for syllable in _SYLLABLES.findall(piece):
        token = _IDS.get(syllable)
        if token is not None:
            ids.append(token)
        else:
            ids.extend(BYTES + value for value in syllable.encode("utf-8", "surrogatepass"))
    return tuple(ids)


def encode(text: str) -> list[int]:
    """Token ids of a text; never a marker, whatever the text spells."""
    ids: list[int] = []
    for piece in _PIECES.findall(text):
        ids.extend(_spell(piece))
    return ids


def decode(ids: Iterable[int]) -> str:
    """The text of token ids, markers left out; bytes that are no UTF-8 become U+FFFD."""
    return b"".join([ENTRIES[token] for token in ids]).decode("utf-8", "replace")


class Decoder:
    """Decodes ids as they come: a character that is spread over several shows with the last of them.

    Its memory is what vLLM's is, to be carried from call to call: the latest tokens, and how many were shown.
    """

    def __init__(self, latest: Sequence[str] = (), start: int = 0, shown: int = 0, *, end_shows: bool = False) -> None:
        """`latest` from `start` on is remembered, `shown` of it as well; `end_shows` makes END_TEXT of END."""
        self.latest = list(latest)
        self.start = start
        self.shown = shown
        self._end_shows = end_shows

    def add(self, ids: Iterable[int]) -> str:
        """The text that can be shown by now. Ids that are none, and markers, are passed over."""
        return "".join([self._add(token) for token in ids])

    def _add(self, token: int) -> str:
        entry = ENTRIES[token] if 0 <= token < SIZE else b""
        if token == END and self._end_shows:
            entry = END_TEXT.encode()
        if not entry:
            return ""
        self.latest.append(entry.decode("latin-1"))
        text = "".join(self.latest[self.shown :]).encode("latin-1", "replace").decode("utf-8", "replace")
        if text.endswith("\ufffd"):
            text = ""
        else:
            self.start, self.shown = self.shown, len(self.latest)
        self.latest, self.shown, self.start = self.latest[self.start :], self.shown - self.start, 0
        return text
