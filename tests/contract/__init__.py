"""The simulated engine held against a real vLLM; a package, so that one engine serves all of it and no more."""
