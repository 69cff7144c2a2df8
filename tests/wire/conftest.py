# SPDX-License-Identifier: MIT
"""The recordings of two real Perl nodes, and ways to cut a stream of bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.support.recordings import RECORDINGS


def whole(data: bytes) -> Iterator[bytes]:
    yield data


def byte_by_byte(data: bytes) -> Iterator[bytes]:
    for index in range(len(data)):
        yield data[index : index + 1]


def in_sevens(data: bytes) -> Iterator[bytes]:
    for index in range(0, len(data), 7):
        yield data[index : index + 7]


@pytest.fixture(params=[whole, byte_by_byte, in_sevens])
def cut(request: pytest.FixtureRequest) -> Callable[[bytes], Iterator[bytes]]:
    """A way to cut a stream; tests with it run once for each."""
    way: Callable[[bytes], Iterator[bytes]] = request.param
    return way


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """``recording``: all of them; ``plain_``: those without TLS; ``json_``, ``cbor_``: those in this framing."""
    plain = [name for name in RECORDINGS if "tls" not in name]
    for fixture, names in {
        "recording": list(RECORDINGS),
        "plain_recording": plain,
        "json_recording": [name for name in plain if "json" in name],
        "cbor_recording": [name for name in plain if "json" not in name],
    }.items():
        if fixture in metafunc.fixturenames:
            metafunc.parametrize(fixture, [pytest.param(RECORDINGS[name], id=name) for name in names])
