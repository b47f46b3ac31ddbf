"""A real visdom server for the tests, in a process of its own, and servers that are none."""

import http.server
import json
import socket
import socketserver
import subprocess
import sys
import time
from pathlib import Path
from urllib.error import URLError
from urllib.request import Request, urlopen

from support.stages import REPOSITORY

START = "import sys, visdom.server.run_server as server; sys.argv[0] = 'visdom'; server.main()"
"""`python -m visdom.server` would first look for its page's scripts in the network."""


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class VisdomProcess:
    """A visdom server on a port of this machine; `folder` takes what it saves. Use it in a `with`."""

    def __init__(self, folder: Path, port: int | None = None, start: tuple[str, ...] = ("-c", START)) -> None:
        self.folder, self.port = folder, free_port() if port is None else port
        self._command = [sys.executable, *start]
        self.url = f"http://localhost:{self.port}"
        self.start()

    def __enter__(self) -> "VisdomProcess":
        return self

    def __exit__(self, *error: object) -> None:
        self.kill()

    def start(self) -> None:
        """Start it, again perhaps, on the same port, and wait until it answers; it remembers nothing."""
        self.folder.mkdir(exist_ok=True)
        flags = ["-port", str(self.port), "-env_path", f"{self.folder}/", "-bind_local"]
        with (self.folder / "server.log").open("a") as log:
            command = [*self._command, *flags]
            self.process = subprocess.Popen(command, stdout=log, stderr=log, cwd=REPOSITORY)
        deadline = time.monotonic() + 120
        while True:
            try:
                self.environments()
                return
            except URLError:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError((self.folder / "server.log").read_text()) from None
                time.sleep(0.05)

    def kill(self) -> None:
        """End it as a crash would."""
        self.process.kill()
        self.process.wait()

    def environments(self) -> list[str]:
        """The names of its environments."""
        return self._ask("env_state", {})

    def windows(self, env: str) -> dict[str, dict]:
        """The environment's windows by name, as `visdom.Visdom.get_window_data` gets them."""
        return self._ask("win_data", {"win": None, "eid": env}) if env in self.environments() else {}

    def curves(self, env: str) -> dict[str, dict[str, list]]:
        """Window -> legend -> [(x, y), ...]."""
        return {
            name: {
                curve["name"]: list(zip(curve["x"], curve["y"], strict=True))
                for curve in window["content"]["data"]
            }
            for name, window in self.windows(env).items()
            if window["type"] == "plot"
        }

    def _ask(self, endpoint: str, message: dict) -> object:
        request = Request(f"http://127.0.0.1:{self.port}/{endpoint}", json.dumps(message).encode())
        with urlopen(request, timeout=10) as answer:
            return json.load(answer)


class Hello(http.server.BaseHTTPRequestHandler):
    """Something that is friendly, but no visdom server."""

    def do_POST(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"hello")

    def log_message(self, *args: object) -> None:
        pass


class Unfriendly(http.server.SimpleHTTPRequestHandler):
    """A web server, which knows no POST."""

    log_message = Hello.log_message


class Noise(socketserver.BaseRequestHandler):
    """No web server."""

    def handle(self) -> None:
        self.request.sendall(b"220 mail\r\n")


class Silence(socketserver.BaseRequestHandler):
    """It never answers."""

    def handle(self) -> None:
        time.sleep(5)
