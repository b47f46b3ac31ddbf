"""Reading HTML pages, and making small ones."""

import math
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlparse

from data.kinds import KINDS
from utils.display.pages import Pages
from utils.display.sections import Bars, Grid, Person, Picture, Section

NASTY = "a <b>&\"x\" 'y' ü"
VOID = {"meta", "img", "br", "link", "hr", "input"}


class Page(HTMLParser):
    """A page's tags, checked to be balanced as they come, its attributes and its text."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.open, self.tags, self.text = [], [], ""
        self.feed(source)
        self.close()
        assert self.open == []
        assert source.startswith("<!DOCTYPE html>") and source.rstrip().endswith("</html>")

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attributes]
        assert len(names) == len(set(names)), f"{tag} repeats an attribute"
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict]:
        return [attributes for name, attributes in self.tags if name == tag]


def read(path: Path) -> Page:
    page = Page(path.read_text(encoding="utf-8"))
    for image in page.all("img"):
        assert image["src"].startswith("data:image/") and image["alt"]
    for link in page.all("a"):
        url = urlparse(link["href"])
        assert not url.scheme and not url.netloc and not url.path.startswith("/")
        assert (path.parent / unquote(url.path)).exists(), link
    assert not page.all("script") and not page.all("link")
    return page


def refreshes(page: Page) -> bool:
    return any(meta.get("http-equiv") == "refresh" for meta in page.all("meta"))


def row(epoch: int, **fields: object) -> dict:
    return {"epoch": epoch, "train_loss": 1 / (epoch + 1), "valid_pck": 0.5 + 0.1 * math.sin(epoch)} | fields


def some_pages(folder: Path, epoch: int = 0, rows: list[dict] | None = None) -> Pages:
    options = {"lr": (NASTY, True), "bs": ("24", False)}
    return Pages(folder, folder, NASTY, "stack-hg", "PCKh@0.5", options, epoch, 60, rows or [])


def section(text: str = NASTY) -> Section:
    bars = Bars(text, [f"{mean:g}" for mean in KINDS["scale"].means], [0.1, 0.4, 0, 0, 0.5, 0, 0], 4)
    grid = Grid(["a", "b"], [text], [[0.5], [math.nan]])
    return Section(text, text, [Person(text, [Picture(b"no picture", text)], [bars])], grid)
