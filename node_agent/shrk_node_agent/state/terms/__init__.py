"""PURE. The owner's terms: hours, heat, other programs on the GPU, what fits; and what they permit together."""
