"""Addresses are host:port, and what is not says what would be."""

from __future__ import annotations

import pytest

from shrk_cli.chaos.address import Address, parse_address


@pytest.mark.parametrize(
    ("written", "host", "port"),
    [("127.0.0.1:9200", "127.0.0.1", 9200), ("[::1]:0", "::1", 0), ("localhost:65535", "localhost", 65535)],
)
def test_an_address_is_read_and_written_alike(written: str, host: str, port: int) -> None:
    assert parse_address(written) == Address(host, port)
    assert str(parse_address(written)) == written


@pytest.mark.parametrize(
    "written", ["9200", "127.0.0.1", ":9200", "::1:9200", "host:65536", "host:-1", "tcp://host:1", ""]
)
def test_what_is_no_address_is_refused_with_an_example(written: str) -> None:
    with pytest.raises(ValueError, match=r"not host:port .* such as 127\.0\.0\.1:9100"):
        parse_address(written)
