"""`shrk dev`: a whole network on this machine, in the foreground, made of the processes production runs."""
