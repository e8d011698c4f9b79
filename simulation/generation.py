"""One answer in a played engine: from the beginning, on from token ids, or as a replay, silent up to the seam.

Where the product has an HTTP exchange with its engine, here is a step at a time; sink, credit and digest are its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from shrk_contract.terms import CANNOT_RESUME, DIVERGED, Fault, ResumeMethod
from shrk_node_agent.attempts import ChoiceEnd, CreditWithheld, Failed, Finished, Order, Piece
from shrk_node_agent.engine.text_digest import TextDigest
from shrk_node_agent.link.session import SessionSink
from shrk_node_agent.state.events import AttemptKey
from simulation import tokens
from simulation.asks import Prompt
from simulation.fibers import Fiber

if TYPE_CHECKING:
    from simulation.engine import Engine

#: As the agent words them; which of them an engine gives is chance.
_QUITS = (
    ("engine_lost", "the engine's stream ended in the middle"),
    ("engine_empty", "the engine ended without a reason"),
    ("engine_aborted", "the engine aborted the generation"),
)


class Generation:
    """One attempt, once it has been accepted."""

    def __init__(self, engine: Engine, key: AttemptKey, order: Order, sink: SessionSink) -> None:
        self.key = key
        self.sink = sink
        self.over = False
        #: It waits for credit.
        self.blocked = False
        #: It has been read, and says something at each step.
        self.under_way = False
        self._engine = engine
        self._order = order
        self._ask = Prompt.of(order.body)
        self._prompt_ids = tokens.prompt_ids(self._ask.prompt)
        self._reads_until = engine.agent.now + engine.kind.prefill_seconds * engine.slowness
        self._state = tokens.opening(self._prompt_ids, order.seed or 0)
        self._digest = TextDigest()
        self._count = 0
        self._said_prompt = False
        #: Of a replay: how many tokens were delivered and are not said again.
        self._silent = 0
        #: All that was said, for an answer that goes out whole.
        self._whole: list[int] = []
        self._end: ChoiceEnd | None = None
        self._ended = False
        self._said_end = False
        self._sending: Fiber | None = None

    @property
    def engine_id(self) -> str:
        """Whose answer it is."""
        return self._engine.kind.id

    # --- a step ---------------------------------------------------------------------------------------

    def step(self) -> None:
        """One step of the engine: a few tokens, or the end."""
        if not self.under_way:
            if self._engine.agent.now < self._reads_until:
                return
            self.under_way = True
            if self._ask.deadly:
                self._engine.crash("it was ended by SIGSEGV", by_itself=True)
                return
            if problem := self._begin():
                self.fail(problem)
                return
        if self._ended:
            self._finish()
        elif self._silent:
            self._replay()
        else:
            self._say()

    def _begin(self) -> Failed | None:
        """The prompt has been read."""
        if self._ask.bad:
            return Failed(Fault.CALLER, "'tokens_max' is not to its taste", 400, code="invalid_value", param="prompt")
        resume = self._order.resume
        if resume is None or not resume.delivered_tokens:
            return None
        if resume.method is ResumeMethod.REPLAY:
            self._silent = resume.delivered_tokens
            return None
        if not self._engine.kind.continues_by_ids:
            return Failed(Fault.ENGINE, "it cannot go on by ids", code=CANNOT_RESUME)
        self._state = tokens.opening(resume.prompt_ids, self._order.seed or 0)
        for token in resume.delivered_ids:
            self._digest.add("text", tokens.text_of(token))
        # The product's agent says that it cannot resume; here it means that coordinator and nodes lost count.
        assert tuple(resume.prompt_ids) == self._prompt_ids, "the prompt's ids are not those of the first attempt"
        assert len(resume.delivered_ids) == resume.delivered_tokens, "ids and number of what was delivered differ"
        assert self._digest.value == resume.text_digest, "ids and digest of what was delivered differ"
        self._state = tokens.after(self._state, resume.delivered_ids)
        self._count = resume.delivered_tokens
        if self._count and tokens.is_last(resume.delivered_ids[-1], self._count, self._ask.tokens_max):
            self._last(resume.delivered_ids[-1])
        return None

    def _next(self, tokens_max: int) -> list[int]:
        """Up to so many tokens, fewer where the answer ends."""
        said: list[int] = []
        while len(said) < tokens_max and not self._ended:
            token = tokens.next_token(self._state, self._engine.kind.hardware)
            self._state = tokens.after(self._state, (token,))
            self._digest.add("text", tokens.text_of(token))
            self._count += 1
            said.append(token)
            if tokens.is_last(token, self._count, self._ask.tokens_max):
                self._last(token)
        self._engine.tokens += len(said)
        return said

    def _last(self, token: int) -> None:
        self._ended = True
        self._end = ChoiceEnd(0, "stop" if token % tokens.STOP_ONE_IN == 0 else "length")

    def _replay(self) -> None:
        """Faster than it was: nobody waits for it to be read."""
        resume = self._order.resume
        assert resume is not None, "only what was delivered is replayed"
        self._next(min(8, self._silent - self._count))
        if self._count < self._silent and not self._ended:
            return
        self._silent = 0
        if self._count != resume.delivered_tokens or self._digest.value != resume.text_digest:
            self.fail(Failed(Fault.NODE, "the replay says something else", code=DIVERGED))

    def _say(self) -> None:
        index = self._count
        said = self._next(1 + (self._state >> 61) % 8 // 6)
        if not self._order.streaming:
            self._whole += said
            return
        kind = self._engine.kind
        if self._order.tell_ids and kind.tells_ids and not self._said_prompt:
            self.sink.prompt(self._prompt_ids)
        self._said_prompt = True
        ids = said if self._order.tell_ids and kind.tells_ids else ()
        event = tokens.event_of(self.sink.stream, index, said, self._ask.padding)
        end = None if kind.ends_apart else self._end
        self._send(Piece(len(said), ids, event, self._digest.value, end, len(self._prompt_ids)))

    def _finish(self) -> None:
        assert self._end is not None, "an answer that ended says how"
        if not self._order.streaming and self._whole:
            said, self._whole = self._whole, []
            whole = tokens.event_of(self.sink.stream, 0, said, self._ask.padding)
            self._send(Piece(0, (), whole))
            return
        if self._order.streaming and self._engine.kind.ends_apart and not self._said_end:
            self._said_end = True
            self._send(Piece(0, (), b"", self._digest.value, self._end, len(self._prompt_ids)))
            return
        counted = {"prompt_tokens": len(self._prompt_ids), "completion_tokens": self._count}
        self._over()
        self.sink.finish(Finished((self._end,), counted))

    # --- what becomes of it -----------------------------------------------------------------------------

    def _send(self, piece: Piece) -> None:
        agent, engine = self._engine.agent, self._engine
        engine.pieces += 1
        self._sending = Fiber(agent.world.clock, self.sink.piece(piece), self._sent, (CreditWithheld,))
        self._sending.run()
        if not self._sending.over:
            self.blocked = True
            engine.held += 1

    def _sent(self, error: Exception | None) -> None:
        if self.blocked:
            self.blocked = False
            self._engine.held -= 1
            self._engine.keep_stepping()
        if error is not None:
            self.fail(Failed(Fault.COORDINATOR, f"the coordinator gave {error}", code="credit_withheld"))

    def fail(self, problem: Failed) -> None:
        """It will not become whole."""
        if not self.over:
            self._over()
            self.sink.fail(problem)

    def break_off(self, by_itself: bool = False) -> None:
        """Its engine is gone; by itself: nobody ended it."""
        if by_itself:
            self.fail(Failed(Fault.ENGINE, "the engine crashed", code="engine_crashed"))
        else:
            self.fail(Failed(Fault.ENGINE, "the engine broke off", code="engine_lost"))

    def quit(self, how: int) -> None:
        """Its engine gives it up; behind the reason for which it ended there is only one way."""
        code, message = _QUITS[0 if self._ended else how]
        self.fail(Failed(Fault.ENGINE, message, code=code))

    def cancel(self) -> None:
        """Nobody wants it any more."""
        if not self.over:
            self._over()

    def _over(self) -> None:
        self.over = True
        if self.blocked and self._sending is not None:
            self._sending.cancel()
            self._engine.held -= 1
            self.blocked = False
        self._engine.leave(self)
        self._engine.agent.attempt_over(self)
