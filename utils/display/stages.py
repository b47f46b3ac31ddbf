"""The stages of an experiment: their names, and the list of their pages, which its entry shows.

The entry is the index of stage 1, `web/index.html` in the folder of the experiment. All other pages link to
it. Each stage updates the list when it starts and ends, so that it is complete whichever ran last.
"""

import html
import logging
import os
import re
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from utils.agents import AGENTS, chosen_agent
from utils.display.sections import Section
from utils.records.events import EVENTS
from utils.system.files import natural, write_file

log = logging.getLogger(__name__)

INDEX = Path("web", "index.html")
STAGE_1, PRETRAINING, JOINT = "stack-hg", "pretrain-s-r-agent", "joint-train-pose-s-r-agent"
COMPARISON = "Comparison"
_PAGES = tuple(f"{below}web/{page}" for below in ("", "*/", "*/*/") for page in ("index", "collection-*"))


def run_title(script: str, opt: Namespace, folder: Path) -> str:
    """The title of the pages of a training run: its stage and its folder; script: its name."""
    titles = {STAGE_1: "Stage 1, pose network", JOINT: "Stage 3, joint training"}
    if script == PRETRAINING:
        titles[script] = f"Stage 2, pretraining of the {chosen_agent(opt).title}"
    return f"{titles[script]}: {folder_name(opt, folder)}"


def folder_name(opt: Namespace, folder: Path) -> str:
    """The name of a run's folder, which is that of its experiment or in it."""
    return opt.exp_id if folder == opt.exp_folder else f"{opt.exp_id}/{folder.name}"


def joint_start(rows: list[dict]) -> int | None:
    """The first epoch of joint training in a history, which begins with stage 1; None if there is none."""
    columns = [f"{agent}_epoch" for agent in AGENTS]
    return next((row["epoch"] for row in rows if any(column in row for column in columns)), None)


def experiment_folder(opt: Namespace) -> Path:
    """The folder of the experiment that a run belongs to.

    It is that of --exp_id; of an arm in the folder of its base, the base's.
    """
    outer = [folder for folder in reversed(opt.exp_folder.parents) if opt.exp_dir in folder.parents]
    return next((folder for folder in outer if (folder / EVENTS).exists()), opt.exp_folder)


def link(page: Path, start: Path) -> str:
    """The relative URL of a page from a page in the folder `start`."""
    return quote(Path(os.path.relpath(page, start)).as_posix())


def other_stages(folder: Path) -> list[tuple[str, str]]:
    """(URL, title) of the pages of all stages in the folder of an experiment but the entry, in order."""
    entry = folder / INDEX
    pages = {page for pattern in _PAGES for page in folder.glob(f"{pattern}.html")} - {entry}
    titles = {link(page, entry.parent): page_title(page) for page in pages}
    return sorted(titles.items(), key=lambda one: (one[1].startswith(COMPARISON), natural(one[1])))


def page_title(page: Path) -> str:
    """The title of a page."""
    with page.open(encoding="utf-8") as file:
        found = re.search(r"<title>(.*?)</title>", file.read(4096), re.DOTALL)
    return html.unescape(found[1]) if found else page.parent.parent.name


def write_stage_page(path: Path, experiment: Path, title: str, sections: Sequence[Section]) -> None:
    """Write a page of an experiment, which links to the entry, and list it there.

    Raises:
        OSError, UserError: a folder cannot be written to.
    """
    try:
        from utils.display.markup import gallery_page
    except ImportError as error:  # dominate, which only pages need
        log.warning("no HTML page: %s", error)
        return
    back = link(experiment / INDEX, path.parent), f"All stages of {experiment.name}"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, gallery_page(title, "", sections, back=back))
    update_list(experiment)
    log.info("page: %s", path)


def update_list(folder: Path) -> None:
    """Update the list of stages on the entry of an experiment, which is written if stage 1 has no pages.

    Raises:
        OSError, UserError: the entry cannot be written.
    """
    from utils.display.markup import entry_page, stage_list  # dominate, which only pages need

    entry, stages = folder / INDEX, other_stages(folder)
    if entry.exists():
        page, new = entry.read_text(encoding="utf-8"), "<body>" + stage_list(stages).render()
        page = re.sub(r"<body>(\s*<nav>.*?</nav>)?", lambda _: new, page, count=1, flags=re.DOTALL)
    else:
        entry.parent.mkdir(parents=True, exist_ok=True)
        page = entry_page(f"Experiment {folder.name}", stages)
    write_file(entry, page)
