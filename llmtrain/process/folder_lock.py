"""One process at a time in a folder, or several that share it. The lock is the kernel's: it ends with the process."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from llmtrain.errors import ConfigError


@contextmanager
def locked_folder(folder: Path, lock_name: str, user: str, remedy: str, *, is_shared: bool = False) -> Iterator[None]:
    """Hold a folder; it is made if it is not there.

    Args:
        folder: to hold.
        lock_name: file in it.
        user: what holds it, for the message: `a run`.
        remedy: what to do when it is held.
        is_shared: hold it beside others that share it.

    Raises:
        ConfigError: another process holds it; its id and host are named.
        OSError: the folder cannot be written or locked.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / lock_name).open("ab+", buffering=0) as lock:
        try:
            fcntl.flock(lock, (fcntl.LOCK_SH if is_shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.seek(0)
            holder = lock.read().decode().strip() or "unknown process"
            raise ConfigError(f"{folder}: {user} is using this folder ({holder}). {remedy}") from error
        lock.truncate(0)
        lock.write(f"process {os.getpid()} on {os.uname().nodename}".encode())
        yield
