"""Runs a command, and all that it starts, with io_uring forbidden, as containers' default seccomp profiles do it.

    python3 tests/without_io_uring.py target/debug/ws-cluster --node 1
x86-64 and AArch64 (io_uring_setup has number 425 on both).
"""

import ctypes
import os
import struct
import sys

IO_URING_SETUP = 425
PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS, SECCOMP_MODE_FILTER = 22, 38, 2
LOAD_NUMBER, JUMP_IF_EQUAL, RETURN = 0x20, 0x15, 0x06
ERRNO_EPERM, ALLOW = 0x0005_0001, 0x7FFF_0000


class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_void_p)]


def instruction(code, value, if_true=0, if_false=0):
    return struct.pack("HBBI", code, if_true, if_false, value)


def forbid():
    filter_ = b"".join([
        instruction(LOAD_NUMBER, 0),
        instruction(JUMP_IF_EQUAL, IO_URING_SETUP, 0, 1),
        instruction(RETURN, ERRNO_EPERM),
        instruction(RETURN, ALLOW),
    ])
    memory = ctypes.create_string_buffer(filter_, len(filter_))
    program = Program(len(filter_) // 8, ctypes.addressof(memory))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.prctl(
        PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0
    ):
        sys.exit(f"io_uring could not be forbidden: {os.strerror(ctypes.get_errno())}")


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    forbid()
    os.execvp(sys.argv[1], sys.argv[1:])
