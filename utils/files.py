"""Writing files of an experiment: whole, or not at all."""

import os
import tempfile
from pathlib import Path

from utils.errors import UserError


def write_file(path: Path, content: bytes | str) -> None:
    """Put content into a file so that a reader sees the old content or all of the new, at any moment.

    Written under a temporary name in the same folder, flushed to the disk, then renamed. Text is UTF-8.

    Raises:
        UserError: the folder cannot be written to, or the disk is full; the old file stays as it was.
    """
    data = content.encode() if isinstance(content, str) else content
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
        temporary = Path(name)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.chmod(0o644)
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}") from error
