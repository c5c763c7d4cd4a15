"""Runs a command, and all that it starts, under a container's seccomp profile, as a container runtime would.

    python3 tests/under_seccomp.py deploy/seccomp/ws-cluster.json target/debug/ws-cluster --node 1

Reads the profile with the meaning that runtimes give it (OCI: `defaultAction`, `syscalls` with `names`, `action`, `args`) and has
libseccomp, which runtimes use too, make the filter of it. Other keys are refused: containerd passes over Docker's `includes` and
`excludes`, so that what they guard would be open to all; without `architectures` the machine's own alone may call.
"""

import ctypes
import json
import os
import sys

KEYS = {"defaultAction", "defaultErrnoRet", "syscalls"}
RULE_KEYS = {"comment", "names", "action", "errnoRet", "args"}
COMPARE = {"SCMP_CMP_NE": 1, "SCMP_CMP_LT": 2, "SCMP_CMP_LE": 3, "SCMP_CMP_EQ": 4, "SCMP_CMP_GE": 5, "SCMP_CMP_GT": 6, "SCMP_CMP_MASKED_EQ": 7}
ALLOW, ERRNO, EPERM = 0x7FFF_0000, 0x0005_0000, 1
NOT_A_CALL = -1


class Argument(ctypes.Structure):
    _fields_ = [("index", ctypes.c_uint), ("compare", ctypes.c_int), ("first", ctypes.c_uint64), ("second", ctypes.c_uint64)]


def library():
    try:
        library = ctypes.CDLL("libseccomp.so.2", use_errno=True)
    except OSError:
        sys.exit("libseccomp.so.2 is not installed: .ci/setup installs it (Debian package libseccomp2)")
    library.seccomp_init.restype = ctypes.c_void_p
    library.seccomp_init.argtypes = [ctypes.c_uint32]
    library.seccomp_syscall_resolve_name.argtypes = [ctypes.c_char_p]
    library.seccomp_rule_add_array.argtypes = [ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int, ctypes.c_uint, ctypes.c_void_p]
    library.seccomp_load.argtypes = [ctypes.c_void_p]
    return library


def action(name, errno):
    return {"SCMP_ACT_ALLOW": ALLOW, "SCMP_ACT_ERRNO": ERRNO | errno}[name]


def arguments(rule):
    found = [Argument(one["index"], COMPARE[one["op"]], one["value"], one.get("valueTwo", 0)) for one in rule.get("args", [])]
    return (Argument * len(found))(*found)


def read(file):
    """A profile as it is in a file."""
    with open(file) as text:
        profile = json.load(text)
    assert profile.keys() <= KEYS, profile.keys() - KEYS
    return profile


def apply(profile):
    """Puts this process, and what it starts, under the profile."""
    seccomp = library()
    default = action(profile["defaultAction"], profile.get("defaultErrnoRet", EPERM))
    context = seccomp.seccomp_init(default)
    assert context, "seccomp_init"
    for rule in profile["syscalls"]:
        assert rule.keys() <= RULE_KEYS, rule.keys() - RULE_KEYS
        what = action(rule["action"], rule.get("errnoRet", EPERM))
        wanted = arguments(rule)
        for name in rule["names"]:
            number = seccomp.seccomp_syscall_resolve_name(name.encode())
            assert number != NOT_A_CALL, f"there is no system call {name}"
            failed = what != default and seccomp.seccomp_rule_add_array(context, what, number, len(wanted), wanted)
            # -EDOM: a call that this architecture does not have.
            assert failed in (0, -33), (name, failed)
    failed = seccomp.seccomp_load(context)
    assert failed == 0, f"seccomp_load: {os.strerror(-failed)}"


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    apply(read(sys.argv[1]))
    os.execvp(sys.argv[2], sys.argv[2:])
