"""A metadata service to ask, and an address where nobody listens."""

import socket
from collections.abc import Iterator

import pytest
from metadata_server import MetadataServer, metadata_server


@pytest.fixture
def service() -> Iterator[MetadataServer]:
    with metadata_server() as server:
        yield server


@pytest.fixture
def nobody() -> Iterator[str]:
    """An address that refuses: its port is taken and not listened to."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{holder.getsockname()[1]}"
