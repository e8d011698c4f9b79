"""The simulated engine: vLLM's HTTP without a model, for `shrk dev --engine sim`, tests, benches and planning.

Run as `python -m shrk_node_agent.engine.simulated --uds PATH --model NAME`. Its text is a pure function of
the prompt, so that anyone can compute what it will say: see `language.answer` and `prompts.render_chat`.
"""
