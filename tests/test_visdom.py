"""A run's curves in the real visdom server, in none, and in a browser."""

import json
import logging
import os
import re
import signal
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from support.browser import browser, console_errors, failed_requests, skip_or_fail  # noqa: F401
from support.visdom_events import JOINT, RUNNING, epochs, start
from support.visdom_server import Hello, Noise, Silence, Unfriendly, VisdomProcess, free_port

from data.demo import write_demo
from utils import visdom_display, visdom_server
from utils.display import visdom
from utils.display.visdom import (
    VisdomDisplay,
    VisdomServer,
    check_address,
    default_environment,
    environment_name,
)
from utils.records.events import read_events
from utils.system.errors import UserError
from utils.visdom_server import missing_files

REPOSITORY = Path(__file__).resolve().parent.parent


def positions(legend: str, epochs: int) -> list[float]:
    """Where a curve's points stand after so many epochs of two batches."""
    return [e + f for e in range(epochs) for f in (0.5, 1)] if "running" in legend else [*range(epochs)]


def wait_for(condition: Callable[[], object], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.1)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.fixture
def server(tmp_path):
    with VisdomProcess(tmp_path / "server") as process:
        yield process


@pytest.fixture
def hurried(monkeypatch):
    """Pauses and patience for a test."""
    for name in ("PAUSE", "RETRY", "REQUEST_TIMEOUT"):
        monkeypatch.setattr(visdom, name, 0.2)
    monkeypatch.setattr(visdom, "PAUSE_SHARE", 1)
    monkeypatch.setattr(visdom, "CLOSE_TIMEOUT", 1.0)


def test_names_of_environments(tmp_path):
    assert environment_name("a/b c+d'e\\é_1.5") == "a_b-c-d-e-é_1.5"
    assert environment_name("x.json") == "x-json"
    assert default_environment("group/run", tmp_path / "group" / "run") == "group/run"
    assert default_environment("run", tmp_path / "run" / "agent") == "run/agent"


@pytest.mark.parametrize(
    "address", ["localhost", "ftp://host", "http://", "http://host:8097", "http://[", ""]
)
def test_a_malformed_address_is_refused_and_training_goes_on(address, tmp_path, caplog):
    with pytest.raises(ValueError, match="expected http://host"):
        check_address(address)
    display = VisdomDisplay(tmp_path / "log.jsonl", "run", address, 8097)
    display.add(start())
    display.close()
    assert len(warnings(caplog)) == 1


@pytest.mark.parametrize(
    ("server", "port"),
    [
        ("http://.example.com", 80),
        (f"http://{'a' * 80}.com", 80),
        ("http://local host", 80),
        ("http://localhost", 70000),
    ],
)
def test_a_host_that_cannot_be_is_one_that_does_not_answer(server, port):
    with pytest.raises(OSError, match="no server answers"):
        VisdomServer("run", server, port).draw({})


@pytest.fixture
def proxy(monkeypatch):
    """The environment names a proxy, with a password; it answers every request with a hello."""
    for name in ("http_proxy", "no_proxy", "HTTP_PROXY", "NO_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Hello) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        place = f"127.0.0.1:{server.server_address[1]}"
        monkeypatch.setenv("http_proxy", f"http://me:secret@{place}")
        yield place
        server.shutdown()


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.1.2.3", "[::1]"])
def test_a_server_on_this_machine_is_asked_directly(host, proxy):
    port = free_port()
    with pytest.raises(OSError) as error:
        VisdomServer("run", f"http://{host}", port).draw({})
    assert str(error.value) == f"no server answers at http://{host}:{port}"


def test_a_proxy_in_the_way_is_named(proxy, monkeypatch):
    with pytest.raises(OSError) as error:
        VisdomServer("run", "http://visdom.invalid", 80).draw({})
    through = f"http://visdom.invalid:80 through the proxy {proxy} (set NO_PROXY=visdom.invalid "
    assert str(error.value).startswith(f"the server at {through}") and "secret" not in str(error.value)
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{free_port()}")
    with pytest.raises(OSError, match=r"no server answers at .* through the proxy"):
        VisdomServer("run", "http://visdom.invalid", 80).draw({})
    monkeypatch.setenv("NO_PROXY", "a.example,visdom.invalid")
    with pytest.raises(OSError) as error:
        VisdomServer("run", "http://visdom.invalid", 80).draw({})
    assert str(error.value) == "no server answers at http://visdom.invalid:80"


def test_only_what_has_changed_is_sent(monkeypatch):
    sent, there = [], ["true"]

    def ask(endpoint, message):
        return there[-1] if endpoint == "win_exists" else sent.append(message["win"])

    server, windows = VisdomServer("run", "http://localhost", 8097), {"a": {"x": 1}, "b": {"x": 2}}
    monkeypatch.setattr(server, "_ask", ask)
    server.draw(windows)
    server.draw(windows | {"b": {"x": 3}})
    assert sent == ["a", "b", "b"]
    there.append("false")  # it was started anew
    server.draw(windows)
    assert sent[3:] == ["a", "b"]
    there.append("<html>")
    with pytest.raises(OSError, match="visdom server"):
        server.draw(windows)


def test_what_a_server_missed_is_drawn_when_it_is_back(monkeypatch, tmp_path, caplog, hurried):
    caplog.set_level("INFO")
    drawn, away = [], [True]

    def draw(windows):
        if away:
            raise ConnectionError("nobody answers")
        drawn.append(windows)

    monkeypatch.setattr(visdom, "VisdomServer", lambda *_: SimpleNamespace(draw=draw))
    first, *rest = [event for event in epochs(0, 3) if event["kind"] == "epoch"]
    path = tmp_path / "log.jsonl"
    path.write_text("".join(json.dumps(event) + "\n" for event in (start(), first)))
    display = VisdomDisplay(path, "run", "http://localhost", 8097)
    wait_for(lambda: warnings(caplog))
    display.add(rest[0])
    time.sleep(0.5)
    assert len(warnings(caplog)) == 1 and str(tmp_path) in warnings(caplog)[0]
    away.clear()
    wait_for(lambda: drawn)
    time.sleep(0.5)
    assert len(drawn) == 1  # nothing is new
    display.add(rest[1])
    display.close()
    assert not display._thread.is_alive()
    assert [windows["loss"]["data"][0]["x"] for windows in drawn] == [[0, 1], [0, 1, 2]]
    assert caplog.text.count("the server is back") == 1


def test_a_server_that_hangs_keeps_no_process_from_ending(monkeypatch, tmp_path, hurried):
    hang = threading.Event()
    monkeypatch.setattr(visdom, "VisdomServer", lambda *_: SimpleNamespace(draw=lambda _: hang.wait(60)))
    display = VisdomDisplay(tmp_path / "log.jsonl", "run", "http://localhost", 8097)
    display.add(start())
    display.close()
    assert display._thread.is_alive() and display._thread.daemon
    hang.set()


def test_the_longer_a_drawing_takes_the_later_is_the_next(monkeypatch, tmp_path, hurried):
    monkeypatch.setattr(visdom, "PAUSE_SHARE", 8)
    began = []

    def draw(windows):
        began.append(time.monotonic())
        time.sleep(0.1)

    monkeypatch.setattr(visdom, "VisdomServer", lambda *_: SimpleNamespace(draw=draw))
    display = VisdomDisplay(tmp_path / "log.jsonl", "run", "http://localhost", 8097)
    for count in (1, 2):
        display.add(start())
        wait_for(lambda count=count: len(began) == count, 10)
    assert began[1] - began[0] >= 8 * 0.1  # not the 0.2 s of a short one
    display.close()


@pytest.mark.slow
@pytest.mark.parametrize("handler", [None, Hello, Unfriendly, Noise, Silence])
def test_no_server_and_others_cost_one_warning(handler, tmp_path, caplog, capfd, hurried):
    caplog.set_level(logging.INFO)
    port = free_port()
    if handler:
        other = socketserver.ThreadingTCPServer(("127.0.0.1", port), handler)
        other.daemon_threads, other.block_on_close = True, False
        threading.Thread(target=other.serve_forever, daemon=True).start()
    display = VisdomDisplay(tmp_path / "log.jsonl", "run", "http://127.0.0.1", port)
    for event in [start(), *epochs(0, 5)]:
        display.add(event)
        time.sleep(0.06)
    began = time.monotonic()
    display.close()
    assert time.monotonic() - began < 3
    (warning,) = warnings(caplog)
    assert f":{port}" in warning and "\n" not in warning and str(tmp_path) in warning
    assert len(caplog.records) == 1 and capfd.readouterr() == ("", "")
    if handler:
        other.shutdown()
        other.server_close()


@pytest.mark.slow
def test_the_server_has_as_many_points_as_epochs(server, tmp_path):
    display = VisdomDisplay(tmp_path / "log.jsonl", "a run/of é", "http://localhost", server.port)
    for event in [start(), *epochs(0, 5)]:
        display.add(event)
    display.close()
    assert "a-run_of-é" in server.environments()
    curves = server.curves("a-run_of-é")
    assert {window: list(traces) for window, traces in curves.items()} == JOINT
    for traces in curves.values():
        for legend, points in traces.items():
            assert [x for x, _ in points] == positions(legend, 5)
    assert curves["PCK"]["validation"] == [
        (epoch, pytest.approx(100 * 4 / (epoch + 2))) for epoch in range(5)
    ]
    assert set(server.windows("a-run_of-é")) == {"options", *JOINT}


@pytest.mark.slow
def test_points_arrive_during_the_epoch_and_a_resumed_run_goes_on(server, tmp_path, hurried):
    log = tmp_path / "log.jsonl"
    lines = [json.dumps(event) for event in [start(), *epochs(0, 3)]]
    log.write_text("\n".join([*lines, '{"kind": "ba']))
    assert len(read_events(log)) == len(lines)
    display = VisdomDisplay(log, "run", "http://localhost", server.port)
    for event in [start(2), *epochs(2, 4)[:1]]:
        display.add(event)
    wait_for(lambda: "loss" in server.windows("run"))
    curves = server.curves("run")["loss"]
    assert [x for x, _ in curves[RUNNING]] == [0.5, 1, 1.5, 2, 2.5]
    assert [x for x, _ in curves["validation"]] == [0, 1, 2]  # until epoch 2 is finished anew
    for event in epochs(2, 4)[1:]:
        display.add(event)
    display.close()
    assert [x for x, _ in server.curves("run")["loss"]["validation"]] == [0, 1, 2, 3]


@pytest.mark.slow
def test_a_server_that_comes_back_gets_everything(server, tmp_path, caplog, hurried):
    caplog.set_level(logging.INFO, "utils.display.visdom")
    display = VisdomDisplay(tmp_path / "log.jsonl", "run", "http://localhost", server.port)
    for event in [start(), *epochs(0, 2)]:
        display.add(event)
    wait_for(lambda: "PCK" in server.windows("run"))
    server.kill()
    for event in epochs(2, 4):
        display.add(event)
    wait_for(lambda: warnings(caplog))
    time.sleep(1)
    server.start()
    wait_for(lambda: {"options", *JOINT} == set(server.windows("run")))
    server.kill()  # and unseen by the display
    server.start()
    for event in epochs(4, 5):
        display.add(event)
    display.close()
    curves = server.curves("run")
    assert {window: list(traces) for window, traces in curves.items()} == JOINT
    assert all([x for x, _ in points] == list(range(5)) for points in curves["PCK"].values())
    assert len(warnings(caplog)) == 1 and "is back" in caplog.messages[-1] and len(caplog.messages) == 2


def run(*arguments: str) -> subprocess.Popen:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, *arguments],
        cwd=REPOSITORY,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
def test_a_run_is_replayed_from_its_folder(server, tmp_path, monkeypatch):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "log.jsonl").write_text("\n".join(map(json.dumps, [start(), *epochs(0, 3)])))
    command = ("-m", "utils.visdom_display", str(folder), "--vis_port", str(server.port))
    replay = run(*command)
    out, err = replay.communicate(timeout=60)
    assert replay.returncode == 0, err
    assert len((out + err).splitlines()) == 1
    assert set(server.windows("run")) == {"options", *JOINT}

    monkeypatch.setattr(sys, "argv", [*command[1:], "--vis_env", "again"])
    visdom_display.replay()
    assert set(server.windows("again")) == {"options", *JOINT}

    server.kill()
    replay = run(*command)
    out, err = replay.communicate(timeout=60)
    assert (replay.returncode, out, len(err.splitlines())) == (2, "", 1)


@pytest.mark.parametrize(
    ("folder", "log", "server_flag", "message"),
    [
        ("nowhere", "", "http://localhost", "does not exist"),
        (".", "no log\n", "http://localhost", "has no training run"),
        (".", json.dumps(start()), "http://127.0.0.1", "no server answers"),
        (".", json.dumps(start()), "localhost", "expected http://host"),
    ],
)
def test_a_replay_that_cannot_be_is_one_line(folder, log, server_flag, message, tmp_path, monkeypatch):
    (tmp_path / "log.jsonl").write_text(log)
    arguments = [str(tmp_path / folder), "--vis_server", server_flag, "--vis_port", str(free_port())]
    monkeypatch.setattr(sys, "argv", ["visdom_display.py", *arguments])
    with pytest.raises(UserError, match=message) as error:
        visdom_display.replay()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("flags", "env", "port"),
    [
        ((), "group/run", 8097),
        (("--vis_env", "other"), "other", 8097),
        (("--vis_port", "1"), "group/run", 1),
    ],
)
def test_a_replay_goes_where_the_run_went_unless_told(flags, env, port, tmp_path, monkeypatch):
    folder, asked = tmp_path / "run", []
    folder.mkdir()
    (folder / "log.jsonl").write_text(json.dumps(start(exp_id="group/run")))

    def server(*place):
        asked.append(place)
        return SimpleNamespace(draw=lambda _: None, env="", address="")

    monkeypatch.setattr(visdom_display, "VisdomServer", server)
    monkeypatch.setattr(sys, "argv", ["visdom_display.py", str(folder), *flags])
    visdom_display.replay()
    assert asked == [(env, "http://localhost", port)]


def test_scripts_are_installed_in_a_folder_of_their_own(tmp_path, monkeypatch):
    """By itself npm takes a folder above that has a package.json."""

    def npm(command, **options):
        place = Path(command[command.index("--prefix") + 1])
        for source in visdom_server.FILES.values():
            file = place / "node_modules" / re.sub("@[^/]+", "", source)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()

    monkeypatch.setattr(visdom_server, "static_folder", lambda: tmp_path)
    monkeypatch.setattr(subprocess, "run", npm)
    assert missing_files()
    visdom_server.install()
    assert not missing_files()


@pytest.mark.slow
def test_a_training_run_outlives_its_server(server, tmp_path):
    write_demo(tmp_path / "data" / "demo", train=4, valid=2)
    size = ["--in_res", "64", "--chan", "16", "--num_stacks", "1", "--bs", "2", "--nEpochs", "12"]
    size += ["--nThreads", "0", "--display_freq", "1", "--gpu_id", "-1", "--use_html", "false"]
    size += ["--lr_steps", "6:0.2"]  # a run that ends before the first step warns of it
    folders = ["--exp_dir", str(tmp_path), "--exp_id", "run", "--data_dir", str(tmp_path / "data")]
    flags = ["--dataset", "demo", "--is_train", "true", "--vis_port", str(server.port)]
    training, log = run("stack-hg.py", *folders, *flags, *size), tmp_path / "run" / "log.jsonl"
    wait_for(lambda: "options" in server.windows("run"))
    server.kill()
    done = len(read_events(log))
    wait_for(lambda: len(read_events(log)) > done)
    training.send_signal(signal.SIGSTOP)  # or it might end before the server is there again
    server.start()
    training.send_signal(signal.SIGCONT)
    out, err = training.communicate(timeout=120)
    assert training.returncode == 0, out + err
    curves = server.curves("run")
    assert set(curves) == {"loss", "PCK", "learning rates"}
    for traces in curves.values():
        for legend, points in traces.items():
            assert [x for x, _ in points] == positions(legend, 12)
    lines = (tmp_path / "run" / "log.txt").read_text().splitlines()
    warnings = [line for line in lines if "WARNING" in line and "are scored" not in line]  # of so few people
    assert len(warnings) <= 1 and all("visdom: no server answers" in line for line in warnings)


DRAWN = """return [...document.querySelectorAll('.js-plotly-plot')].map(plot => [
    plot.layout.title.text,
    [...plot.querySelectorAll('.legendtext')].map(text => text.textContent),
    plot.querySelectorAll('.scatterlayer .trace').length,
    plot.querySelectorAll('.scatterlayer .point').length])"""


@pytest.mark.slow
def test_a_server_starts_without_a_network(tmp_path):
    """As `make visdom` starts it, once the scripts are there; visdom's own start asks for them again."""
    if missing_files():
        skip_or_fail("visdom's page lacks scripts: make visdom installs them")
    with VisdomProcess(tmp_path / "server", start=("-m", "utils.visdom_server")) as server:
        assert server.environments() == ["main"]


@pytest.mark.slow
def test_the_page_shows_the_curves(server, browser, tmp_path):  # noqa: F811
    if missing_files():
        skip_or_fail("visdom's page lacks scripts: make visdom installs them")
    display = VisdomDisplay(tmp_path / "log.jsonl", "page/1", "http://localhost", server.port)
    for event in [start(exp_id="<b>page</b>/1"), *epochs(0, 5)]:
        display.add(event)
    display.close()
    console_errors(browser), failed_requests(browser)
    browser.get(f"{server.url}/env/page_1")
    wait_for(lambda: len(browser.execute_script(DRAWN)) == len(JOINT))
    time.sleep(1)
    drawn = {title: facts for title, *facts in browser.execute_script(DRAWN)}
    assert [legend for legend, *_ in drawn.values()] == list(JOINT.values())
    assert drawn["Loss"] == [JOINT["loss"], 3, 2 * 5]  # the running means are a line without points
    assert drawn["PCKh@0.5, %"] == [JOINT["PCK"], 2, 2 * 5]
    assert drawn["Agent: mean distribution over rotation (°)"][1:] == [7, 7 * 5]
    assert "<b>page</b>/1" in browser.find_element("tag name", "table").text
    assert console_errors(browser) == [] and failed_requests(browser) == []
