"""A whole network in one process and no time: the real state machines under a virtual clock and seeded faults.

Everything that decides is the product's own; what carries it (sockets, engines, the event loop) is played here. One
seed is one run, to the bit.
"""
