"""What the tests of both clients share."""

import asyncio

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


@pytest.fixture
def event_loop():
    """The package tikv-client runs its calls on the thread's event loop, which newer Pythons do not make."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    yield loop
    loop.close()
