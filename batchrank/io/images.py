"""Opens a file below a folder so that nothing can lead elsewhere: no link at any step, whatever is swapped meanwhile.

A path that is checked first and opened later can be another one by then. So the kernel opens it in one go where it
has ``openat2`` (Linux 5.6); elsewhere each step is opened from the one before, and a link isn't followed. What was
opened is looked at, never what was named.
"""

import ctypes
import errno
import os
import platform
import stat
import sys
from collections.abc import Callable, Sequence

_OPENAT2 = 437
"""The system call's number, the same on all machines but alpha."""
_NO_MAGICLINKS, _NO_SYMLINKS, _BENEATH = 0x02, 0x04, 0x08
_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
"""A pipe without a writer would block, a terminal would become the process's own."""
_FOLDER = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_DIRECTORY
_ABSENT = (errno.ENOSYS, errno.EPERM, errno.E2BIG, errno.EINVAL)
"""How kernels and sandboxes say that there is no such call; ``EPERM`` is what older ones of Docker's answer."""

Open = Callable[[int, Sequence[str]], int]


class NotRegularError(OSError):
    """Raised when what was opened is a folder, a pipe or a device."""


class _How(ctypes.Structure):
    """The kernel's ``struct open_how``."""

    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def open_beneath(root: int, parts: Sequence[str]) -> int:
    """The descriptor of a regular file below an open folder.

    Args:
        root: the folder's descriptor.
        parts: the names on the way, none of them ``..``.

    Raises:
        NotRegularError: it is a folder, a pipe or a device.
        OSError: it can't be opened; ``ELOOP`` where a link is on the way.
    """
    found = _opener()(root, parts)
    try:
        if not stat.S_ISREG(os.fstat(found).st_mode):
            raise NotRegularError(errno.EINVAL, "no regular file")
    except BaseException:
        os.close(found)
        raise
    return found


def by_kernel(root: int, parts: Sequence[str]) -> int:
    """Open in one go, by ``openat2``."""
    how = _How(_FLAGS, 0, _BENEATH | _NO_SYMLINKS | _NO_MAGICLINKS)
    path = os.fsencode("/".join(parts))
    call = ctypes.CDLL(None, use_errno=True).syscall
    call.restype = ctypes.c_long
    found = call(
        ctypes.c_long(_OPENAT2), ctypes.c_int(root), ctypes.c_char_p(path), ctypes.byref(how),
        ctypes.c_size_t(ctypes.sizeof(how)),
    )  # fmt: skip
    if found < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return int(found)


def step_by_step(root: int, parts: Sequence[str]) -> int:
    """Open each folder from the one before, and the file from the last."""
    at = root
    try:
        for part in parts[:-1]:
            try:
                inner = os.open(part, _FOLDER, dir_fd=at)
            except NotADirectoryError:
                if stat.S_ISLNK(os.stat(part, dir_fd=at, follow_symlinks=False).st_mode):
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP)) from None
                raise
            if at != root:
                os.close(at)
            at = inner
        return os.open(parts[-1], _FLAGS, dir_fd=at)
    finally:
        if at != root:
            os.close(at)


_known: list[Open] = []


def _opener() -> Open:
    """What opens here, found out once: the kernel's own way if it has one."""
    if not _known:
        _known.append(by_kernel if _has_openat2() else step_by_step)
    return _known[0]


def _has_openat2() -> bool:
    if not sys.platform.startswith("linux") or platform.machine() == "alpha":
        return False
    folder = os.open("/", _FOLDER)
    try:
        os.close(by_kernel(folder, ["."]))
    except (OSError, AttributeError):
        return False
    finally:
        os.close(folder)
    return True
