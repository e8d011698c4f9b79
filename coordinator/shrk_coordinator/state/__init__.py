"""What the coordinator decides. Pure: facts come in as events, wishes go out as effects.

Nothing here reads a clock, draws a random number or does IO; `coordinator.CoordinatorState` is the one door.
"""
