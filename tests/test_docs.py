"""README and docs: links lead somewhere; files, commands, flags and lines of code that they name exist."""

import json
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
from support.stages import REPOSITORY

from data.kinds import KINDS
from utils import control, experiment, visdom_display
from utils.compare import __main__ as compare

README = REPOSITORY / "README.md"
PAGES = {
    page.relative_to(REPOSITORY).as_posix(): page.read_text(encoding="utf-8")
    for page in (README, REPOSITORY / "checkpoints/README.md", *sorted((REPOSITORY / "docs").glob("*.md")))
}
ROOMS = ("data", "docs", "models", "options", "tests", "utils")
FOREIGN = {"shm-size", "no-build-isolation", "batches", "updates", "worlds"}  # Docker's, pip's, tests/*.py's
LAUNCHERS = re.compile(r"(?:torchrun|srun)\b.*?(?=\S+\.py\b|\\$|$)", re.MULTILINE)
FLAG = re.compile(r"(?<![\w-])--([a-zA-Z][\w-]*)")
MODULES = {  # what reads the command line of each `python -m`
    "utils.compare": compare.main,
    "utils.control": control.parse,
    "utils.experiment": experiment.parse,
    "utils.visdom_display": visdom_display.replay,
}


def anchors(page: str) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", without_code(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def without_code(page: str) -> str:
    return re.sub(r"^```[^`]*^```$|^    .*$", "", page, flags=re.MULTILINE)


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_somewhere(name):
    for link in re.findall(r"\]\(([^)\s]+)\)", without_code(PAGES[name])):
        if link.startswith(("http:", "https:")):
            continue
        path, _, anchor = link.partition("#")
        target = ((REPOSITORY / name).parent / path).resolve() if path else REPOSITORY / name
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target.read_text(encoding="utf-8")), link


@pytest.mark.parametrize("name", PAGES)
def test_files_modules_and_targets_exist(name):
    text = PAGES[name]
    paths = re.findall(rf"(?<![\w/.-])((?:{'|'.join(ROOMS)})/[\w./-]*|[\w-]+\.py)(?![\w<*])", text)
    new = re.findall(r"^--- /dev/null\n\+\+\+ b/(\S+)$", text, re.MULTILINE)
    assert not [path for path in paths if path not in new and not (REPOSITORY / path.rstrip(".")).exists()]
    for module in re.findall(r"python -m (utils[\w.]*)", text):
        path = REPOSITORY / module.replace(".", "/")
        assert path.is_dir() or path.with_suffix(".py").is_file(), module
    targets = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"(?:`|^    )make ([\w.-]+)", text, re.MULTILINE):
        assert re.search(rf"^{re.escape(target)}:", targets, re.MULTILINE), target


def test_readme_is_one_page_and_names_every_other():
    assert len(README.read_text(encoding="utf-8").splitlines()) <= 150
    links = set(re.findall(r"\]\((docs/[\w.]+)", PAGES["README.md"]))
    assert {name for name in PAGES if name.startswith("docs/")} <= links


@pytest.mark.parametrize("name", PAGES)
def test_changes_that_are_shown_fit_the_code(name):
    changes = re.findall(r"^--- a/(\S+)\n\+\+\+ b/\S+\n((?:[ +@-].*\n)+?)(?=--- |```)", PAGES[name], re.M)
    assert len(changes) == PAGES[name].count("--- a/")
    for file, hunks in changes:
        code = (REPOSITORY / file).read_text(encoding="utf-8")
        for hunk in hunks.split("@@\n")[1:]:
            old = "".join(f"{line[1:]}\n" for line in hunk.splitlines() if not line.startswith("+"))
            assert code.count(old) == 1, f"{file}:\n{hunk}"


def test_the_code_that_splits_a_file_puts_everyone_into_one_split(tmp_path, monkeypatch):
    (code,) = re.findall(r"^```python\n(.*?)^```$", PAGES["docs/data.md"], re.MULTILINE | re.DOTALL)
    path = tmp_path / "dataset/own/annotations/person_keypoints_default.json"
    path.parent.mkdir(parents=True)
    people = [{"id": id, "image_id": id // 2} for id in range(20)]
    categories = [{"id": 1, "name": "person", "keypoints": ["nose"]}]
    everyone = {"images": [{"id": id} for id in range(10)], "annotations": people, "categories": categories}
    path.write_text(json.dumps(everyone))
    monkeypatch.chdir(tmp_path)
    exec(code, {})
    train, valid = (json.loads(Path(f"dataset/own/{name}.json").read_text()) for name in ("train", "valid"))
    assert train["categories"] == valid["categories"] == categories
    assert [image["id"] for image in valid["images"]] == [4, 9] and len(train["images"]) == 8
    assert [person["id"] for person in valid["annotations"]] == [8, 9, 18, 19]
    assert sorted(person["id"] for person in train["annotations"] + valid["annotations"]) == list(range(20))


@cache
def script_flags() -> dict[str, set[str]]:
    """The flags of each script, as its help lists them."""
    run = {"cwd": REPOSITORY, "capture_output": True, "text": True, "check": True}
    return {
        script.name: set(FLAG.findall(subprocess.run([sys.executable, script, "--help"], **run).stdout))
        for script in sorted(REPOSITORY.glob("*.py"))
    }


@pytest.fixture
def module_flags(monkeypatch, capsys) -> dict[str, set[str]]:
    """The flags of each command of `MODULES`, as its help lists them."""
    flags = {}
    for module, read in MODULES.items():
        monkeypatch.setattr(sys, "argv", [module, "--help"])
        with pytest.raises(SystemExit):
            read()
        flags[module] = set(FLAG.findall(capsys.readouterr().out))
    return flags


@pytest.mark.parametrize("name", PAGES)
def test_flags_exist(name, module_flags):
    assert len(script_flags()) == 3 + len(KINDS)
    text = LAUNCHERS.sub("", PAGES[name].replace("\\\n", " "))
    for script, flags in (script_flags() | module_flags).items():
        for command in re.findall(rf"python (?:-m )?{re.escape(script)} (.*)$", text, re.MULTILINE):
            assert set(FLAG.findall(command.partition("`")[0])) <= flags, command
    known = set.union(FOREIGN, *script_flags().values(), *module_flags.values())
    assert set(FLAG.findall(text)) <= known
