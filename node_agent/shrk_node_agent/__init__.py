"""The node agent: offers one machine's GPUs to a coordinator, on its owner's terms."""
