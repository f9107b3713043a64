"""Initiates a child and ends its IKE SA over VICI, and prints the lines that come with it: socket, log level, name of the event.

With `control-log` those of the commands themselves, with `log` those that another client is told meanwhile.
"""

import socket
import sys
import threading

import vici

path, level, wanted = sys.argv[1:]


def connect():
    stream = socket.socket(socket.AF_UNIX)
    stream.connect(path)
    stream.settimeout(60)
    return vici.Session(stream)


def text(value):
    return value.decode() if isinstance(value, bytes) else value


def show(command, line):
    parts = [text(line.get(key, "-")) for key in ("level", "group", "thread", "ikesa-name", "ikesa-uniqueid", "msg")]
    print(command, *parts, sep="\t", flush=True)


ended = threading.Event()


registered = threading.Event()


def listen():
    for name, line in connect().listen(["log"], timeout=0.1):
        registered.set()
        if line is None:
            continue
        show(text(name), line)
        if "IKE_SA deleted" in text(line["msg"]):
            ended.set()
            return


if wanted == "log":
    threading.Thread(target=listen, daemon=True).start()
    assert registered.wait(60), "nobody listens"
session = connect()
commands = [
    ("initiate", session.initiate, {"child": "net4", "timeout": "30000", "loglevel": level}),
    ("terminate", session.terminate, {"ike": "site", "timeout": "30000", "loglevel": level}),
]
for name, command, request in commands:
    for line in command(request):
        if wanted == "control-log":
            show(name, line)
if wanted == "log":
    assert ended.wait(60), "the end was not told"
