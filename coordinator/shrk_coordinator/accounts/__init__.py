"""Who may ask, and what they owe: keys today."""
