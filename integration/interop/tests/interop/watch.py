"""Runs a program on a terminal of its own and plays a user; each step is answered with a JSON object when it is done.

Arguments: columns, lines, the program and its arguments. On standard input one step for each line: `wait TEXT` until the screen shows it, `match PATTERN`, `gone
TEXT` until it does not, `keys TEXT`, `size COLUMNS LINES`, `screen` to print it, `end` to wait for the end of the program.
"""

import fcntl
import json
import os
import pty
import re
import select
import struct
import sys
import termios
import time

columns, lines = int(sys.argv[1]), int(sys.argv[2])
master, slave = pty.openpty()
# As it is before anybody has touched it.
before = termios.tcgetattr(slave)


def resize(columns, lines):
    fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))


resize(columns, lines)
child = os.fork()
if child == 0:
    os.close(master)
    os.login_tty(slave)
    os.execv(sys.argv[3], sys.argv[3:])
seen = b""
ended = False


def pump(seconds):
    global seen, ended
    ready, _, _ = select.select([master], [], [], seconds)
    if ready:
        try:
            octets = os.read(master, 65536)
        except OSError:
            octets = b""
        ended = ended or not octets
        seen += octets


def screen():
    """The last whole screen, without colours and positions."""
    frames = seen.decode(errors="replace").split("\x1b[H")
    whole = [frame for frame in frames[1:] if "\x1b[J" in frame]
    text = whole[-1].split("\x1b[J")[0] if whole else ""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text).replace("\r\n", "\n")


def until(condition, what):
    limit = time.monotonic() + 60
    while not condition():
        if time.monotonic() > limit or ended:
            sys.exit(f"not on the screen in time: {what}\n{screen()}\n{seen[-2000:]!r}")
        pump(0.1)


for step in sys.stdin:
    verb, _, rest = step.strip().partition(" ")
    answer = {}
    if verb == "wait":
        until(lambda: rest in screen(), rest)
    elif verb == "match":
        until(lambda: re.search(rest, screen()), rest)
    elif verb == "gone":
        until(lambda: rest not in screen(), "gone: " + rest)
    elif verb == "keys":
        os.write(master, rest.encode().decode("unicode_escape").encode())
    elif verb == "size":
        resize(*map(int, rest.split()))
        # The next frame is the first one of this size.
        seen = b""
        until(lambda: screen(), "a frame")
    elif verb == "screen":
        answer = {"screen": screen(), "coloured": b"\x1b[32m" in seen}
    elif verb == "end":
        limit = time.monotonic() + 60
        while not os.waitpid(child, os.WNOHANG)[0]:
            if time.monotonic() > limit:
                sys.exit("it does not end")
            pump(0.1)
        # Its last words may still be on their way; our own end of the terminal keeps it open.
        pump(0.1)
        pump(0.1)
        after = termios.tcgetattr(slave)
        answer = {"restored": after[3] == before[3] and seen.rstrip().endswith(b"\x1b[?1049l")}
    print(json.dumps(answer), flush=True)
