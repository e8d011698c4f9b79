"""A model hub on loopback: the parts of the hub's HTTP API that huggingface_hub uses to fetch a snapshot.

Faults are set on it by tests: a hub that is away, connections that break off, files that wait.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web


def a_commit(name: str) -> str:
    """The hash of a commit of that name."""
    return hashlib.sha1(name.encode()).hexdigest()


@dataclass(slots=True)
class Repository:
    """One model: what its branches and tags mean, and the files of each commit."""

    revisions: dict[str, str]
    commits: dict[str, Mapping[str, bytes]]
    gated: bool = False


@dataclass(slots=True)
class FakeHub:
    """What it holds, what it was asked, and what is wrong with it."""

    url: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    #: (method, path) of all requests, in order.
    asked: list[tuple[str, str]] = field(default_factory=list)
    #: The `Range` of each GET of a file that had one.
    ranges: list[tuple[str, str]] = field(default_factory=list)
    #: Answers 503 to everything.
    away: bool = False
    #: Files whose next GET ends after half of its bytes, without the rest.
    breaks: set[str] = field(default_factory=set)
    #: Files whose GET gives half of its bytes and then waits for `go_on`.
    waits: set[str] = field(default_factory=set)
    go_on: asyncio.Event = field(default_factory=asyncio.Event)
    #: Set once a file waits.
    waiting: asyncio.Event = field(default_factory=asyncio.Event)

    def add(self, name: str, files: Mapping[str, bytes], revision: str = "main") -> str:
        """A new commit, which the revision means from now on; its hash."""
        commit = a_commit(f"{name} {len(self.repositories.get(name, Repository({}, {})).commits)}")
        repository = self.repositories.setdefault(name, Repository({}, {}))
        repository.commits[commit] = dict(files)
        repository.revisions[revision] = commit
        return commit

    def fetched(self) -> list[str]:
        """The names of the files whose bytes were asked for."""
        return [path.split("/", 5)[5] for method, path in self.asked if method == "GET" and "/resolve/" in path]

    @web.middleware
    async def _noted(self, request: web.Request, handler: object) -> web.StreamResponse:
        self.asked.append((request.method, request.path))
        if self.away:
            return web.Response(status=503)
        assert callable(handler)
        answer = await handler(request)
        assert isinstance(answer, web.StreamResponse)
        return answer

    def _commit(self, request: web.Request) -> tuple[Repository, str] | web.Response:
        name = f"{request.match_info['org']}/{request.match_info['name']}"
        revision = request.match_info.get("revision", "main")
        repository = self.repositories.get(name)
        if repository is None:
            return web.Response(status=401, headers={"X-Error-Code": "RepoNotFound"})
        if repository.gated:
            return web.Response(status=403, headers={"X-Error-Code": "GatedRepo"})
        commit = repository.revisions.get(revision, revision)
        if commit not in repository.commits:
            return web.Response(status=404, headers={"X-Error-Code": "RevisionNotFound"})
        return repository, commit

    async def _info(self, request: web.Request) -> web.Response:
        match self._commit(request):
            case web.Response() as refused:
                return refused
            case _, commit:
                return web.json_response({"id": "org/name", "modelId": "org/name", "sha": commit, "siblings": []})

    async def _tree(self, request: web.Request) -> web.Response:
        match self._commit(request):
            case web.Response() as refused:
                return refused
            case repository, commit:
                files = repository.commits[commit].items()
                return web.json_response([_entry(path, content) for path, content in files])

    async def _file(self, request: web.Request) -> web.StreamResponse:
        found = self._commit(request)
        if isinstance(found, web.Response):
            return found
        repository, commit = found
        path = request.match_info["path"]
        content = repository.commits[commit][path]
        headers = {"ETag": f'"{_etag(path, content)}"', "X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
        start = request.http_range.start or 0
        if "Range" in request.headers:
            self.ranges.append((path, request.headers["Range"]))
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        body = content[start:]
        answer = web.StreamResponse(status=206 if "Range" in request.headers else 200, headers=headers)
        answer.content_length = len(body)
        await answer.prepare(request)
        if request.method == "HEAD":
            return answer
        await answer.write(body[: len(body) // 2])
        if path in self.breaks:
            self.breaks.remove(path)
            assert request.transport is not None
            request.transport.close()
            return answer
        if path in self.waits:
            self.waiting.set()
            await self.go_on.wait()
        try:
            await answer.write(body[len(body) // 2 :])
            await answer.write_eof()
        except ConnectionError:
            pass  # Who fetched it has been stopped meanwhile.
        return answer


def _etag(path: str, content: bytes) -> str:
    is_large = path.endswith((".safetensors", ".bin"))
    return (hashlib.sha256 if is_large else hashlib.sha1)(content).hexdigest()


def _entry(path: str, content: bytes) -> dict[str, object]:
    entry: dict[str, object] = {"type": "file", "path": path, "size": len(content)}
    entry["oid"] = hashlib.sha1(content).hexdigest()
    if path.endswith((".safetensors", ".bin")):
        entry["lfs"] = {"oid": _etag(path, content), "size": len(content), "pointerSize": 134}
    return entry


@asynccontextmanager
async def a_hub() -> AsyncIterator[FakeHub]:
    """One on a free port; `url` is for HF_ENDPOINT."""
    hub = FakeHub()
    app = web.Application(middlewares=[hub._noted])
    app.router.add_get("/api/models/{org}/{name}", hub._info)
    app.router.add_get("/api/models/{org}/{name}/revision/{revision}", hub._info)
    app.router.add_get("/api/models/{org}/{name}/tree/{revision}", hub._tree)
    app.router.add_get("/{org}/{name}/resolve/{revision}/{path:.+}", hub._file)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    _, port = runner.addresses[0]
    hub.url = f"http://127.0.0.1:{port}"
    try:
        yield hub
    finally:
        hub.go_on.set()
        await runner.cleanup()
