"""A copy of the program with a change in it, and what runs there."""

import json
import re
import shutil
import subprocess
import sys

from support.stages import QUIET, REPOSITORY, SMALL, environment

STAGES = """
import json, runpy, sys
for sys.argv in json.loads(sys.argv[1]):
    runpy.run_path(sys.argv[0], run_name="__main__")
"""


def copied_program(root):
    """The scripts and packages in a folder."""
    for script in REPOSITORY.glob("*.py"):
        shutil.copy(script, root)
    for package in ("data", "models", "options", "utils"):
        shutil.copytree(REPOSITORY / package, root / package, ignore=shutil.ignore_patterns("__pycache__"))
    return root


def replace_once(path, old, new):
    """Change a file of the copy, where `old` stands once."""
    text = path.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))


def make_shown_changes(root, heading):
    """Change the copy as the diffs under this heading of docs/extending.md say."""
    page = (REPOSITORY / "docs/extending.md").read_text(encoding="utf-8")
    section = page.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    diffs = re.findall(r"^--- (\S+)\n\+\+\+ b/(\S+)\n((?:[ +@-].*\n)+?)(?=--- |```)", section, re.M)
    assert diffs
    for old_file, file, hunks in diffs:
        for hunk in hunks.split("@@\n")[1:]:
            lines = hunk.splitlines()
            old, new = ("".join(f"{one[1:]}\n" for one in lines if one[0] != sign) for sign in "+-")
            if old_file == "/dev/null":
                (root / file).write_text(new)
            else:
                replace_once(root / file, old, new)


def run(tree, *arguments):
    """The finished process of Python with these arguments, in the copy."""
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=tree,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def run_code(tree, code, *arguments):
    """Run code in the copy; its success and silence on stderr are asserted."""
    done = run(tree, "-c", code, *arguments)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout[-2000:] + done.stderr
    return done.stdout


def run_stages(tree, experiment, *stages):
    """Stages of the copy with these flags, one after another in a process."""
    flags = (*SMALL, *QUIET, *experiment.flags)
    lines = [[script, *map(str, (*flags, *own))] for script, *own in stages]
    return run_code(tree, STAGES, json.dumps(lines))
