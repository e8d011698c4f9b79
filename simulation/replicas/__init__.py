"""The replica reconciler under a virtual clock: clusters that join, leave, cool, close and fail, and what must hold.

The reconciler is the product's own; nodes, owners and demand are played here. One seed is one run, to the bit.
"""
