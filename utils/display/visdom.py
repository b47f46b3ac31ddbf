"""A run's curves in a visdom server; training neither waits for the server nor needs it."""

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

PAUSE = 1.0  # s, at least, from one drawing to the next
PAUSE_SHARE = 50  # times what the drawing took: a long history is drawn less often
RETRY = 3.0  # s between attempts while there is no server
REQUEST_TIMEOUT = 5.0  # s
CLOSE_TIMEOUT = 5.0  # s


class VisdomDisplay:
    """Draws a run's events while it goes on.

    A thread of its own sends each window as a whole, so that nothing is missing or double after a server was
    away. Whatever happens to the server, the caller sees no more of it than a logged line.

    Args:
        events: the run's event log, which is read for what earlier starts of the run left.
        env: visdom environment; `environment_name` says how it is spelt there.
        server, port: such as http://localhost and 8097.
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
        """Draw an event, soon; returns at once."""
        self._events.append(event)

    def close(self) -> None:
        """Wait, but for no more than a few seconds, until everything is drawn."""
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
                    self._warn(error)
                lost, pause = True, RETRY
            else:
                if lost:
                    log.info("visdom: the server is back, and all curves are complete")
                drawn, lost = len(events), False
                pause = max(PAUSE, PAUSE_SHARE * (time.monotonic() - began))

    def _warn(self, error: OSError) -> None:
        log.warning(
            "visdom: %s: training continues, and the curves are sent when the server is available"
            " (or later with python -m utils.visdom_display %s)",
            error,
            self._folder,
        )


class VisdomServer:
    """An environment of a visdom server, which is told its windows over HTTP.

    A server on this machine is asked directly, others as http_proxy, https_proxy and no_proxy say.

    Raises:
        ValueError: this is no address.
    """

    def __init__(self, env: str, server: str, port: int) -> None:
        check_address(server)
        self.env, self.address = environment_name(env), f"{server.rstrip('/')}:{port}"
        proxies = proxies_to(server)
        self._place = self.address + through(proxies, urlsplit(server))
        self._opener = build_opener(ProxyHandler(proxies))
        self._drawn: dict[str, dict] = {}

    def draw(self, windows: dict[str, dict]) -> None:
        """Send those windows that the server does not have, or not like this.

        Raises:
            OSError: there is no server, or something that is none.
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
        except (OSError, ValueError, HTTPException) as error:  # the latter two of host names that can be none
            raise ConnectionError(f"no server answers at {self._place}") from error


def proxies_to(server: str) -> dict[str, str]:
    """The proxies in the way to a server, by scheme; none to this machine and to what no_proxy names."""
    host = urlsplit(server).hostname
    direct = re.fullmatch(r"localhost|127(\.\d+){3}|::1", host) or proxy_bypass(host)
    return {} if direct else getproxies()


def through(proxies: dict[str, str], server: SplitResult) -> str:
    """The proxy in the way to a server, without its password, for messages; nothing if there is none."""
    if server.scheme not in proxies:
        return ""
    host = proxies[server.scheme].rpartition("@")[2].rpartition("//")[2]
    return f" through the proxy {host} (set NO_PROXY={server.hostname} in the environment to bypass it)"


def check_address(server: str) -> None:
    """Refuse what cannot be a server's address.

    Raises:
        ValueError: it is not http(s)://host.
    """
    expected = f"--vis_server {server}: expected http://host or https://host; give the port with --vis_port"
    try:
        parts = urlsplit(server)
        right = parts.scheme in ("http", "https") and parts.hostname and parts.port is None
    except ValueError as error:
        raise ValueError(expected) from error
    if not right or parts.path.strip("/") or parts.query or parts.fragment:
        raise ValueError(expected)


def default_environment(exp_id: str, folder: Path) -> str:
    """The environment of a run: its experiment's id, and its folder's name if that is one inside."""
    return exp_id if folder.name == Path(exp_id).name else f"{exp_id}/{folder.name}"


def environment_name(name: str) -> str:
    """The name as visdom spells it, whose page, addresses and files would mangle some characters.

    Letters and digits of all alphabets, ".", "-" and "_" stay, "/" turns into "_" and all else into "-".
    visdom's menu lists a_b below a.
    """
    return re.sub(r"[^\w.-]|\.(?=json)", "-", name.replace("/", "_"))
