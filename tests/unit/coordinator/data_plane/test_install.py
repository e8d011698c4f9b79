"""What GET /install answers: a script with this coordinator's addresses, a release's files and nothing else."""

from __future__ import annotations

import asyncio
import hashlib
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from shrk_coordinator.data_plane.http import Handler, Turn
from shrk_coordinator.data_plane.install import Installation, Release, refusing_script
from shrk_coordinator.errors import ApiError

PIN = bytes(range(32))
TEMPLATE = "#!/bin/sh\necho '@SHRK_URL@ @SHRK_LINK@ @SHRK_CA_PIN@ @SHRK_OTHER@'"


def a_release(folder: Path, **files: str) -> Release:
    """A folder as `make release` leaves it, without a signature that anybody here would check."""
    contents = {"install.sh": TEMPLATE} | {name.replace("__", "."): text for name, text in files.items()}
    for name, text in contents.items():
        (folder / name).write_text(text)
    sums = (f"{hashlib.sha256(text.encode()).hexdigest()}  {name}\n" for name, text in contents.items())
    (folder / "SHA256SUMS").write_text("".join(sums))
    (folder / "SHA256SUMS.sig").write_bytes(b"s" * 64)
    return Release(folder)


def served(handler: Handler) -> web.Application:
    async def serve(request: web.Request) -> web.StreamResponse:
        try:
            return await handler(Turn(request))
        except ApiError as error:
            return web.Response(status=error.status, text=error.message)

    app = web.Application()
    app.router.add_get("/install", serve)
    app.router.add_get("/install/{name}", serve)
    return app


class Asker:
    """Asks one installation, under any Host."""

    def __init__(
        self, script: TestClient[web.Request, web.Application], files: TestClient[web.Request, web.Application]
    ):
        self._script, self._files = script, files

    async def script(self, host: str = "rig.example:8080") -> str:
        answer = await self._script.get("/install", headers={"Host": host})
        assert (answer.status, answer.content_type) == (200, "text/x-shellscript")
        return await answer.text()

    async def file(self, name: str) -> tuple[int, bytes]:
        answer = await self._files.get(f"/install/{name}")
        return answer.status, await answer.read()


async def asker(installation: Installation) -> AsyncIterator[Asker]:
    routes = installation.routes()
    script, files = served(routes["/install"]), served(routes["/install/{name}"])
    async with TestClient(TestServer(script)) as one, TestClient(TestServer(files)) as two:
        yield Asker(one, two)


@pytest.fixture
async def asked(tmp_path: Path) -> AsyncIterator[Asker]:
    """A coordinator with a release."""
    async for one in asker(Installation(a_release(tmp_path, a__whl="wheel"), 9100, PIN)):
        yield one


@pytest.fixture
async def without_release() -> AsyncIterator[Asker]:
    """A coordinator without."""
    async for one in asker(Installation(None, 9100, PIN)):
        yield one


def run(script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["sh"], input=script, capture_output=True, text=True)


async def ran(script: str) -> subprocess.CompletedProcess[str]:
    return await asyncio.to_thread(run, script)


@pytest.mark.parametrize(
    ("host", "url", "link"),
    [
        ("rig.example:8080", "http://rig.example:8080", "tcp://rig.example:9100"),
        ("10.0.0.1", "http://10.0.0.1", "tcp://10.0.0.1:9100"),
        ("[fd00::1]:8080", "http://[fd00::1]:8080", "tcp://[fd00::1]:9100"),
    ],
)
async def test_the_script_knows_the_address_at_which_it_was_asked_for(
    asked: Asker, host: str, url: str, link: str
) -> None:
    pin = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"
    assert (await ran(await asked.script(host))).stdout == f"{url} {link} {pin} @SHRK_OTHER@\n"


@pytest.mark.parametrize(
    "host", ["a'; touch x; '", "$(id)", "a`id`", "a b", "-a", "a:b", "a:1:2", "a@b", "a/b", "[x]", "@SHRK_LINK@", "a\\"]
)
async def test_nothing_but_an_address_gets_into_the_script(asked: Asker, host: str) -> None:
    script = await asked.script(host)
    assert host not in script
    ended = await ran(script)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert "not installed: the Host header" in ended.stderr


async def test_what_the_operator_says_wins_over_the_host_header(tmp_path: Path) -> None:
    installation = Installation(a_release(tmp_path), 9100, PIN, "https://shrk.example", "tcp://link.example:443")
    async for one in asker(installation):
        assert (await ran(await one.script("$(id)"))).stdout.startswith("https://shrk.example tcp://link.example:443 ")


async def test_behind_tls_the_script_asks_through_tls(tmp_path: Path) -> None:
    async for one in asker(Installation(a_release(tmp_path), 9100, PIN, secure=True)):
        assert "https://rig.example " in await one.script("rig.example")


async def test_without_a_release_the_shell_hears_why_and_ends_with_1(without_release: Asker) -> None:
    ended = await ran(await without_release.script())
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.startswith("shrk: not installed: this coordinator has no release")
    assert "make release" in ended.stderr
    assert (await without_release.file("SHA256SUMS"))[0] == 404


async def test_the_files_of_a_release_are_served(asked: Asker) -> None:
    assert await asked.file("a.whl") == (200, b"wheel")
    assert await asked.file("SHA256SUMS.sig") == (200, b"s" * 64)
    assert (await asked.file("SHA256SUMS"))[1].endswith(b"  a.whl\n")


@pytest.mark.parametrize(
    "name", ["..%2Fsecret", "%2Fetc%2Fpasswd", "b.whl", "a.whl%00", ".", "..", "%2e%2e", "SHA256SUMS%0a"]
)
async def test_nothing_else_is_served(asked: Asker, tmp_path: Path, name: str) -> None:
    (tmp_path / "b.whl").write_text("not in SHA256SUMS")
    status, content = await asked.file(name)
    assert status == 404
    assert b"not in SHA256SUMS" not in content
    assert b"root:" not in content


async def test_a_name_with_a_path_in_it_is_no_name_even_where_the_sums_have_it(asked: Asker, tmp_path: Path) -> None:
    (tmp_path.parent / "secret").write_text("secret")
    with (tmp_path / "SHA256SUMS").open("a") as sums:
        sums.write(f"{hashlib.sha256(b'secret').hexdigest()}  ../secret\n")
    assert (await asked.file("..%2Fsecret"))[0] == 404


async def test_a_file_that_was_changed_is_not_served(asked: Asker, tmp_path: Path) -> None:
    (tmp_path / "a.whl").write_text("another")
    status, content = await asked.file("a.whl")
    assert (status, b"not the file that SHA256SUMS names" in content) == (404, True)


async def test_a_script_that_was_changed_is_not_run(asked: Asker, tmp_path: Path) -> None:
    (tmp_path / "install.sh").write_text("echo harm")
    ended = await ran(await asked.script())
    assert (ended.returncode, ended.stdout) == (1, "")
    assert "install.sh is not the file" in ended.stderr


async def test_a_release_that_is_gone_is_told_in_words(asked: Asker, tmp_path: Path) -> None:
    (tmp_path / "SHA256SUMS").unlink()
    ended = await ran(await asked.script())
    assert (ended.returncode, "SHA256SUMS of the release cannot be read" in ended.stderr) == (1, False)
    assert "cannot be read here: No such file" in ended.stderr


@pytest.mark.parametrize("reason", ["it's gone", "$(touch x)", "`id`", "a\nb", "'; echo harm; '", "\\"])
def test_a_refusal_is_text_and_never_a_command(reason: str) -> None:
    ended = run(refusing_script(reason))
    assert (ended.returncode, ended.stdout, ended.stderr) == (1, "", f"shrk: not installed: {reason}\n")
