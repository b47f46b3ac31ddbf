"""HTML of the result pages, as text. A page is one file: its style and its pictures are inside it."""

import base64
from collections.abc import Sequence

from dominate import document, tags
from dominate.util import text

from utils.display.drawing import COLORS
from utils.display.sections import Bars, Curve, Grid, Person, Section

Link = tuple[str, str]  # URL and text
REFRESH = 30  # seconds between reloads of the index while its run is in progress

PREDICTIONS = (
    "Predicted: thick bones, discs. True: thin bones, rings. Heatmaps have these colors, and are white where "
    "sides overlap."
)
_STYLE = """
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 75rem; padding: 1rem; color: #1c2430; background: #f6f7f9;
  font: 1rem/1.45 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; margin: .3rem 0; }
h2 { font-size: 1.2rem; margin: 2rem 0 .5rem; }
a { color: #0b57b0; }
p { margin: .4rem 0; }
img { display: block; max-width: 100%; height: auto; }
.note, figcaption { color: #4a5565; font-size: .9rem; }
.cards, .curves, .people { display: grid; gap: .75rem; }
.cards { grid-template-columns: repeat(auto-fit, minmax(9rem, 1fr)); margin: 1rem 0; padding: 0; }
.cards div, figure, .scroll { background: #fff; border: 1px solid #d5dae1; border-radius: .5rem; }
.cards div { padding: .6rem .8rem; }
.cards dt { color: #4a5565; font-size: .85rem; }
.cards dd { margin: 0; font-size: 1.25rem; font-weight: 600; }
.curves { grid-template-columns: repeat(auto-fill, minmax(min(100%, 22rem), 1fr)); }
.lines { margin: .4rem 0; padding-left: 1.2rem; }
.people { grid-template-columns: repeat(auto-fill, minmax(min(100%, 30rem), 1fr)); }
.single { grid-template-columns: repeat(auto-fill, minmax(min(100%, 20rem), 1fr)); }
figure { margin: 0; padding: .7rem; }
.curves figcaption, .person { color: #1c2430; font-weight: 600; font-size: .95rem; margin-bottom: .4rem; }
.curves figcaption .note { font-weight: 400; font-size: .85rem; margin: .1rem 0 0; }
.curves figure { display: flex; flex-direction: column; justify-content: space-between; }
.pictures { display: grid; grid-auto-flow: column; grid-auto-columns: minmax(0, 1fr); gap: .5rem; }
.pictures figure { border: 0; padding: 0; }
.pictures img { width: 100%; border-radius: .25rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; }
th, td { padding: .35rem .7rem; text-align: right; border-bottom: 1px solid #e6e9ee;
  font-variant-numeric: tabular-nums; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
.options td { white-space: normal; text-align: left; }
.bars { display: grid; grid-template-columns: repeat(auto-fit, minmax(9rem, 1fr)); gap: 1rem;
  align-items: end; margin-top: .6rem; }
.bars ol { display: flex; align-items: flex-end; gap: 2px; height: 5.5rem; margin: 0; padding: 0;
  list-style: none; }
.bars li { flex: 1; min-width: 0; height: 100%; display: flex; flex-direction: column;
  text-align: center; font-size: .62rem; overflow-wrap: normal; }
.pair { display: flex; flex: 1; min-height: 0; }
.pair div { flex: 1; min-width: 0; display: flex; flex-direction: column; justify-content: flex-end; }
.bars b { display: block; background: #8fa3bd; flex: none; }
.bars .drawn .predicted b { background: #b3261e; }
.bars .target b { background: #e0a458; }
.bars .target { color: #8a5a12; }
.bars .drawn { font-weight: 700; }
.epochs { display: flex; flex-wrap: wrap; gap: .5rem; padding: 0; list-style: none; }
.epochs a { display: block; padding: .45rem .8rem; background: #fff; border: 1px solid #d5dae1;
  border-radius: .5rem; }
.key { display: inline-block; width: .9em; height: .9em; border-radius: 50%; vertical-align: -.1em; }
.badge { padding: .1rem .6rem; border-radius: 1rem; color: #fff; background: #4a5565; font-size: .9rem; }
.running { background: #1b6e3c; }
details summary { cursor: pointer; padding: .5rem 0; }
"""


def index_page(
    title: str,
    script: str,
    state: str,
    running: bool,
    cards: dict[str, Link],
    joints: Section | None,
    curves: list[Curve],
    galleries: list[Link],
    galleries_note: str,
    options: dict[str, tuple[str, bool]],
    data: str | None,
    files: list[str],
    entry: Link | None,
    stages: list[Link],
) -> str:
    """The index of a run; it reloads itself while the run is in progress.

    cards: label -> (URL or "", value). joints: the table of the last epoch. options: name -> (value, whether
    it differs from its default). data: URL of the page of the data. files: URLs. entry: of
    the experiment; None: this page is the entry, and lists `stages`.
    """
    page = _page(title)
    if running:
        page.head.add(tags.meta(http_equiv="refresh", content=str(REFRESH)))
    with page.body:
        _back(entry) if entry else stage_list(stages)
        tags.h1(title)
        with tags.p():
            tags.span(script, " ")
            tags.span(state, cls="badge running" if running else "badge")
            if data:
                tags.a("the data", href=data)
        with tags.dl(cls="cards"):
            for label, (url, value) in cards.items():
                tags.div(tags.dt(label), tags.dd(tags.a(value, href=url) if url else value))
        if joints:
            tags.h2("Joint by joint, last epoch (%)")
            tags.p(joints.note, cls="note")
            _table(joints.table)
        if curves:
            tags.h2("Curves")
            with tags.div(cls="curves"):
                for curve in curves:
                    caption = tags.figcaption(curve.title, tags.p(curve.note, cls="note"))
                    tags.figure(caption, _image(curve.svg, "image/svg+xml", f"Curves: {curve.title}"))
        if galleries:
            tags.h2("Galleries")
            tags.p(galleries_note, cls="note")
            _links(galleries)
        tags.h2("Options")
        _options("Set for this run", options, differs=True)
        _options("Left at their defaults", options, differs=False)
        with tags.p("More: ", cls="note"):
            for file in files:
                tags.a(file.rpartition("/")[2].removesuffix(".html"), href=file)
                text(" ")
    return page.render()


def stage_list(stages: Sequence[Link]) -> tags.nav:
    """The list of an experiment's other stages on its entry."""
    with tags.nav() as nav:
        if stages:
            tags.p("Other stages of this experiment:", cls="note")
            _links(stages)
    return nav


def entry_page(title: str, stages: Sequence[Link]) -> str:
    """The entry of an experiment whose stage 1 has no pages."""
    page = _page(title)
    with page.body:
        stage_list(stages)
        tags.h1(title)
        tags.p("Stage 1 has written no pages here.")
    return page.render()


def gallery_page(
    title: str,
    heading: str,
    sections: Sequence[Section],
    back: Link | None = None,
    key: str = PREDICTIONS,
) -> str:
    """A page of pictures and tables: an epoch's gallery, an evaluation, a collection, a comparison, the data.

    title: of the page that it belongs to. back: the page to return to. key: what the drawings mean, in
    addition to their colors.
    """
    page = _page(f"{title} – {heading}" if heading else title)
    with page.body:
        if back:
            _back(back)
        tags.h1(heading or title)
        if any(section.people for section in sections):
            with tags.p(cls="note"):
                for side, color in COLORS.items():
                    tags.span(cls="key", style=f"background: rgb{color}")
                    text(f" {side} \u2003")
                text(f"Left and right are the person's. {key}")
        for section in sections:
            tags.h2(section.title)
            tags.p(section.note, cls="note")
            if section.lines:
                tags.ul((tags.li(line) for line in section.lines), cls="lines")
            if section.table:
                _table(section.table)
            if section.bars:
                with tags.div(cls="bars"):
                    for bars in section.bars:
                        _bars(bars)
            if section.plot:
                tags.figure(_image(section.plot, "image/png", section.title))
            if section.grid:
                _grid(section.grid)
            single = all(len(person.pictures) == 1 for person in section.people)
            with tags.div(cls="people single" if single else "people"):
                for person in section.people:
                    _person(person)
    return page.render()


def evaluations_page(title: str, files: Sequence[str]) -> str:
    """Links to the pages of evaluations, `evaluation-<checkpoint>.html`."""
    page = _page(f"{title} – Evaluations")
    with page.body:
        _back(("index.html", title))
        tags.h1("Evaluations")
        if files:
            _links([(file, file.removeprefix("evaluation-").removesuffix(".html")) for file in files])
        else:
            tags.p("None yet: a stage without --is_train true evaluates a checkpoint and adds its page here.")
    return page.render()


def _links(links: Sequence[Link]) -> None:
    with tags.ul(cls="epochs"):
        for url, label in links:
            tags.li(tags.a(label, href=url))


def _back(link: Link) -> None:
    url, label = link
    tags.p(tags.a(f"← {label}", href=url))


def _page(title: str) -> document:
    page = document(title=title)
    page["lang"] = "en"
    with page.head:
        tags.meta(charset="utf-8")
        tags.meta(name="viewport", content="width=device-width, initial-scale=1")
        tags.style(text(_STYLE, escape=False))
    return page


def _image(data: bytes, kind: str, alt: str) -> tags.img:
    return tags.img(src=f"data:{kind};base64,{base64.b64encode(data).decode()}", alt=alt)


def _person(person: Person) -> None:
    with tags.figure():
        tags.figcaption(person.title, cls="person")
        with tags.div(cls="pictures"):
            for picture in person.pictures:
                image = _image(picture.jpeg, "image/jpeg", f"{person.title}: {picture.caption}")
                tags.figure(image, tags.figcaption(picture.caption))
        if person.bars:
            with tags.div(cls="bars"):
                for bars in person.bars:
                    _bars(bars)


def _bars(bars: Bars) -> None:
    series = {"predicted": bars.shares} | ({"target": bars.targets} if bars.targets else {})
    tallest = max(1e-9, *map(max, series.values()))
    with tags.div():
        with tags.p(bars.title, cls="note"):
            if bars.targets:
                text(": predicted, ")
                tags.span("target", cls="target")
        with tags.ol():
            for number, label in enumerate(bars.labels):
                with tags.li(cls="drawn" if number == bars.drawn else "other"):
                    with tags.div(cls="pair"):
                        for name, shares in series.items():
                            with tags.div(cls=name):
                                tags.span(f"{100 * shares[number]:.0f}")
                                tags.b(style=f"height: {55 * shares[number] / tallest:.1f}%")
                    tags.span(label)


def _grid(grid: Grid) -> None:
    with tags.div(cls="scroll"), tags.table():
        tags.tr(tags.th(name) for name in ("", *grid.columns))
        for name, shares in zip(grid.rows, grid.shares, strict=True):
            with tags.tr():
                tags.th(name)
                for share in shares:
                    known = share == share
                    shade = f"background: rgba(0, 114, 178, {0.6 * share:.2f})" if known else ""
                    tags.td(f"{100 * share:.1f}" if known else "–", style=shade)


def _table(rows: Sequence[Sequence[str]]) -> None:
    header, *body = rows
    with tags.div(cls="scroll"), tags.table():
        tags.thead(tags.tr(tags.th(cell) for cell in header))
        tags.tbody(tags.tr(tags.td(cell) for cell in row) for row in body)


def _options(title: str, options: dict[str, tuple[str, bool]], differs: bool) -> None:
    shown = {name: value for name, (value, other) in sorted(options.items()) if other == differs}
    if shown:
        with tags.details(open=differs):
            tags.summary(f"{title} ({len(shown)})")
            with tags.div(cls="scroll options"), tags.table(), tags.tbody():
                for name, value in shown.items():
                    tags.tr(tags.td(tags.b(name) if differs else name), tags.td(value))
