"""Fetches one model from the hub into a folder, and tells how far it is: a program of its own, for the engine's Python.

    python -I fetch.py --repository ORG/NAME --revision REVISION --cache FOLDER --reserve-bytes N

Each line that begins with MARK is for the agent: a JSON object with an `event`. `found` names the commit and its bytes,
`progress` the bytes on disk, `fetched` the folder, `refused` why not, with a `kind` of KINDS. All other lines are the
hub's library speaking. Weights come as safetensors only: the other formats can run code when they are loaded. Nothing
is fetched before it is known that all of it has room.

Files that are complete are not fetched again. A file that broke off is: huggingface_hub 2.4 keeps no part of one.
"""

from __future__ import annotations

import argparse
import errno
import glob
import json
import os
import re
import shutil
import sys
import threading
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

#: Begins the lines that are for the agent.
MARK = "shrk-fetch "
#: Why a model is not fetched. missing, unsafe: it would end the same way again; the others may pass.
MISSING, UNSAFE, DISK, NETWORK = KINDS = ("missing", "unsafe", "disk", "network")
#: The exit status where it was refused.
REFUSED = 3
#: Between two words on how far it is: as often as a person looks.
TELL_SECONDS = 1.0
#: Files at once. Each that breaks off is fetched anew, so that more of them would lose more.
FILES_AT_ONCE_MAX = 4
#: One answer of the hub's API; it gives most in a second.
API_SECONDS_MAX = 30.0

_COMMIT = re.compile(r"[0-9a-f]{40}")
_WEIGHTS = ".safetensors"
#: Beside the weights: configuration, tokenizer and template. No code, and no pickles.
_BESIDE = (".json", ".txt", ".model", ".jinja", ".tiktoken")
#: Folders in which repositories keep the same weights once more, for other programs.
_ELSEWHERE = frozenset({"original", "onnx", "openvino", "coreml", "metal", "gguf"})
#: Pickles, which an owner may have expected.
_PICKLES = (".bin", ".pt", ".pth", ".ckpt")


class Refused(Exception):
    """It is not fetched; the words are for the owner."""

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind


@dataclass(frozen=True, slots=True)
class Model:
    """What is to be fetched."""

    repository: str
    revision: str
    cache: Path
    #: Of the disk, never to be used.
    reserve_bytes: int

    @property
    def folder(self) -> Path:
        """Where the hub's library keeps the repository."""
        return self.cache / ("models--" + self.repository.replace("/", "--"))


def is_commit(revision: str) -> bool:
    """Whether it is a commit's full hash, which never means anything else."""
    return _COMMIT.fullmatch(revision) is not None


def wanted(paths: Iterable[str]) -> list[str]:
    """Which of a repository's files an engine needs. Raises Refused where there are no safe weights."""
    near = [path for path in paths if path.split("/")[0] not in _ELSEWHERE]
    weights = [path for path in near if path.endswith(_WEIGHTS) and "/" not in path]
    # Mistral's repositories hold the same weights twice.
    sharded = [path for path in weights if not path.startswith("consolidated")]
    if not weights:
        pickles = [path for path in near if path.endswith(_PICKLES)]
        holds = f"only {pickles[0]} and the like, which can run code when it is loaded" if pickles else "no weights"
        raise Refused(UNSAFE, f"it holds {holds}; name a model whose weights are *{_WEIGHTS} files")
    return sorted([*(sharded or weights), *(path for path in near if path.endswith(_BESIDE))])


def check_disk(needed_bytes: int, free_bytes: int, reserve_bytes: int, where: Path) -> None:
    """Raises Refused where what is still to be fetched has no room beside the reserve."""
    lacking = needed_bytes + reserve_bytes - free_bytes
    if needed_bytes > 0 and lacking > 0:
        raise Refused(
            DISK,
            f"{gigabytes(needed_bytes)} are still to be fetched into {where}, whose disk has {gigabytes(free_bytes)} "
            f"free, of which {gigabytes(reserve_bytes)} stay reserved; free {gigabytes(lacking)} there",
        )


def gigabytes(count: int) -> str:
    """For people; rounded up, so that what it says to free is enough."""
    return f"{-(-count // 10**8) / 10:.1f} GB" if count >= 10**8 else f"{-(-count // 10**5) / 10:.1f} MB"


def fetch(model: Model, tell: Callable[[Mapping[str, Any]], None]) -> None:
    """Do it. Raises Refused, or whatever else of the hub's library."""
    import huggingface_hub as hub  # type: ignore[import-not-found]  # it is in the engine's environment only

    api = hub.HfApi()
    commit = model.revision
    if not is_commit(commit):
        commit = api.repo_info(model.repository, revision=commit, timeout=API_SECONDS_MAX).sha or ""
        if not is_commit(commit):  # It becomes the name of a folder.
            raise Refused(NETWORK, f"the hub calls {commit!r} a commit")
    listed = api.list_repo_tree(model.repository, recursive=True, revision=commit)
    sizes = {entry.path: entry.size for entry in listed if isinstance(entry, hub.hf_api.RepoFile)}
    paths = wanted(sizes)
    total = sum(sizes[path] for path in paths)
    snapshot = model.folder / "snapshots" / commit
    model.cache.mkdir(parents=True, exist_ok=True)
    for left in _incomplete(model.folder):
        left.unlink(missing_ok=True)  # Of an earlier program that was killed; nobody can go on with it.
    lacking = sum(sizes[path] for path in paths if not (snapshot / path).exists())
    tell({"event": "found", "commit": commit, "bytes": total, "here": total - lacking})
    check_disk(lacking, shutil.disk_usage(model.cache).free, model.reserve_bytes, model.cache)
    with _told_regularly(lambda: {"event": "progress", "here": _here(model.folder, snapshot, paths)}, tell):
        hub.snapshot_download(
            model.repository,
            revision=commit,
            cache_dir=model.cache,
            allow_patterns=[glob.escape(path) for path in paths],
            max_workers=FILES_AT_ONCE_MAX,
            etag_timeout=API_SECONDS_MAX,
        )
    short = [path for path in paths if (snapshot / path).stat().st_size != sizes[path]]
    if short:
        raise Refused(NETWORK, f"{short[0]} has another size than the hub says; delete {model.folder} and try again")
    tell({"event": "fetched", "folder": str(snapshot), "files": len(paths)})


def _incomplete(folder: Path) -> Collection[Path]:
    return list((folder / "blobs").glob("*.incomplete"))


def _here(folder: Path, snapshot: Path, paths: Iterable[str]) -> int:
    """Bytes on disk of what is wanted."""
    here = 0
    for path in [*(snapshot / path for path in paths), *_incomplete(folder)]:
        try:
            found = path.stat()
        except FileNotFoundError:
            continue  # Not yet there, or just now complete.
        here += min(found.st_size, found.st_blocks * 512)  # Some are made in full length, and filled later.
    return here


@contextmanager
def _told_regularly(news: Callable[[], Mapping[str, Any]], tell: Callable[[Mapping[str, Any]], None]) -> Any:
    over = threading.Event()

    def told() -> None:
        while not over.wait(TELL_SECONDS):
            tell(news())

    teller = threading.Thread(target=told, name="progress", daemon=True)
    teller.start()
    try:
        yield
    finally:
        over.set()
        teller.join()


def refusal(error: Exception, model: Model) -> Refused | None:
    """What an error of the hub's library means for the owner; None where it is no error that is known."""
    from huggingface_hub import errors

    what = f"{model.repository} at {model.revision}"
    match error:
        case Refused():
            return Refused(error.kind, f"{what}: {error}")
        case errors.GatedRepoError():
            return Refused(
                MISSING,
                f"{model.repository} is gated: accept its licence on the hub, and give the agent that account's token "
                "in HF_TOKEN",
            )
        case errors.RevisionNotFoundError():
            return Refused(MISSING, f"{model.repository} has no revision {model.revision}")
        case errors.RepositoryNotFoundError():
            return Refused(
                MISSING,
                f"the hub has no model {model.repository}, or a private one; correct its source, or give the agent a "
                "token that may read it in HF_TOKEN",
            )
        case errors.HFValidationError():
            return Refused(MISSING, f"{model.repository!r} is neither a folder here nor ORG/NAME of a model on the hub")
        case errors.HfHubHTTPError() | errors.LocalEntryNotFoundError():
            return Refused(NETWORK, f"the hub does not give {what}: {_first_line(error)}")
        case OSError(errno=errno.ENOSPC | errno.EDQUOT | errno.EROFS | errno.EACCES | errno.EPERM):
            return Refused(DISK, f"{model.cache} cannot be written: {error.strerror}")
    # Its HTTP library is another one in each of its major versions.
    if isinstance(error, ConnectionError | TimeoutError) or type(error).__module__.split(".")[0] in _HTTP_LIBRARIES:
        return Refused(NETWORK, f"the hub cannot be reached: {type(error).__name__}: {_first_line(error)}")
    return None


_HTTP_LIBRARIES = frozenset({"httpx", "httpx2", "httpcore", "httpcore2", "requests", "urllib3"})


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [""])[0][:300]


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status: 0 where it is fetched, REFUSED where a `refused` was told."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repository", required=True)
    parser.add_argument("--revision", required=True)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--reserve-bytes", type=int, required=True)
    given = parser.parse_args(arguments)
    model = Model(given.repository, given.revision, given.cache.absolute(), given.reserve_bytes)
    speaking = threading.Lock()

    def tell(event: Mapping[str, Any]) -> None:
        with speaking:
            # One write: the library's own lines, from other threads, must not come in between.
            os.write(sys.stdout.fileno(), f"{MARK}{json.dumps(event)}\n".encode())

    try:
        fetch(model, tell)
    except Exception as error:
        known = refusal(error, model)
        if known is None:
            raise
        tell({"event": "refused", "kind": known.kind, "reason": str(known)})
        return REFUSED
    return 0


if __name__ == "__main__":
    sys.exit(main())
