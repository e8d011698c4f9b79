"""`shrk chaos`: a TCP proxy that makes a line as bad as you ask, and the commands that steer it."""
