"""Start visdom's server without the internet: `python -m utils.visdom_server`, with the server's own flags.

`python -m visdom.server` first fetches the scripts, styles and fonts of its page from several content
networks, and dies without them. This takes the same versions from npm, or a mirror that npm is set up for,
once; then no network is needed.
"""

import importlib.metadata
import importlib.util
import logging
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

log = logging.getLogger(__name__)

_GLYPHS = "glyphicons-halflings-regular"
_MATHJAX = (
    "config/Safe.js",
    "config/TeX-AMS-MML_HTMLorMML.js",
    "extensions/Safe.js",
    "jax/output/SVG/fonts/TeX/fontdata.js",
    "jax/output/SVG/jax.js",
    "jax/output/SVG/fonts/TeX/Size1/Regular/Main.js",
    "jax/output/SVG/config.js",
    "MathJax.js",
)
FILES = {
    "js/jquery.min.js": "jquery@3.1.1/dist/jquery.min.js",
    "js/bootstrap.min.js": "bootstrap@3.3.7/dist/js/bootstrap.min.js",
    "css/bootstrap.min.css": "bootstrap@3.3.7/dist/css/bootstrap.min.css",
    **{
        f"fonts/{_GLYPHS}.{end}": f"bootstrap@3.3.7/dist/fonts/{_GLYPHS}.{end}"
        for end in ("eot", "woff2", "woff", "ttf", "svg")
    },
    f"fonts/{_GLYPHS}.svg#glyphicons_halflingsregular": f"bootstrap@3.3.7/dist/fonts/{_GLYPHS}.svg",
    "js/react-react.min.js": "react@16.2.0/umd/react.production.min.js",
    "js/react-dom.min.js": "react-dom@16.2.0/umd/react-dom.production.min.js",
    "js/react-modal.min.js": "react-modal@3.1.10/dist/react-modal.min.js",
    "js/plotly-plotly.min.js": "plotly.js-dist-min@2.11.1/plotly.min.js",
    "js/sjcl.js": "sjcl@1.0.7/sjcl.js",
    "js/layout_bin_packer.js": "layout-bin-packer@1.4.0/dist/layout-bin-packer.js",
    "js/layout-bin-packer.js.map": "layout-bin-packer@1.4.0/dist/layout-bin-packer.js.map",
    "js/d3.v3.min.js": "d3@3.5.17/d3.min.js",
    "js/d3-selection-multi.v1.js": "d3-selection-multi@1.0.1/build/d3-selection-multi.js",
    "js/saveSvgAsPng.js": "save-svg-as-png@1.4.17/lib/saveSvgAsPng.js",
    "css/react-resizable-styles.css": "react-resizable@1.4.6/css/styles.css",
    "css/react-grid-layout-styles.css": "react-grid-layout@0.16.3/css/styles.css",
    "fonts/classnames": "classnames@2.2.5/index.js",
    **{f"js/mathjax/2.7.5/{file}": f"mathjax@2.7.5/{file}" for file in _MATHJAX},
}
"""Path in visdom's static folder -> npm package and path in it, as visdom 0.2.4 lists them in
`visdom/server/build.py`."""


def static_folder() -> Path:
    """Where the installed visdom's server takes its page's files from.

    Raises:
        SystemExit: visdom is not installed.
    """
    spec = importlib.util.find_spec("visdom")
    if spec is None or spec.origin is None:
        sys.exit("visdom is not installed: pip install -r requirements.txt installs it")
    return Path(spec.origin).parent / "static"


def missing_files() -> list[Path]:
    """The files of visdom's page that are not there."""
    static = static_folder()
    return [static / file for file in FILES if not (static / file).is_file()]


def install() -> None:
    """Fetch the packages, unless all files are there, and copy their files.

    Raises:
        SystemExit: npm, which checks each package by the registry's digest, fails.
    """
    static, packages = static_folder(), dict.fromkeys(source.partition("/")[0] for source in FILES.values())
    if missing_files():
        with tempfile.TemporaryDirectory() as folder:
            # --prefix: else npm installs into a folder above that is a package
            flags = ("--prefix", folder, "--no-audit", "--ignore-scripts", "--legacy-peer-deps")
            command = ["npm", "install", *flags, *packages]
            try:
                subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
            except (OSError, subprocess.CalledProcessError) as error:
                sys.exit(f"{' '.join(command)}: {getattr(error, 'stderr', None) or error}")
            for target, source in FILES.items():
                installed = Path(folder, "node_modules", re.sub("@[^/]+", "", source))
                (static / target).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(installed, static / target)
    (static / "version.built").write_text(importlib.metadata.version("visdom"))
    log.info("visdom's page is complete in %s", static)


def main() -> None:
    """Install what is missing, and start the server."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    install()
    from visdom.server import run_server

    run_server.main()


if __name__ == "__main__":
    main()
