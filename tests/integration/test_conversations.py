"""Conversations stay on one node each, through the whole path."""

from __future__ import annotations

from typing import Any

from support.network import a_network

SYSTEM = {"role": "system", "content": "You keep a lighthouse. " * 200}
LATER = [{"role": "assistant", "content": "The lamp is lit."}, {"role": "user", "content": "And the horn?"}]


def a_chat(*messages: dict[str, str], **fields: Any) -> dict[str, Any]:
    return {"model": "m", "messages": messages, "max_tokens": 4, **fields}


async def test_the_turns_of_one_conversation_are_answered_by_one_node_and_conversations_are_spread() -> None:
    async with a_network() as network:
        for name in ("one", "two", "three"):
            await network.add_simulated(name)
        await network.until_serving("m", 3)
        async with network.session() as session:

            async def node_of(body: dict[str, Any]) -> str:
                async with session.post(f"{network.base_url}/chat/completions", json=body) as answer:
                    assert answer.status == 200
                    return answer.headers["x-shiver-node"]

            homes = set()
            for night in range(12):
                first = {"role": "user", "content": f"This is night {night}."}
                turns = (a_chat(SYSTEM, first), a_chat(SYSTEM, first, *LATER))
                [home] = {await node_of(turn) for turn in turns}
                homes.add(home)
            assert len(homes) > 1
            named = {await node_of(a_chat(*LATER[1:], user=str(turn), prompt_cache_key="watch")) for turn in range(6)}
            assert len(named) == 1
