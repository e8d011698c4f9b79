"""`make release`: everything that GET /install serves, in one folder: wheels, pins, units, the script, and a signature.

The signature is by the release key, an Ed25519 key that the project keeps away from coordinators; its public half is
written into the script. `RELEASE_KEY` names it. Without one a development key is used, and said so.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

ROOT = Path(__file__).resolve().parent.parent
#: What a node needs, and a coordinator; the SDK is for applications and lives on a package index.
MEMBERS = ("proto", "coordinator", "node_agent", "cli")
#: Files that go in as they are, and what they are called there.
COPIED = {
    "constraints/dev.txt": "constraints.txt",
    "constraints/engine-cpu.txt": "engine-cpu.txt",
    "constraints/engine-cuda.in": "engine-cuda.txt",
    "systemd/shrk-node.service": "shrk-node.service",
    "systemd/shrk-coordinator.service": "shrk-coordinator.service",
}
DEVELOPMENT_KEY = Path(".cache/release-development.key")


class ReleaseFailed(Exception):
    """No release. `str()` says why, and the remedy."""


def release(folder: Path, key: Ed25519PrivateKey) -> str:
    """Fill the folder anew; returns the version. Raises ReleaseFailed."""
    versions = {_version(member) for member in MEMBERS}
    if len(versions) != 1:
        raise ReleaseFailed(f"the packages have different versions: {', '.join(sorted(versions))}; make them one")
    [version] = versions
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for member in MEMBERS:
        _build(member, folder)
    for source, name in COPIED.items():
        shutil.copyfile(ROOT / source, folder / name)
    script = (ROOT / "installer" / "install.sh").read_text()
    filled = script.replace("@SHRK_VERSION@", version).replace("@SHRK_PUBLIC_KEY@", public_key_text(key))
    (folder / "install.sh").write_text(filled)
    sign(folder, key)
    return version


def sign(folder: Path, key: Ed25519PrivateKey) -> None:
    """Write SHA256SUMS of all that lies in the folder, and its signature."""
    names = sorted(path.name for path in folder.iterdir() if path.name not in ("SHA256SUMS", "SHA256SUMS.sig"))
    sums = "".join(f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}\n" for name in names)
    (folder / "SHA256SUMS").write_text(sums)
    (folder / "SHA256SUMS.sig").write_bytes(key.sign(sums.encode()))


def public_key_text(key: Ed25519PrivateKey) -> str:
    """The public half, as the one line of base64 that stands between the two lines of its PEM."""
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    pem = key.public_key().public_bytes(serialization.Encoding.PEM, form).decode()
    return "".join(pem.splitlines()[1:-1])


def read_key(path: Path) -> Ed25519PrivateKey:
    """The release key in this PEM file. Raises ReleaseFailed."""
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), None)
    except OSError as error:
        raise ReleaseFailed(f"RELEASE_KEY={path} cannot be read: {error.strerror}") from error
    except (ValueError, TypeError) as error:
        raise ReleaseFailed(f"RELEASE_KEY={path} is no PEM private key without a password: {error}") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise ReleaseFailed(f"RELEASE_KEY={path} is not an Ed25519 key; openssl genpkey -algorithm ed25519 makes one")
    return key


def development_key(path: Path) -> Ed25519PrivateKey:
    """A throw-away key, made where there is none."""
    if path.exists():
        return read_key(path)
    key = Ed25519PrivateKey.generate()
    encryption, form = serialization.NoEncryption(), serialization.PrivateFormat.PKCS8
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600)
    path.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, encryption))
    return key


def _version(member: str) -> str:
    project = tomllib.loads((ROOT / member / "pyproject.toml").read_text())["project"]
    return str(project["version"])


def _build(member: str, folder: Path) -> None:
    command = (sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder))
    built = subprocess.run(command, cwd=ROOT / member, capture_output=True, text=True)
    if built.returncode != 0:
        raise ReleaseFailed(f"the wheel of {member} was not built:\n{built.stdout}{built.stderr}")


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--key", type=Path, help="the release key, a PEM file; default: a development key")
    parser.add_argument("--out", type=Path, default=ROOT / "dist", help="the folder to fill anew; default: dist")
    options = parser.parse_args()
    try:
        if options.key is None:
            print(
                "release: NO RELEASE_KEY WAS GIVEN. This release is signed by a throw-away development key\n"
                f"release: ({DEVELOPMENT_KEY}); use it on your own machines only.",
                file=sys.stderr,
            )
        key = read_key(options.key) if options.key else development_key(ROOT / DEVELOPMENT_KEY)
        version = release(options.out.absolute(), key)
    except ReleaseFailed as error:
        print(f"release: {error}", file=sys.stderr)
        return 1
    print(f"release: shrk {version} in {options.out}; serve it: shrk coordinator serve --dist-dir {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
