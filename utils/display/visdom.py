"""A run's curves in a visdom server; training neither waits for the server nor needs it."""

import logging
import re
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

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
        except (ImportError, ValueError, OSError) as error:
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
                    log.info("visdom: the server is back, nothing is missing in it")
                drawn, lost = len(events), False
                pause = max(PAUSE, PAUSE_SHARE * (time.monotonic() - began))

    def _warn(self, error: OSError) -> None:
        log.warning(
            "visdom: %s; training goes on, the curves come when the server does"
            " (or later: python -m utils.visdom_display %s)",
            error,
            self._folder,
        )


class VisdomServer:
    """An environment of a visdom server, connected to when it is drawn in.

    Raises:
        ImportError: the package visdom is missing. ValueError: this is no address.
    """

    def __init__(self, env: str, server: str, port: int) -> None:
        check_address(server)
        self.env, self.address = environment_name(env), f"{server.rstrip('/')}:{port}"
        self._place = place_and_proxy(server, port)
        self._client = quiet_client(self.env, server, port)
        self._drawn: dict[str, dict] = {}

    def draw(self, windows: dict[str, dict]) -> None:
        """Send those windows that the server does not have, or not like this.

        Raises:
            OSError: there is no server, or something that is none.
        """
        found = self._client._send({"win": OPTIONS}, "win_exists")
        if found not in ("true", "false"):
            raise ConnectionError(f"what answers at {self._place} is not a visdom server")
        if found == "false":
            self._drawn.clear()
        for name, window in windows.items():
            if self._drawn.get(name) != window:
                self._client._send({"win": name, **window}, "events")
                self._drawn[name] = window


def quiet_client(env: str, server: str, port: int) -> object:
    """visdom's client, less its own reports of trouble, and with a limit to its waiting.

    A server on this machine is asked directly, others as http_proxy, https_proxy and NO_PROXY say.

    Raises:
        ImportError: the package is missing.
    """
    import visdom

    place = place_and_proxy(server, port)

    class Client(visdom.Visdom):
        def _handle_post(self, url: str, data: str | None = None) -> str:
            self.session.trust_env = not on_this_machine(server)
            try:
                answer = self.session.post(url, data=data, timeout=REQUEST_TIMEOUT)
            except (OSError, ValueError) as error:  # requests' own, and of host names that can be none
                raise ConnectionError(f"no server answers at {place}") from error
            if not answer.ok:
                raise ConnectionError(
                    f"what answers at {place} is not a visdom server, or needs a login:"
                    f" {answer.status_code} {answer.reason}"
                )
            return answer.text

    logging.getLogger("visdom").setLevel(logging.CRITICAL)
    client = Client(server, port=port, env=env, send=False, use_incoming_socket=False, raise_exceptions=True)
    client.send = True  # from now on: making it must not wait for a server
    return client


def on_this_machine(server: str) -> bool:
    """Whether a server's address is one of the machine's own, which no proxy reaches."""
    return re.fullmatch(r"localhost|127(\.\d+){3}|::1", urlsplit(server).hostname) is not None


def place_and_proxy(server: str, port: int) -> str:
    """Where a server is and, without its password, the proxy in the way, for messages."""
    from requests.utils import get_environ_proxies, select_proxy  # what visdom's client goes by

    place = f"{server.rstrip('/')}:{port}"
    proxy = None if on_this_machine(server) else select_proxy(place, get_environ_proxies(place))
    if proxy is None:
        return place
    host, name = proxy.rpartition("@")[2].rpartition("//")[2], urlsplit(server).hostname
    return f"{place} through the proxy {host} (NO_PROXY={name} in the environment asks it directly)"


def check_address(server: str) -> None:
    """Refuse what cannot be a server's address.

    Raises:
        ValueError: it is not http(s)://host.
    """
    expected = f"--vis_server {server}: expected http://host or https://host; its port goes to --vis_port"
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
