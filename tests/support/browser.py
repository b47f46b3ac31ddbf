"""A headless Chromium for the tests: `from browser import browser, console_errors, failed_requests`."""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium import webdriver

FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1500,1400",
)


def skip_or_fail(reason: str) -> None:
    """Skip the test, saying why; where CI=true nothing may be missing, and it fails instead."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    """One Chromium for all tests, with a profile of its own; skips where there is none."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    driver_path = shutil.which("chromedriver")
    if chromium is None or driver_path is None:
        skip_or_fail("no browser: chromium and chromedriver are not on the PATH")
    driver = start(chromium, driver_path, tmp_path_factory.mktemp("chromium"))
    yield driver
    driver.quit()


def start(chromium: str, driver_path: str, profile: Path) -> webdriver.Chrome:
    """A Chromium that keeps its console and its requests for the two helpers below."""
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(driver_path))
    driver.set_page_load_timeout(30)
    return driver


def console_errors(driver: webdriver.Chrome) -> list[str]:
    """What pages wrote to the console as errors since the last call."""
    return [entry["message"] for entry in driver.get_log("browser") if entry["level"] == "SEVERE"]


def failed_requests(driver: webdriver.Chrome) -> list[str]:
    """The URL and why, of each request since the last call that failed or was answered with 400 or more.

    Chromium's own requests, which no page sent, and those that a page gave up itself do not count.
    """
    urls, failed = {}, []
    for entry in driver.get_log("performance"):
        message = json.loads(entry["message"])["message"]
        method, params = message["method"], message["params"]
        if method == "Network.requestWillBeSent":
            urls[params["requestId"]] = params["request"]["url"]
        elif method == "Network.responseReceived" and params["response"]["status"] >= 400:
            failed.append(f"{params['response']['url']}: {params['response']['status']}")
        elif method == "Network.loadingFailed" and params["requestId"] in urls and not params.get("canceled"):
            failed.append(f"{urls[params['requestId']]}: {params['errorText']}")
    return failed
