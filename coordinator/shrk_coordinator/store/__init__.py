"""What outlives the process: owners, nodes, join tokens, revocations and keys, in one database."""
