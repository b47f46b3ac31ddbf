"""Start visdom's server without the internet: `python -m utils.visdom_server`, with the server's own flags.

`python -m visdom.server` first fetches the scripts, styles and fonts of its page from several content
networks, and dies without them. This takes the same versions from npm, or a mirror that npm is set up for,
and checks each by its digest; files that are complete stay, and then no network is needed.
"""

import hashlib
import importlib.metadata
import importlib.util
import logging
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

log = logging.getLogger(__name__)

GLYPHS = "fonts/glyphicons-halflings-regular"
MATHJAX = "js/mathjax/2.7.5"
TEX = "jax/output/SVG/fonts/TeX"

FILES = {
    "jquery@3.1.1": (("dist/jquery.min.js", "js/jquery.min.js", "85556761a8800d14"),),
    "bootstrap@3.3.7": (
        ("dist/js/bootstrap.min.js", "js/bootstrap.min.js", "53964478a7c634e8"),
        ("dist/css/bootstrap.min.css", "css/bootstrap.min.css", "f75e846cc83bd114"),
        (f"dist/{GLYPHS}.eot", f"{GLYPHS}.eot", "13634da87d9e23f8"),
        (f"dist/{GLYPHS}.woff2", f"{GLYPHS}.woff2", "fe185d11a4967689"),
        (f"dist/{GLYPHS}.woff", f"{GLYPHS}.woff", "a26394f7ede100ca"),
        (f"dist/{GLYPHS}.ttf", f"{GLYPHS}.ttf", "e395044093757d82"),
        (f"dist/{GLYPHS}.svg", f"{GLYPHS}.svg", "42f60659d265c1a3"),
        # visdom looks for it under this name, too
        (f"dist/{GLYPHS}.svg", f"{GLYPHS}.svg#glyphicons_halflingsregular", "42f60659d265c1a3"),
    ),
    "react@16.2.0": (("umd/react.production.min.js", "js/react-react.min.js", "c28b91922bca2970"),),
    "react-dom@16.2.0": (("umd/react-dom.production.min.js", "js/react-dom.min.js", "f61ac9c43e0842c5"),),
    "react-modal@3.1.10": (("dist/react-modal.min.js", "js/react-modal.min.js", "096ce258905585d0"),),
    "plotly.js-dist-min@2.11.1": (("plotly.min.js", "js/plotly-plotly.min.js", "dd146b2db18d4ced"),),
    "sjcl@1.0.7": (("sjcl.js", "js/sjcl.js", "d09a8688f37c7442"),),
    "layout-bin-packer@1.4.0": (
        ("dist/layout-bin-packer.js", "js/layout_bin_packer.js", "312ed1834f78f497"),
        ("dist/layout-bin-packer.js.map", "js/layout-bin-packer.js.map", "7f39df86278f0cd2"),
    ),
    "d3@3.5.17": (("d3.min.js", "js/d3.v3.min.js", "76c39718d1c0a3fb"),),
    "d3-selection-multi@1.0.1": (
        ("build/d3-selection-multi.js", "js/d3-selection-multi.v1.js", "22f89270afc6f231"),
    ),
    "save-svg-as-png@1.4.17": (("lib/saveSvgAsPng.js", "js/saveSvgAsPng.js", "71c46f2411daf6ba"),),
    "react-resizable@1.4.6": (("css/styles.css", "css/react-resizable-styles.css", "7c9122a97c86b4be"),),
    "react-grid-layout@0.16.3": (("css/styles.css", "css/react-grid-layout-styles.css", "4ec035a50c31ec00"),),
    "classnames@2.2.5": (("index.js", "fonts/classnames", "89f83f030d5f5234"),),
    "mathjax@2.7.5": (
        ("config/Safe.js", f"{MATHJAX}/config/Safe.js", "c3d9f149afb82798"),
        ("config/TeX-AMS-MML_HTMLorMML.js", f"{MATHJAX}/config/TeX-AMS-MML_HTMLorMML.js", "f380ca5d5257b34f"),
        ("extensions/Safe.js", f"{MATHJAX}/extensions/Safe.js", "1b44a7b48d991ab6"),
        (f"{TEX}/fontdata.js", f"{MATHJAX}/{TEX}/fontdata.js", "c23d4bebe304610f"),
        ("jax/output/SVG/jax.js", f"{MATHJAX}/jax/output/SVG/jax.js", "39d9a95fcde78f56"),
        (f"{TEX}/Size1/Regular/Main.js", f"{MATHJAX}/{TEX}/Size1/Regular/Main.js", "3e1c830e9c05a62f"),
        ("jax/output/SVG/config.js", f"{MATHJAX}/jax/output/SVG/config.js", "d680518add37c0d1"),
        ("MathJax.js", f"{MATHJAX}/MathJax.js", "9ef249bfdc162849"),
    ),
}
"""npm package -> (path in it, path in visdom's static folder, start of the file's SHA-256), as visdom 0.2.4
lists them in `visdom/server/build.py`."""


def static_folder() -> Path:
    """Where the installed visdom's server takes its page's files from.

    Raises:
        SystemExit: visdom is not installed.
    """
    spec = importlib.util.find_spec("visdom")
    if spec is None or spec.origin is None:
        sys.exit("visdom is not installed: pip install -r requirements.txt installs it")
    return Path(spec.origin).parent / "static"


def is_right(path: Path, digest: str) -> bool:
    """Whether the file is there with this content."""
    return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest().startswith(digest)


def missing_files() -> list[Path]:
    """The files of visdom's page that are not there, or not as they should be."""
    static = static_folder()
    return [
        static / target
        for files in FILES.values()
        for _, target, digest in files
        if not is_right(static / target, digest)
    ]


def install() -> None:
    """Fetch the packages of which a file is missing, and copy their files.

    Raises:
        SystemExit: npm fails, or hands out another file than the one wanted.
    """
    missing, static = set(missing_files()), static_folder()
    for package, files in FILES.items():
        if missing.isdisjoint(static / target for _, target, _ in files):
            continue
        with tempfile.TemporaryDirectory() as folder, tarfile.open(fetch(package, Path(folder))) as archive:
            for source, target, digest in files:
                member = archive.extractfile(f"package/{source}")
                path = static / target
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(member.read())
                if not is_right(path, digest):
                    sys.exit(f"{package} from npm has another {source} than the one wanted")
        log.info("%s: fetched, files copied: %d", package, len(files))
    (static / "version.built").write_text(importlib.metadata.version("visdom"))
    log.info("visdom's page is complete in %s", static)


def fetch(package: str, folder: Path) -> Path:
    """The package's archive, from npm into the folder; npm checks it against the registry's digest."""
    command = ["npm", "pack", "--silent", "--pack-destination", str(folder), package]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        sys.exit(f"{' '.join(command)}: {getattr(error, 'stderr', None) or error}")
    return next(folder.glob("*.tgz"))


def main() -> None:
    """Install what is missing, and start the server."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    install()
    from visdom.server import run_server

    run_server.main()


if __name__ == "__main__":
    main()
