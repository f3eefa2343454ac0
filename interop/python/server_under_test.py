"""Starts, kills and restarts the release binary for the tests beside this file."""

import os
import selectors
import signal
import subprocess
import tempfile
from pathlib import Path

# Far more than a start takes: a server that is slow to start is not what fails here.
START_TIMEOUT_S = 60


class Server:
    """A running binary. It keeps its folder and its address over a kill."""

    def __init__(self, api_version="1"):
        self.api_version = api_version
        self.folder = tempfile.TemporaryDirectory(prefix="pontoon-interop-")
        self.log = Path(self.folder.name, "log")
        self.addr = "127.0.0.1:0"
        self.process = None
        self.launch()

    def launch(self):
        """Returns once the server has said that it can serve."""
        binary = os.environ.get("PONTOON")
        assert binary, "PONTOON names no binary: run ./x interop python"
        nodes, config = os.environ.get("PONTOON_NODES"), os.environ.get("PONTOON_CONFIG")
        # A cluster remembers its ports in its folder.
        cluster = ("dev", "--listen", "127.0.0.1:0", "--nodes", nodes)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [
                    *(binary, *(cluster if nodes else ("start", "--listen", self.addr))),
                    *(("--config", config) if config else ()),
                    *("--data-dir", f"{self.folder.name}/data"),
                    *("--api-version", self.api_version),
                ],
                stdout=subprocess.PIPE,
                stderr=log,
            )
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            ready = selector.select(START_TIMEOUT_S)
        line = self.process.stdout.readline().decode() if ready else ""
        fields = dict(field.split("=", 1) for field in line.split()[1:] if "=" in field)
        if not line.startswith("ready ") or "listen" not in fields:
            text = self.log.read_text()
            self.close()
            raise AssertionError(f"no ready line but {line!r}; its log:\n{text}")
        # Of several nodes the first is spoken to.
        self.addr = fields["listen"].split(",")[0]

    def kill(self):
        """Ends it without a word, as a crash would. Several nodes end in order."""
        several = "PONTOON_NODES" in os.environ
        self.process.send_signal(signal.SIGTERM if several else signal.SIGKILL)
        self.process.wait()
        self.process.stdout.close()

    def close(self):
        if self.process.poll() is None:
            self.kill()
        self.folder.cleanup()
