"""Pieces of one streamed answer on their way to the coordinator, and whether what came in the end is an answer."""

from __future__ import annotations

from shrk_contract.terms import Fault
from shrk_node_agent.attempts import AttemptSink, Failed, Finished, Piece
from shrk_node_agent.engine.caller_events import ABORT, Batch, CallerEvents


class Delivery:
    """Sends batches of one answer."""

    def __init__(self, sink: AttemptSink, caller: CallerEvents, *, tell_ids: bool) -> None:
        self._sink = sink
        self._caller = caller
        self._tell_ids = tell_ids
        self._begun = False
        self._held = Batch()

    async def send(self, batch: Batch) -> None:
        """Send what has come. Raises CreditWithheld.

        Events before the first token (the role) go out with it: a piece without a token would bind the request to
        this node before it has shown that it can generate.
        """
        self._held.add(batch)
        if self._held.tokens or (self._begun and not self._held.empty):
            await self._piece()

    async def end(self, finished: Finished) -> Finished | Failed:
        """Send what is held of an answer that had no token at all. Raises CreditWithheld."""
        outcome = judged(finished)
        if isinstance(outcome, Finished) and not self._held.empty:
            await self._piece()
        return outcome

    async def _piece(self) -> None:
        held, self._held = self._held, Batch()
        if self._tell_ids and not self._begun and self._caller.prompt_ids:
            self._sink.prompt(self._caller.prompt_ids)
        self._begun = True
        ids = held.token_ids if self._tell_ids and held.ids_known else ()
        prompt_tokens = self._caller.prompt_tokens or len(self._caller.prompt_ids) if held.end else 0
        piece = Piece(held.tokens, ids, held.part(), self._caller.text_digest, held.end, prompt_tokens)
        await self._sink.piece(piece)


def judged(finished: Finished) -> Finished | Failed:
    """What was generated is whole only if every choice ended for a reason, and not by being given up."""
    reasons = [end.finish_reason for end in finished.choices]
    if not reasons or not all(reasons):
        return Failed(Fault.ENGINE, "the engine ended without a reason", code="engine_empty")
    if ABORT in reasons:
        return Failed(Fault.ENGINE, "the engine aborted the generation", code="engine_aborted")
    return finished
