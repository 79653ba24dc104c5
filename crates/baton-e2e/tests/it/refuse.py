"""Runs a command whose system calls the kernel refuses in part, as a sandbox does.

    refuse.py CALL[/ARGUMENT=VALUE]:ERRNO ... -- COMMAND

All are numbers. What has an ARGUMENT is refused only where that, counted from 0, has this VALUE.
"""

import ctypes
import os
import struct
import sys

LOAD, JUMP_EQUAL, RETURN = 0x20, 0x15, 0x06
ALLOW, ERRNO = 0x7FFF0000, 0x00050000
# Where the number of a call is, and its arguments.
NUMBER, ARGUMENTS = 0, 16
PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2


def refusal(rule):
    """Instructions that end with the error, or go on behind themselves."""
    what, errno = rule.split(":")
    call, _, condition = what.partition("/")
    end = [(RETURN, 0, 0, ERRNO | int(errno))]
    if condition:
        argument, value = map(int, condition.split("="))
        end = [(LOAD, 0, 0, ARGUMENTS + 8 * argument), (JUMP_EQUAL, 0, 1, value)] + end
    return [(LOAD, 0, 0, NUMBER), (JUMP_EQUAL, 0, len(end), int(call))] + end


rules, command = sys.argv[1:sys.argv.index("--")], sys.argv[sys.argv.index("--") + 1:]
steps = [step for rule in rules for step in refusal(rule)] + [(RETURN, 0, 0, ALLOW)]
program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
header = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(steps), ctypes.addressof(program)))
libc = ctypes.CDLL(None, use_errno=True)
if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, header, 0, 0):
    sys.exit(os.strerror(ctypes.get_errno()))
os.execvp(command[0], command)
