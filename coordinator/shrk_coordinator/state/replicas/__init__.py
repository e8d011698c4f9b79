"""Which node should have which model loaded, so that every model keeps three replicas that do not fail together.

facts of nodes, facts of models ──▶ reconciler ──▶ an assignment per node, a redundancy per model
"""
