"""`shrk resume`: the end of a pause, before its time."""

from __future__ import annotations

from shrk_node_agent.commands import polling
from shrk_node_agent.commands.ending import said_plainly
from shrk_node_agent.commands.phrases import printable
from shrk_node_agent.commands.typed import StateDir, verb
from shrk_node_agent.control_client import ask, running_in

app = verb()


@app.command()
def resume(state_dir: StateDir = None) -> None:
    """End a pause now, and try again what was left alone. Where there is neither, nothing changes."""
    with said_plainly():
        folder = running_in(state_dir)
        ask(folder, "POST", "/resume", {})
        document = polling.status(folder)
        reason = f": {printable(document['reason'])}" if document["reason"] else ""
        print(f"Not paused; the node is {document['state']}{reason}")
