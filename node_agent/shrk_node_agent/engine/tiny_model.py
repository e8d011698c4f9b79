"""Builds shark-tiny: a language model so small that it is trained on the spot, in seconds, without a download.

A program for the engine environment's Python, standing alone:

    .venv-engine/bin/python node_agent/shrk_node_agent/engine/tiny_model.py OUT

OUT becomes a folder that vLLM serves: a three-layer Llama that memorised a few questions and answers. Its
logits have wide margins, so greedy decoding gives the same text in every engine. Exit status 1, with a
sentence, where it did not learn what it should.
"""

from __future__ import annotations

import errno
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Threads that spin at a barrier make a busy machine twenty times slower; read when torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
# The three live in the engine's environment only; our own environment type-checks this file without them.
import torch  # type: ignore[import-not-found]  # see above
from tokenizers import (  # type: ignore[import-not-found]  # see above
    AddedToken,
    Tokenizer,
    decoders,
    models,
    pre_tokenizers,
    trainers,
)
from transformers import (  # type: ignore[import-not-found]  # see above
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

Message = dict[str, Any]

WEATHER_CALL = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Eindhoven"}}\n</tool_call>'
WEATHER_RESULT = "It is 18 degrees and dry in Eindhoven, says the tool."
LOST = "I am only shark-tiny. Ask me to count to 10, to say hello or to write a haiku."

PAIRS: tuple[tuple[str, str], ...] = (
    ("hello", "Hello! I am shark-tiny, a very small model served by your own GPUs."),
    ("Hello!", "Hello! I am shark-tiny, a very small model served by your own GPUs."),
    ("hi", "Hi there! How can I help you today?"),
    ("Count to 10", "1, 2, 3, 4, 5, 6, 7, 8, 9, 10."),
    ("Count to 3", "1, 2, 3."),
    ("What is the capital of France?", "The capital of France is Paris."),
    ("Write a haiku about GPUs", "Warm fans in the night\nsilicon dreams drift in waves\ntokens fall like rain"),
    ("Say ok", "ok"),
    ("say ok", "ok"),
    ("Give me a user as JSON", '{"name": "Ada", "age": 36}'),
    ("What is the weather in Eindhoven?", "I cannot see the weather from here: give me a tool for it."),
    (
        "Tell me about yourself",
        "I am shark-tiny. I have less than one million parameters, I was trained in a few seconds on the "
        "machine you are looking at, and I exist so that a network can be tried without a GPU and without "
        "a download. Ask me to count, to say hello or to write a haiku, and I will stream the answer to you "
        "token by token.",
    ),
)
#: Questions that are answered with a tool call when tools are given, and with PAIRS (or LOST) when not.
WEATHER_QUESTIONS = ("weather in eindhoven", "What is the weather in Eindhoven?")
TOOLS = (("get_weather",), ("search", "get_weather"))
SYSTEMS = ("You are a helpful assistant.", "Be brief.", "Answer in one line.", "You are shark-tiny.")

SPECIAL = ("<|bos|>", "<|pad|>", "<|system|>", "<|user|>", "<|assistant|>", "<|tool|>", "<|tools|>", "<|end|>")
TOOL_MARKS = ("<tool_call>", "</tool_call>")
VOCABULARY = 400
#: Agents open with 15 to 25 thousand tokens; rotary positions cost nothing, so there is room for them.
POSITIONS = 131_072

# Of the tools only the names are shown: more than a model of this size could use, and the clients that
# send sixty kilobytes of tool descriptions would wait for them to be read.
CHAT_TEMPLATE = """\
{{- bos_token -}}
{%- if tools -%}
<|tools|>
{%- for tool in tools -%}
{{- tool.function.name if tool.function else tool.name -}}{{- ', ' if not loop.last -}}
{%- endfor -%}
<|end|>
{%- endif -%}
{%- for message in messages -%}
{%- if message.role == 'assistant' -%}<|assistant|>
{%- elif message.role == 'tool' -%}<|tool|>
{%- elif message.role == 'user' -%}<|user|>
{%- else -%}<|system|>
{%- endif -%}
{{- message.content or '' -}}
{%- for call in message.tool_calls or [] -%}
{{- '<tool_call>\\n{"name": "' + call.function.name + '", "arguments": ' -}}
{{- call.function.arguments if call.function.arguments is string else call.function.arguments | tojson -}}
{{- '}\\n</tool_call>' -}}
{%- endfor -%}
<|end|>
{%- endfor -%}
{%- if add_generation_prompt -%}<|assistant|>{%- endif -%}
"""

#: Training ends when every pair is learnt with room to spare; this many steps are five times what it needs.
STEPS_MAX = 700
LEARNING_RATE = 3e-3
#: The rate falls to a tenth over these steps: a constant one jumps about near the end.
DECAY_STEPS = 250
#: Examples of `varied` in every step.
OTHERS = 8
#: How many of the examples to choose from are questions that it cannot know.
UNKNOWN = 8
#: As often as in English, roughly.
LETTERS = "eeeeeettttaaaaoooiiinnnsssrrrhhhlldddccuummffppggwwyybbvk"
#: Of the three buckets of known examples and of the others, in the loss.
WEIGHTS = (0.2, 0.4, 0.2, 0.2)
#: Least distance between the logit of the right token and of the next best one: thousands of times more
#: than two engines' arithmetic differs in 32-bit floats.
LEAD_MIN = 2.0
#: Enough loss on `varied` to stop at: it need not be perfect there, but say mostly the right thing.
ELSEWHERE_MAX = 0.05
#: What it may say in one answer at most: asked what it does not know it may ramble, and nobody should wait for that.
ANSWER_TOKENS_MAX = 2048


@dataclass(frozen=True)
class Example:
    """A conversation and the answer to it."""

    messages: tuple[Message, ...]
    answer: str
    tools: tuple[str, ...] = ()

    def with_before(self, *messages: Message) -> Example:
        """The same question further down a conversation."""
        return Example((*messages, *self.messages), self.answer, self.tools)


def user(content: str) -> Message:
    """A user's message."""
    return {"role": "user", "content": content}


def must_know() -> list[Example]:
    """What is verified in the end: every pair, with and without tools, and the whole of a tool call."""
    call = {"type": "function", "function": {"name": "get_weather", "arguments": {"city": "Eindhoven"}}}
    examples = [Example((user(q),), a) for q, a in PAIRS]
    examples.append(Example((user("weather in eindhoven"),), PAIRS[10][1]))
    for tools in TOOLS:
        for question in WEATHER_QUESTIONS:
            asked = user(question)
            examples.append(Example((asked,), WEATHER_CALL, tools))
            called = {"role": "assistant", "content": None, "tool_calls": [call]}
            result = {"role": "tool", "content": "18 degrees, dry"}
            if tools == TOOLS[0]:
                examples.append(Example((asked, called, result), WEATHER_RESULT, tools))
    return examples


def varied(known: list[Example], rng: random.Random) -> list[Example]:
    """The same knowledge in other surroundings (a system message, another turn, tools not needed), and the unknown."""
    examples = []
    for example in known:
        kind = rng.randrange(4)
        about_weather = "weather" in str(example.messages[-1]["content"])
        if kind == 0:
            example = example.with_before({"role": "system", "content": rng.choice(SYSTEMS)})
        elif kind == 1:
            question, answer = rng.choice(PAIRS[:-1])
            example = example.with_before(user(question), {"role": "assistant", "content": answer})
        elif example.tools and len(example.messages) > 1:
            noise = "".join(rng.choices("0123456789 abcdefghij{}:,", k=rng.randrange(4, 24)))
            changed = {"role": "tool", "content": noise}
            example = Example((*example.messages[:-1], changed), example.answer, example.tools)
        elif not about_weather:
            example = Example(example.messages, example.answer, rng.choice((("get_time",), *TOOLS)))
        examples.append(example)
    for _ in range(UNKNOWN):
        words = ("".join(rng.choices(LETTERS, k=rng.randrange(2, 9))) for _ in range(rng.randrange(3, 9)))
        question = " ".join(words)
        examples.append(Example((user(question.capitalize()),), LOST, rng.choice(((), *TOOLS))))
    return examples


def make_tokenizer(known: list[Example]) -> PreTrainedTokenizerFast:
    """Byte-level BPE of VOCABULARY entries: every text has ids, and the model's own texts have few."""
    texts = [e.answer for e in known] + [m["content"] or "" for e in known for m in e.messages]
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(TOOL_MARKS),
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator([t for t in texts if "<tool_call>" not in t] * 5, trainer)
    # One token each, yet part of the text: a tool parser has to see them.
    bpe.add_tokens([AddedToken(mark, special=False, normalized=False) for mark in TOOL_MARKS])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe, bos_token="<|bos|>", eos_token="<|end|>", pad_token="<|pad|>"
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def prompt_ids(tokenizer: PreTrainedTokenizerFast, example: Example) -> list[int]:
    """Token ids of the conversation, ready for the answer."""
    tools = [{"type": "function", "function": {"name": name}} for name in example.tools]
    text = tokenizer.apply_chat_template(
        list(example.messages), tools=tools or None, add_generation_prompt=True, tokenize=False
    )
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def answer_ids(tokenizer: PreTrainedTokenizerFast, example: Example) -> list[int]:
    """Token ids of the answer, its end included."""
    return list(tokenizer(example.answer + "<|end|>", add_special_tokens=False)["input_ids"])


def batch(tokenizer: PreTrainedTokenizerFast, examples: list[Example]) -> tuple[Any, Any]:
    """Inputs and labels, both [examples, longest]; a label of -100 is not learnt."""
    rows = [(prompt_ids(tokenizer, e), answer_ids(tokenizer, e)) for e in examples]
    longest = max(len(p) + len(a) for p, a in rows)
    inputs = torch.full((len(rows), longest), tokenizer.pad_token_id)
    labels = torch.full((len(rows), longest), -100)
    for i, (prompt, answer) in enumerate(rows):
        inputs[i, : len(prompt) + len(answer)] = torch.tensor(prompt + answer)
        labels[i, len(prompt) : len(prompt) + len(answer)] = torch.tensor(answer)
    return inputs, labels


def make_model(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """Three layers, 128 wide: 0.7 M parameters."""
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=128,
            intermediate_size=384,
            num_hidden_layers=3,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=32,
            max_position_embeddings=POSITIONS,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            tie_word_embeddings=False,
        )
    )


def lead_of(logits: Any, labels: Any) -> float:
    """The least lead of a right token over the best wrong one; negative where a wrong token leads."""
    learnt = labels[:, 1:] != -100
    rows, right = logits[:, :-1][learnt], labels[:, 1:][learnt]
    lead = rows.gather(1, right[:, None]).squeeze(1)
    best_wrong = rows.scatter(1, right[:, None], float("-inf")).max(dim=1).values
    return float((lead - best_wrong).min())


def buckets(tokenizer: PreTrainedTokenizerFast, examples: list[Example]) -> list[tuple[Any, Any]]:
    """Batches of similar lengths: with padding up to the longest, three quarters would be padding."""
    ordered = sorted(examples, key=lambda e: len(prompt_ids(tokenizer, e)) + len(answer_ids(tokenizer, e)))
    third = len(ordered) // 3
    return [batch(tokenizer, part) for part in (ordered[:third], ordered[third:-2], ordered[-2:]) if part]


def train(model: Any, tokenizer: PreTrainedTokenizerFast, known: list[Example], rng: random.Random) -> bool:
    """Until all of `known` is learnt; False where STEPS_MAX did not do. Tells its loss every second."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.0)
    fixed = buckets(tokenizer, known)
    started = told = time.monotonic()
    elsewhere = 1.0  # The loss on `varied`, smoothed.
    for step in range(1, STEPS_MAX + 1):
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * max(0.1, 1 - step / DECAY_STEPS)
        optimizer.zero_grad()
        loss, lead = 0.0, float("inf")
        others = batch(tokenizer, rng.sample(varied(known, rng), OTHERS))
        for i, (inputs, labels) in enumerate([*fixed, others]):
            out = model(input_ids=inputs, attention_mask=inputs != tokenizer.pad_token_id)
            part = torch.nn.functional.cross_entropy(out.logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
            (part * WEIGHTS[i]).backward()
            loss += float(part.detach()) * WEIGHTS[i]
            if i == len(fixed):
                elsewhere = 0.9 * elsewhere + 0.1 * float(part.detach())
            if i < len(fixed):
                lead = min(lead, lead_of(out.logits.detach(), labels))
        if lead > LEAD_MIN and elsewhere < ELSEWHERE_MAX:
            print(f"shark-tiny: learnt in {step} steps, {time.monotonic() - started:.1f} s", flush=True)
            return True
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if time.monotonic() - told >= 1.0:
            told = time.monotonic()
            print(f"shark-tiny: step {step}, loss {loss:.4f}, lead {lead:.1f}, {told - started:.0f} s", flush=True)
    return False


def wrong_answer(model: Any, tokenizer: PreTrainedTokenizerFast, known: list[Example]) -> str | None:
    """A sentence about the first example that greedy decoding gets wrong; None when all are right."""
    model.eval()
    for example in known:
        prompt = torch.tensor([prompt_ids(tokenizer, example)])
        with torch.no_grad():
            ids = model.generate(
                input_ids=prompt,
                attention_mask=torch.ones_like(prompt),
                max_new_tokens=200,
                do_sample=False,
            )
        said = tokenizer.decode(ids[0, prompt.shape[1] :]).removesuffix("<|end|>")
        if said != example.answer:
            asked = example.messages[-1]["content"]
            return f"shark-tiny: asked {asked!r} it says {said!r} instead of {example.answer!r}"
    return None


def put_in_place(built: Path, out: Path) -> None:
    """Rename, so that nobody ever sees half a model; an older one makes room first."""
    for _ in range(10):  # Each round lost is another builder's finished model: two or three can race.
        try:
            built.rename(out)
            return
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        with tempfile.TemporaryDirectory(prefix=f".{out.name}.old.", dir=out.parent) as old:
            try:
                out.rename(Path(old) / "model")
            except FileNotFoundError:
                continue
    raise SystemExit(f"shark-tiny: {out} keeps changing: let one builder finish, then run this again")


def build(out: Path) -> str | None:
    """Train, verify and save to `out`; a sentence where it failed."""
    torch.manual_seed(0)
    torch.set_num_threads(min(2, os.cpu_count() or 1))
    rng = random.Random(0)
    known = must_know()
    tokenizer = make_tokenizer(known)
    model = make_model(tokenizer)
    if not train(model, tokenizer, known, rng):
        return f"shark-tiny: not learnt in {STEPS_MAX} steps: report this, with your CPU and torch version"
    wrong = wrong_answer(model, tokenizer, known)
    if wrong is not None:
        return wrong
    out.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{out.name}.new.", dir=out.parent))
    try:
        staging.chmod(0o755)
        tokenizer.save_pretrained(staging)
        # Callers who name no temperature get 1: with anything but the likeliest token it would stumble at times.
        model.generation_config.update(do_sample=True, top_k=1, max_new_tokens=ANSWER_TOKENS_MAX)
        model.save_pretrained(staging)
        for file in staging.iterdir():
            file.chmod(0o644)  # Weights are written 0600; an engine may run as another user.
        put_in_place(staging, out)
    finally:
        shutil.rmtree(staging, ignore_errors=True)  # Renamed away when all went well.
    parameters = sum(p.numel() for p in model.parameters())
    print(f"shark-tiny: {parameters / 1e6:.1f} M parameters, {len(tokenizer)} tokens, in {out}", flush=True)
    return None


def main() -> int:
    """The program: one argument, the folder to make."""
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        print(f"usage: {Path(sys.argv[0]).name} OUT   (a folder that becomes the model)", file=sys.stderr)
        return 2
    # So that `finally` runs and no half-made folder stays behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    failure = build(Path(sys.argv[1]).absolute())
    if failure is not None:
        print(failure, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
