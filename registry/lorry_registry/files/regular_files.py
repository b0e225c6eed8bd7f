"""Opens files that another user may have put there: never a pipe, a device or a symbolic link."""

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO


def open_regular(path: Path) -> BinaryIO:
    """Open a regular file for reading.

    A pipe would let its reader wait for ever, and a link may lead anywhere. What was opened is looked at, not
    its name, which could be given to another file in between.

    Raises:
        OSError: It cannot be opened, or is not a regular file.
    """
    # Without a writer, opening a pipe waits for one, unless it is opened with O_NONBLOCK.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise
