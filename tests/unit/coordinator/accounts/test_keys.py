"""Keys: their text, and who is behind one."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shrk_coordinator.accounts import keys
from shrk_coordinator.accounts.keys import BELIEVED_MS, RANDOM_BYTES, KeyRing, Lookup, mint, parse
from shrk_coordinator.records import ApiKey, Scope

MINTED = mint(bytes(range(RANDOM_BYTES)))
OTHER = mint(bytes(range(1, RANDOM_BYTES + 1)))


class Shelf:
    """A store of keys that counts how often it is asked."""

    def __init__(self, *rows: ApiKey) -> None:
        self.rows = {row.id: row for row in rows}
        self.asked = 0
        self.at_once = 0
        self.at_once_most = 0

    async def find(self, key_id: str) -> ApiKey | None:
        """The row, one turn of the loop later."""
        self.asked += 1
        self.at_once += 1
        self.at_once_most = max(self.at_once_most, self.at_once)
        await asyncio.sleep(0)
        self.at_once -= 1
        return self.rows.get(key_id)


def row(expires_at: int | None = None) -> ApiKey:
    return ApiKey(MINTED.id, MINTED.sha256, "app", Scope.CALLER, created_at=0, expires_at=expires_at)


@given(st.binary(min_size=RANDOM_BYTES, max_size=RANDOM_BYTES))
def test_every_minted_key_is_read_back(random_bytes: bytes) -> None:
    minted = mint(random_bytes)
    parts = parse(minted.text)
    assert parts is not None
    assert (parts.id, parts.sha256) == (minted.id, minted.sha256)


@given(st.integers(0, len(MINTED.text) - 1), st.characters())
def test_a_key_with_one_wrong_character_is_no_key(position: int, character: str) -> None:
    text = MINTED.text[:position] + character + MINTED.text[position + 1 :]
    assert (parse(text) is None) == (text != MINTED.text)


@pytest.mark.parametrize("text", ["", "shrk_", "sk-abc", MINTED.text + "0", MINTED.text[:-1], " " + MINTED.text])
def test_other_texts_are_no_keys(text: str) -> None:
    assert parse(text) is None


def test_a_key_needs_all_its_randomness() -> None:
    with pytest.raises(ValueError, match="40 random bytes"):
        mint(b"short")


async def test_a_key_is_looked_up_once_and_then_remembered() -> None:
    shelf = Shelf(row())
    ring = KeyRing(shelf.find)
    assert ring.lookup(MINTED.text, 0) is Lookup.UNKNOWN
    assert await ring.authenticate(MINTED.text, 0) == row()
    assert ring.lookup(MINTED.text, BELIEVED_MS - 1) == row()
    assert shelf.asked == 1


async def test_a_key_revoked_elsewhere_is_noticed_when_the_memory_grows_old() -> None:
    shelf = Shelf(row())
    ring = KeyRing(shelf.find)
    await ring.authenticate(MINTED.text, 0)
    shelf.rows[MINTED.id] = replace(row(), revoked_at=1)
    assert ring.lookup(MINTED.text, BELIEVED_MS) is Lookup.UNKNOWN
    assert await ring.authenticate(MINTED.text, BELIEVED_MS) is None
    assert ring.lookup(MINTED.text, BELIEVED_MS + 1) is None


async def test_a_key_expires_from_memory_too() -> None:
    ring = KeyRing(Shelf(row(expires_at=100)).find)
    assert await ring.authenticate(MINTED.text, 99) is not None
    assert ring.lookup(MINTED.text, 100) is None


async def test_a_text_that_cannot_be_a_key_never_reaches_the_store() -> None:
    shelf = Shelf(row())
    ring = KeyRing(shelf.find)
    for text in ("sk-other", MINTED.text[:-1] + "0", "\udc80", ""):
        assert ring.lookup(text, 0) is None
        assert await ring.authenticate(text, 0) is None
    assert shelf.asked == 0


async def test_an_unknown_key_is_asked_for_once_and_again_later() -> None:
    shelf = Shelf()
    ring = KeyRing(shelf.find)
    for _ in range(3):
        assert await ring.authenticate(MINTED.text, 0) is None
    assert shelf.asked == 1
    shelf.rows[MINTED.id] = row()
    assert await ring.authenticate(MINTED.text, BELIEVED_MS) == row()
    assert ring.lookup(MINTED.text, BELIEVED_MS) == row()


async def test_the_right_id_with_another_secret_opens_nothing() -> None:
    shelf = Shelf(replace(row(), sha256=OTHER.sha256))
    assert await KeyRing(shelf.find).authenticate(MINTED.text, 0) is None


async def test_equal_requests_at_once_ask_the_store_only_a_few_times() -> None:
    shelf = Shelf(row())
    ring = KeyRing(shelf.find)
    found = await asyncio.gather(*(ring.authenticate(MINTED.text, 0) for _ in range(100)))
    assert found == [row()] * 100
    assert shelf.asked <= keys.LOOKUPS_MAX


async def test_a_key_in_use_does_not_wait_behind_made_up_ones() -> None:
    opened = asyncio.Event()
    opened.set()

    async def find(key_id: str) -> ApiKey | None:
        if key_id != MINTED.id:
            await opened.wait()
            return None
        return row()

    ring = KeyRing(find)
    await ring.authenticate(MINTED.text, 0)
    opened.clear()
    made_up = [mint(number.to_bytes(RANDOM_BYTES)).text for number in range(3 * keys.LOOKUPS_MAX)]
    flood = [asyncio.create_task(ring.authenticate(text, 0)) for text in made_up]
    await asyncio.sleep(0)
    async with asyncio.timeout(10):  # Only ends a test that hangs.
        assert await ring.authenticate(MINTED.text, BELIEVED_MS) == row()
    opened.set()
    await asyncio.gather(*flood)


async def test_equal_requests_with_a_key_that_grew_old_ask_the_store_only_a_few_times() -> None:
    shelf = Shelf(row())
    ring = KeyRing(shelf.find)
    await ring.authenticate(MINTED.text, 0)
    found = await asyncio.gather(*(ring.authenticate(MINTED.text, BELIEVED_MS) for _ in range(100)))
    assert found == [row()] * 100
    assert shelf.asked <= 1 + keys.LOOKUPS_MAX


async def test_a_flood_of_made_up_keys_is_bounded_in_memory_and_in_look_ups() -> None:
    shelf = Shelf(row())
    ring = KeyRing(shelf.find)
    made_up = [mint(number.to_bytes(RANDOM_BYTES)).text for number in range(keys.REFUSED_MAX + 5)]
    assert await asyncio.gather(*(ring.authenticate(text, 0) for text in made_up)) == [None] * len(made_up)
    assert shelf.at_once_most <= keys.LOOKUPS_MAX
    assert ring.lookup(made_up[-1], 1) is None
    assert ring.lookup(made_up[0], 1) is Lookup.UNKNOWN
    assert await ring.authenticate(MINTED.text, 1) == row()
