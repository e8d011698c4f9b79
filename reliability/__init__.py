"""Tries the promises on real processes, and writes down what was counted: `python -m reliability`."""
