"""The `openai` package, with clients that find a shrk coordinator by themselves.

Everything `openai` exports is here under the same name and is the same object, so changing
`import openai` to `import shrk as openai` changes nothing else. `Shrk` and `AsyncShrk` are added.
"""

from __future__ import annotations

import openai
from openai import *  # noqa: F403  # being a superset of openai is this package's purpose

from shrk.client import AsyncShrk, Shrk

__all__ = ["AsyncShrk", "Shrk"]
__all__ += openai.__all__
