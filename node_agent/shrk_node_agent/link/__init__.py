"""The side that faces the coordinator: who this node is, how it joins, and its links."""
