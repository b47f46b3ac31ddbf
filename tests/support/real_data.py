"""Where real photographs are, for the tests and the bench: never a part of the project."""

import os
from pathlib import Path

FOLDER = Path(os.environ.get("POSE_TEST_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))
"""With `lsp/`, `lspet/` and `mpii/`, where there is such a folder."""
