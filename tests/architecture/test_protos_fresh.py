"""The generated contract is what the schema says, and the runtimes we ask for are those it was generated for."""

from __future__ import annotations

import os
import re
import subprocess
import tomllib
from pathlib import Path

from support.house import PACKAGES, ROOT

GENERATED = PACKAGES["shrk_contract"] / "shrk_contract" / "v1"
SCHEMA = PACKAGES["shrk_contract"] / "schema" / "shrk_contract" / "v1"


def floor_of(distribution: str) -> tuple[int, ...]:
    """The lowest version of a dependency that shrk-contract declares."""
    declared = tomllib.loads((PACKAGES["shrk_contract"] / "pyproject.toml").read_text())["project"]["dependencies"]
    found = next(match for line in declared if (match := re.match(rf"{distribution}>=([\d.]+)", line)))
    return tuple(map(int, found[1].split(".")))


def versions_in(pattern: str, files: str) -> set[tuple[int, ...]]:
    """All versions that the generated files name; the pattern's groups are the version's numbers."""
    found = [re.search(pattern, path.read_text(), re.DOTALL) for path in GENERATED.glob(files)]
    assert found, f"no {files} in {GENERATED}"
    return {tuple(map(int, match.groups())) for match in found if match}


def make(target: str) -> subprocess.CompletedProcess[str]:
    """Run one of the Makefile's targets as it is, without installing anything first."""
    outside = {name: value for name, value in os.environ.items() if name not in {"MAKEFLAGS", "MFLAGS", "MAKELEVEL"}}
    command = ["make", "-s", "-o", ".venv/.stamp", target]
    return subprocess.run(command, cwd=ROOT, env=outside, capture_output=True, text=True, timeout=110)


def test_the_generated_contract_equals_its_schema() -> None:
    checked = make("proto-check")
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_every_schema_file_has_its_generated_modules() -> None:
    schema = {path.stem for path in SCHEMA.glob("*.proto")}
    generated = {path.name.removesuffix("_pb2.py") for path in GENERATED.glob("*_pb2.py")}
    assert generated == schema


def test_the_protobuf_floor_is_the_version_that_generated_the_code() -> None:
    major, minor = floor_of("protobuf")
    pattern = r"ValidateProtobufRuntimeVersion\(\s*_runtime_version\.Domain\.PUBLIC,\s*(\d+),\s*(\d+),\s*(\d+)"
    assert versions_in(pattern, "*_pb2.py") == {(major, minor, 0)}


def test_the_grpc_floor_is_the_version_that_generated_the_code() -> None:
    pattern = r"GRPC_GENERATED_VERSION = '(\d+)\.(\d+)\.(\d+)'"
    assert versions_in(pattern, "*_pb2_grpc.py") == {floor_of("grpcio")}


def test_generated_code_is_not_edited_by_hand() -> None:
    marked = [path for path in GENERATED.glob("*_pb2*.py") if "DO NOT EDIT" in path.read_text()]
    assert {Path(path).name for path in marked} == {path.name for path in GENERATED.glob("*_pb2*.py")}
