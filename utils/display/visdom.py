"""A run's curves on a visdom server; training neither waits for the server nor needs it."""

import json
import logging
import re
import threading
import time
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import SplitResult, urlsplit
from urllib.request import ProxyHandler, Request, build_opener, getproxies, proxy_bypass

from utils.display.visdom_windows import OPTIONS, draw_windows
from utils.records.events import read_events

log = logging.getLogger(__name__)

PAUSE = 1.0  # s between two updates, at least
PAUSE_SHARE = 50  # times the duration of the last update: a long history is sent less often
RETRY = 3.0  # s between attempts while the server is not available
REQUEST_TIMEOUT = 5.0  # s
CLOSE_TIMEOUT = 5.0  # s


class VisdomDisplay:
    """Plots a run's events on a visdom server during the run.

    A separate thread sends complete windows, so nothing is missing or duplicated after the server was
    unavailable. Server errors are logged as one warning and never reach the caller.

    Args:
        events: the event log of the run; events of its earlier starts are read from it.
        env: visdom environment; see `environment_name` for its spelling.
        server, port: for example http://localhost and 8097.
    """

    def __init__(self, events: Path, env: str, server: str, port: int) -> None:
        self._folder = events.parent
        self._events: list[dict] = []
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._work, name="visdom", daemon=True)
        try:
            self._events += read_events(events) if events.exists() else []
            self._server = VisdomServer(env, server, port)
        except (ValueError, OSError) as error:
            log.warning("no curves in visdom: %s", error)
        else:
            self._thread.start()

    def add(self, event: dict) -> None:
        """Queue an event for plotting; returns at once."""
        self._events.append(event)

    def close(self) -> None:
        """Wait until all events are plotted, but at most `CLOSE_TIMEOUT`."""
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join(CLOSE_TIMEOUT)

    def _work(self) -> None:
        drawn, lost, pause, closing = 0, False, PAUSE, False
        while not closing:
            closing = self._closing.wait(pause)
            events, began = list(self._events), time.monotonic()
            if len(events) == drawn:
                continue
            try:
                self._server.draw(draw_windows(events))
            except OSError as error:
                if not lost:
                    log.warning(
                        "visdom: %s: training continues, and the curves are sent when the server is available"
                        " (or later with python -m utils.visdom_display %s)",
                        error,
                        self._folder,
                    )
                lost, pause = True, RETRY
            else:
                if lost:
                    log.info("visdom: the server is back, and all curves are complete")
                drawn, lost = len(events), False
                pause = max(PAUSE, PAUSE_SHARE * (time.monotonic() - began))


class VisdomServer:
    """An environment of a visdom server, whose windows are sent over HTTP.

    A server on this machine is reached directly, any other one through the proxy that http_proxy, https_proxy
    and no_proxy define.

    Raises:
        ValueError: `server` is not an address.
    """

    def __init__(self, env: str, server: str, port: int) -> None:
        check_address(server)
        self.env, self.address = environment_name(env), f"{server.rstrip('/')}:{port}"
        proxies = proxies_to(server)
        self._place = self.address + through_proxy(proxies, urlsplit(server))
        self._opener = build_opener(ProxyHandler(proxies))
        self._drawn: dict[str, dict] = {}

    def draw(self, windows: dict[str, dict]) -> None:
        """Send the windows that are new or have changed.

        Raises:
            OSError: no server answers, or it is not a visdom server.
        """
        found = self._ask("win_exists", {"win": OPTIONS})
        if found not in ("true", "false"):
            raise ConnectionError(f"the server at {self._place} is not a visdom server")
        if found == "false":
            self._drawn.clear()
        for name, window in windows.items():
            if self._drawn.get(name) != window:
                self._ask("events", {"win": name, **window})
                self._drawn[name] = window

    def _ask(self, endpoint: str, message: dict) -> str:
        body = json.dumps({"eid": self.env, **message}).encode()
        try:
            request = Request(f"{self.address}/{endpoint}", body, {"Content-Type": "application/json"})
            with self._opener.open(request, timeout=REQUEST_TIMEOUT) as answer:
                return answer.read().decode(errors="replace")
        except HTTPError as error:
            raise ConnectionError(
                f"the server at {self._place} is not a visdom server, or needs a login:"
                f" {error.code} {error.reason}"
            ) from error
        except (OSError, ValueError, HTTPException) as error:  # the latter two: invalid host names
            raise ConnectionError(f"no server answers at {self._place}") from error


def proxies_to(server: str) -> dict[str, str]:
    """The proxies to a server, by scheme; none for this machine and for hosts in no_proxy."""
    host = urlsplit(server).hostname
    direct = re.fullmatch(r"localhost|127(\.\d+){3}|::1", host) or proxy_bypass(host)
    return {} if direct else getproxies()


def through_proxy(proxies: dict[str, str], server: SplitResult) -> str:
    """Text for messages: the proxy to a server, without its password; empty if there is none."""
    if server.scheme not in proxies:
        return ""
    host = proxies[server.scheme].rpartition("@")[2].rpartition("//")[2]
    return f" through the proxy {host} (set NO_PROXY={server.hostname} in the environment to bypass it)"


def check_address(server: str) -> None:
    """Raise a `ValueError` unless the address of a server is http(s)://host."""
    expected = f"--vis_server {server}: expected http://host or https://host; give the port with --vis_port"
    try:
        parts = urlsplit(server)
        right = parts.scheme in ("http", "https") and parts.hostname and parts.port is None
    except ValueError as error:
        raise ValueError(expected) from error
    if not right or parts.path.strip("/") or parts.query or parts.fragment:
        raise ValueError(expected)


def default_environment(exp_id: str, folder: Path) -> str:
    """The environment of a run: the experiment's id, with the folder's name appended if it is a subfolder."""
    return exp_id if folder.name == Path(exp_id).name else f"{exp_id}/{folder.name}"


def environment_name(name: str) -> str:
    """A name with the characters replaced that visdom's pages, addresses or files cannot represent.

    Letters and digits of all alphabets, ".", "-" and "_" are unchanged; "/" becomes "_" (visdom's menu lists
    a_b below a), any other character "-".
    """
    return re.sub(r"[^\w.-]|\.(?=json)", "-", name.replace("/", "_"))
