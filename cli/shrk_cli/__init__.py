"""The command `shrk`, and `shrk dev`, a whole network on one machine."""
