"""The settings file that an installer writes: every setting with what it is for, as `settings.py` declares it.

What is not chosen stands there commented out, with its default or an example.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from enum import Enum

import tomlkit
from pydantic import BaseModel

from shrk_node_agent.settings import AgentSettings, CatalogueEntry, SimulatedSpeed

#: For settings without a default, or with one that is this machine's own.
_EXAMPLES: Mapping[str, object] = {
    "controller": "tcp://10.0.0.1:9100",
    "join_token": "shrk_join_...",
    "state_dir": "/var/lib/shrk/node",
    "name": "rig-1",
    "engine_venv": "/opt/shrk/engine",
    "memory_gb": 24,
    "visible_devices": ["0", "2"],
    "models": ["NAME"],
    "schedule": "22:00-08:00",
    "time_zone": "Europe/Berlin",
    "payout_address": "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed",
    "scripted_gpu": "/etc/shrk/gpu.json",
    "source": "Qwen/Qwen3-8B",
    "revision": "b968826d9c46dd6066d109eabc6255188de91218",
    "weights_gb": 16.4,
    "parameters_billion": 8.2,
    "context_tokens": 32_768,
    "first_token_ms": 200,
    "tokens_per_second": 40,
    "jitter_ms": 5,
}
_HEAD = """\
# The settings of this shrk node. A variable (SHRK_ and the key in capitals) wins over this file, and this file over
# those in conf.d beside it. `shrk set KEY VALUE` checks and changes one line, and has the running agent take it in.
# After a change by hand: `shrk config check`, then `shrk stop` and `shrk start`. Where a value comes from:
# `shrk config show --origin`.
"""
_FIELD = re.compile(r"    (\w+): ")
_DOC = "    #: "


def commented_file(
    values: Mapping[str, object] | None = None, catalogue: Mapping[str, Mapping[str, object]] | None = None
) -> str:
    """The file's text. `values` are chosen, top-level settings in the file's own form; `catalogue` is what
    [catalogue.NAME] says of each model. Raises ValueError for a name that is no setting; values are not checked.
    """
    values, catalogue = values or {}, catalogue or {}
    known = {*AgentSettings.model_fields} - {"catalogue", "sim"}
    if wrong := [*(name for name in values if name not in known), *_wrong_in(catalogue)]:
        raise ValueError(f"{', '.join(wrong)}: no such setting")
    blocks = [_HEAD, *_blocks(AgentSettings, values, known)]
    docs = documentation(AgentSettings)
    blocks.append(_comment(docs["catalogue"]))
    for name, entry in catalogue.items():
        blocks.append(f"[catalogue.{tomlkit.key(name).as_string()}]\n" + _rows(CatalogueEntry, entry))
    if not catalogue:
        blocks.append("# [catalogue.NAME]\n" + _rows(CatalogueEntry, {}))
    blocks.append(f"{_comment(docs['sim'])}# [sim]\n" + _rows(SimulatedSpeed, {}))
    return "\n".join(blocks)


def documentation(table: type[BaseModel]) -> dict[str, tuple[str, ...]]:
    """Of each setting of a table the lines of its `#:` comment."""
    docs: dict[str, tuple[str, ...]] = {}
    comment: list[str] = []
    for line in inspect.getsource(table).splitlines():
        if line.startswith(_DOC):
            comment.append(line.removeprefix(_DOC))
            continue
        if (field := _FIELD.match(line)) and field[1] in table.model_fields:
            docs[field[1]] = tuple(comment)
        comment = []
    return docs


def _wrong_in(catalogue: Mapping[str, Mapping[str, object]]) -> list[str]:
    known = CatalogueEntry.model_fields
    return [f"catalogue.{name}.{key}" for name, entry in catalogue.items() for key in entry if key not in known]


def _blocks(table: type[BaseModel], values: Mapping[str, object], known: set[str]) -> list[str]:
    docs = documentation(table)
    return [_comment(docs[name]) + _row(table, name, values) for name in table.model_fields if name in known]


def _rows(table: type[BaseModel], values: Mapping[str, object]) -> str:
    docs = documentation(table)
    return "".join(_comment(docs[name]) + _row(table, name, values) for name in table.model_fields)


def _comment(lines: tuple[str, ...]) -> str:
    return "".join(f"# {line}\n" for line in lines)


def _row(table: type[BaseModel], name: str, values: Mapping[str, object]) -> str:
    chosen = values.get(name)
    value = chosen if chosen is not None else _EXAMPLES.get(name, table.model_fields[name].get_default())
    assert value is not None, f"{name} has neither a default nor an example"
    written = tomlkit.item(value.value if isinstance(value, Enum) else value).as_string()
    return f"{'' if chosen is not None else '# '}{name} = {written}\n"
