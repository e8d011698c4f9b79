"""Where the keys of a TOML file stand."""

from __future__ import annotations

import tomllib
from typing import Any

import tomlkit
from hypothesis import given
from hypothesis import strategies as st

from shrk_contract.toml_lines import lines_of

FILE = '''\
# temp_max = 1
temp_max = 68  # x = 3

text = """
not_a_key = 1
\\"""still inside"""""
other = \'\'\'
[no.table]\'\'\'
list = [
  1, # one
  "two = 2",
  { three = "}" },
]
[sim]
first_token_ms=5
[catalogue."a.b"] # comment
source = "x#y"
[catalogue.'c"d']
inline = { slots = 4, deep = { er = 1 } }
a . "b" = 2
[[lots]]
x = 1
[[lots]]
x = 2
[lots.inside]
y = 3'''


def test_every_form_of_a_key_is_found_on_its_line() -> None:
    lines = lines_of(FILE)
    assert {".".join(path): line for path, line in lines.items()} == {
        "temp_max": 2,
        "text": 4,
        "other": 7,
        "list": 9,
        "list.0": 10,
        "list.1": 11,
        "list.2": 12,
        "list.2.three": 12,
        "sim": 14,
        "sim.first_token_ms": 15,
        "catalogue": 16,
        "catalogue.a.b": 16,
        "catalogue.a.b.source": 17,
        'catalogue.c"d': 18,
        'catalogue.c"d.inline': 19,
        'catalogue.c"d.inline.slots': 19,
        'catalogue.c"d.inline.deep': 19,
        'catalogue.c"d.inline.deep.er': 19,
        'catalogue.c"d.a': 20,
        'catalogue.c"d.a.b': 20,
        "lots": 21,
        "lots.0": 21,
        "lots.0.x": 22,
        "lots.1": 23,
        "lots.1.x": 24,
        "lots.1.inside": 25,
        "lots.1.inside.y": 26,
    }


def test_line_ends_of_windows_count_once() -> None:
    assert lines_of("a = 1\r\n\r\n[b]\r\nc = 2\r\n") == {("a",): 1, ("b",): 3, ("b", "c"): 4}


WORDS = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), max_size=8)
VALUES = st.recursive(
    st.integers(-9, 9) | st.booleans() | WORDS,
    lambda inside: st.lists(inside, max_size=3) | st.dictionaries(WORDS, inside, max_size=3),
    max_leaves=12,
)


def paths(value: Any) -> set[tuple[str, ...]]:
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return {(str(key), *rest) for key, item in inside for rest in paths(item) | {()}}


@given(st.dictionaries(WORDS, VALUES, max_size=4))
def test_the_keys_that_are_found_are_those_that_tomllib_reads(document: dict[str, Any]) -> None:
    text = tomlkit.dumps(document)
    assert set(lines_of(text)) == paths(tomllib.loads(text))
