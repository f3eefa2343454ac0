"""What the tests of both clients share."""

import pytest

from server_under_test import Server


@pytest.fixture
def start():
    """Starts servers that end with the test."""
    servers = []

    def start(api_version="1"):
        servers.append(Server(api_version))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def server(start):
    """A server with plain keys and values."""
    return start()
