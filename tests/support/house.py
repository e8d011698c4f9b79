"""What the architecture tests look at: the repository's own files, and its modules as syntax trees."""

from __future__ import annotations

import ast
import io
import re
import subprocess
import tokenize
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

#: Each distribution's folder, by its import package.
PACKAGES = {
    "shrk_contract": ROOT / "proto",
    "shrk_coordinator": ROOT / "coordinator",
    "shrk_node_agent": ROOT / "node_agent",
    "shrk_cli": ROOT / "cli",
    "shrk": ROOT / "sdk" / "python",
}
#: Where the unit tests of each package live, below tests/unit.
UNIT_FOLDERS = {
    "shrk_contract": "contract",
    "shrk_coordinator": "coordinator",
    "shrk_node_agent": "node_agent",
    "shrk_cli": "cli",
    "shrk": "sdk",
}
#: protoc wrote it; `make proto-check` looks after it.
GENERATED = "proto/shrk_contract/v1/"


@dataclass(frozen=True)
class Module:
    """One Python file. `path` is relative to the repository, with forward slashes."""

    path: str
    source: str

    @cached_property
    def tree(self) -> ast.Module:
        """The syntax tree."""
        return ast.parse(self.source, self.path)

    @cached_property
    def nodes(self) -> tuple[ast.AST, ...]:
        """Every node of the tree."""
        return tuple(ast.walk(self.tree))

    @cached_property
    def imports(self) -> dict[str, str]:
        """Local names of imported things, with what they stand for in full."""
        found: dict[str, str] = {}
        for node in self.nodes:
            if isinstance(node, ast.Import):
                for alias in node.names:
                    top = alias.name.partition(".")[0]
                    found[alias.asname or top] = alias.name if alias.asname else top
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                for alias in node.names:
                    found[alias.asname or alias.name] = f"{node.module}.{alias.name}"
        return found

    def full_name(self, node: ast.expr) -> str | None:
        """`dt.datetime.now` as `datetime.datetime.now`; None for what is not an imported name."""
        if isinstance(node, ast.Attribute):
            owner = self.full_name(node.value)
            return f"{owner}.{node.attr}" if owner else None
        return self.imports.get(node.id) if isinstance(node, ast.Name) else None

    def comments(self) -> list[tuple[int, str]]:
        """Line number and text of each comment."""
        tokens = tokenize.generate_tokens(io.StringIO(self.source).readline)
        return [(token.start[0], token.string) for token in tokens if token.type == tokenize.COMMENT]

    @property
    def in_product(self) -> bool:
        """Whether it ships, rather than tests or measures what ships."""
        return any(self.path.startswith(f"{folder.relative_to(ROOT)}/") for folder in PACKAGES.values())


@cache
def repository_files() -> tuple[Path, ...]:
    """Every file that is tracked, or would be with `git add .`."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    return tuple(path for name in listed.stdout.split("\0") if name and (path := ROOT / name).is_file())


@cache
def modules() -> tuple[Module, ...]:
    """Every Python file of ours that no generator wrote."""
    paths = [path for path in repository_files() if path.suffix == ".py"]
    named = ((path.relative_to(ROOT).as_posix(), path) for path in paths)
    return tuple(Module(name, path.read_text()) for name, path in named if not name.startswith(GENERATED))


def words_of(name: str) -> list[str]:
    """`NodeLink` and `node_link` alike as ["node", "link"]."""
    return [word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", name)]
