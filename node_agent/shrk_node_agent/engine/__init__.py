"""Engines: the processes that generate. Each is a child of its own, spoken to over a unix socket."""
