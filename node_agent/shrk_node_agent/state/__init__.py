"""What the agent decides. Pure: facts come in as events, wishes go out as effects; `node.NodeState` is the door."""
