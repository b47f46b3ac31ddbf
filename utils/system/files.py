"""Atomic writing of files, and a lock that allows one training run per folder."""

import errno
import logging
import os
import re
import secrets
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from filelock import FileLock, Timeout

from utils.system import ranks
from utils.system.errors import UserError

log = logging.getLogger(__name__)

LOCK = ".lock"
HOLDER = ".lock-holder"  # names the process that has the lock: on Windows a locked file cannot be read
ABANDONED = 3600  # s
UNSUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL)  # by a file system


def write_file(path: Path, content: bytes | str) -> None:
    """Write a file atomically: a reader sees either the old content or all of the new.

    The content is written to a temporary file in the same folder, flushed to the disk, then renamed. Text is
    UTF-8. With several ranks only rank 0 writes.

    Raises:
        UserError: the folder cannot be written to, or the disk is full; the old file stays as it was.
    """
    if ranks.rank():
        return
    with new_file(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


@contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """An open temporary file that is flushed to the disk and replaces `path` at the end; see `write_file`."""
    with _replacing(path) as temporary, temporary.open("xb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


def link_file(path: Path, target: Path) -> None:
    """Make `path` a hard link to the file `target`, or a copy if the file system has no hard links.

    If one of the two is written again later, the other keeps its content. With several ranks only rank 0
    links. Errors are those of `write_file`.
    """
    if ranks.rank():
        return
    try:
        with _replacing(path) as temporary:
            temporary.hardlink_to(target)
    except UserError:
        write_file(path, target.read_bytes())


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """A temporary path in the folder of `path`; the file created there replaces `path` at the end."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        yield temporary
        temporary.replace(path)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}") from error
    finally:
        _remove(temporary)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lock a folder, created if necessary, against other training runs until the end of the context.

    Old temporary files, left in it by killed runs, are removed. The lock ends with its process, even if that
    is killed. On a network disk it works between machines if the file system supports locks, as NFS does with
    its lock service; otherwise a warning is logged. Rank 0 holds it for all ranks.

    Raises:
        UserError: another run holds it, or the folder cannot be written to.
    """
    if ranks.rank():
        yield
        return
    holder = folder / HOLDER
    with ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            try:
                stack.enter_context(FileLock(folder / LOCK, timeout=0))
            except OSError as error:
                if error.errno not in UNSUPPORTED:
                    raise
                log.warning("%s cannot be locked (%s): start one run there at a time", folder, error.strerror)
            stack.callback(_remove, folder / LOCK)
            holder.write_text(
                f"{Path(sys.argv[0]).name}, process {os.getpid()} on {socket.gethostname()}, "
                f"since {time.strftime('%Y-%m-%d %H:%M:%S')}",
                errors="replace",
            )
        except Timeout:
            text = holder.read_text(errors="replace") if holder.exists() else "another process"
            raise UserError(
                f"{folder} is in use by {text}: wait until it ends, or use another folder"
            ) from None
        except OSError as error:
            raise UserError(f"{folder} cannot be written to: {error.strerror}") from error
        stack.callback(_remove, holder)
        remove_abandoned(folder)
        yield


def _remove(path: Path) -> None:
    with suppress(OSError):  # Windows cannot delete an open file; a lock file goes when its lock is released
        path.unlink()


def remove_abandoned(folder: Path, names: str = "*") -> None:
    """Remove temporary files of killed processes from a folder and the folder of its pages.

    They are those that have not been written to for `ABANDONED` s: a newer one may be of a process that runs.

    names: pattern for the names of the files that they would have replaced.
    """
    for temporary in (*folder.glob(f".{names}.tmp*"), *folder.glob(f"web/.{names}.tmp*")):
        with suppress(OSError):  # another process has removed it
            if time.time() - temporary.stat().st_mtime > ABANDONED:
                temporary.unlink()


def natural(name: str) -> list:
    """A sorting key that compares numbers in names by value: epoch 9 comes before epoch 10."""
    return [(int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", name)]
