"""One session of the PyPI package `vici` with a daemon whose socket is the first argument."""

import socket
import sys
import threading
from collections import OrderedDict

import vici


def connect():
    stream = socket.socket(socket.AF_UNIX)
    stream.connect(sys.argv[1])
    stream.settimeout(60)
    return vici.Session(stream)


def text(value):
    return value.decode() if isinstance(value, bytes) else value


session = connect()
version = session.version()
assert text(version["daemon"]) and text(version["version"]), version
assert text(session.stats()["ikesas"]["total"]) == "0", session.stats()

# Everything that a configuration tool would load by itself.
session.load_shared(OrderedDict(id="by-python", type="IKE", data="something", owners=["x.example", "y.example"]))
assert "by-python" in [text(key) for key in session.get_shared()["keys"]]
connection = OrderedDict(
    {
        "by-python": OrderedDict(
            version="2",
            local_addrs=["192.0.2.1"],
            remote_addrs=["192.0.2.77"],
            proposals=["aes128gcm16-prfsha256-x25519"],
            local=OrderedDict(auth="psk", id="x.example"),
            remote=OrderedDict(auth="psk", id="y.example"),
            children={"p": OrderedDict(local_ts=["10.1.0.0/24"], remote_ts=["10.77.0.0/24"], esp_proposals=["aes128gcm16"])},
        )
    }
)
session.load_conn(connection)
names = [text(name) for name in session.get_conns()["conns"]]
assert sorted(names) == ["by-python", "site"], names
listed = {name for entry in session.list_conns() for name in entry}
assert {text(name) for name in listed} == {"by-python", "site"}, listed
session.unload_conn({"name": "by-python"})
session.unload_shared({"id": "by-python"})
assert [text(name) for name in session.get_conns()["conns"]] == ["site"]
try:
    session.unload_conn({"name": "by-python"})
    raise AssertionError("an unknown connection was unloaded")
except vici.exception.CommandException as error:
    assert "not found" in str(error), error

# Events on a connection of their own, while this one initiates.
listener = connect()
seen = []


def listen():
    for name, _ in listener.listen(["ike-updown", "child-updown", "child-rekey", "ike-rekey"]):
        seen.append(text(name))
        if seen.count("child-updown") == 2 and seen.count("ike-updown") == 2:
            return


thread = threading.Thread(target=listen, daemon=True)
thread.start()
threading.Event().wait(0.3)

lines = [text(line["msg"]) for line in session.initiate({"child": "net4", "timeout": "30000"})]
assert lines, "no control-log line came with the initiation"
[entry] = list(session.list_sas())
sa = entry["site"]
assert text(sa["state"]) == "ESTABLISHED" and text(sa["version"]) == "2", sa
[child] = sa["child-sas"].values()
assert text(child["state"]) == "INSTALLED" and text(child["backend"]) == "userspace", child
assert [text(selector) for selector in child["local-ts"]] == ["10.1.0.0/24"], child
assert text(session.stats()["ikesas"]["total"]) == "1"
assert int(session.rekey({"child": "net4"})["matches"]) == 1
threading.Event().wait(1.0)
for _ in session.terminate({"ike": "site", "timeout": "30000"}):
    pass
assert list(session.list_sas()) == []
thread.join(5)
assert not thread.is_alive(), seen
assert "child-rekey" in seen, seen

try:
    list(session.initiate({"child": "nothing", "timeout": "1000"}))
    raise AssertionError("an unknown child was initiated")
except vici.exception.CommandException as error:
    assert "not found" in str(error), error
print("all steps done")
