"""The owner's terms, tried: hours against one who looks at every minute, heat on cards that warm up and cool down.

`python -m simulation.terms` runs both.
"""
