"""Every method of the session class of the PyPI package `vici`, against a daemon with a tunnel to be; arguments: its socket file, its port."""

import inspect
import socket
import sys
import threading

import vici
from vici.exception import CommandException
from vici.session import Session


def connect(by_port=False):
    if by_port:
        stream = socket.create_connection(("127.0.0.1", int(sys.argv[2])))
    else:
        stream = socket.socket(socket.AF_UNIX)
        stream.connect(sys.argv[1])
    stream.settimeout(60)
    return Session(stream)


def text(value):
    return value.decode() if isinstance(value, bytes) else value


def refused(words, call):
    """The daemon says why it does not do this."""

    def run(session):
        try:
            answer = call(session)
            if inspect.isgenerator(answer):
                list(answer)
        except CommandException as error:
            assert words in str(error), error
            return
        raise AssertionError("done, not refused with: " + words)

    return run


def does(call):
    """Nothing comes back, and a refusal would be an exception."""

    def run(session):
        assert call(session) is None

    return run


def has(call, *keys):
    def run(session):
        answer = call(session)
        assert all(key in answer for key in keys), answer

    return run


def stream(call, check):
    def run(session):
        entries = list(call(session))
        assert check(entries), entries

    return run


AUTH = {"auth": "psk", "id": "x.example"}
CONN = {"py": {"version": "2", "remote_addrs": ["192.0.2.77"], "local": AUTH, "remote": AUTH, "children": {"p": {"remote_ts": ["10.77.0.0/24"]}}}}
UP = {"child": "net4", "timeout": "30000"}

# In this order. Each method of the class has to be here.
CALLS = [
    ("version", has(lambda s: s.version(), "daemon", "version", "sysname", "release", "machine")),
    ("stats", has(lambda s: s.stats(), "uptime", "workers", "queues", "scheduled", "ikesas", "plugins")),
    ("reload_settings", does(lambda s: s.reload_settings())),
    ("load_shared", does(lambda s: s.load_shared({"id": "py", "type": "IKE", "data": "something", "owners": ["x.example"]}))),
    ("get_shared", lambda s: [text(key) for key in s.get_shared()["keys"]].index("py")),
    ("unload_shared", does(lambda s: s.unload_shared({"id": "py"}))),
    ("load_conn", does(lambda s: s.load_conn(CONN))),
    ("get_conns", lambda s: [text(name) for name in s.get_conns()["conns"]].index("py")),
    ("list_conns", stream(lambda s: s.list_conns({"ike": "py"}), lambda all: [list(entry) for entry in all] == [["py"]])),
    ("unload_conn", does(lambda s: s.unload_conn({"name": "py"}))),
    ("initiate", stream(lambda s: s.initiate(UP), lambda lines: all(text(line["msg"]) for line in lines) and lines)),
    ("list_sas", stream(lambda s: s.list_sas(), lambda all: text(all[0]["site"]["state"]) == "ESTABLISHED")),
    ("rekey", lambda s: [1].index(int(s.rekey({"child": "net4"})["matches"]))),
    ("install", does(lambda s: s.install({"child": "net6"}))),
    ("list_policies", stream(lambda s: s.list_policies({"trap": "yes"}), lambda all: "site/net6" in all[0])),
    ("uninstall", does(lambda s: s.uninstall({"child": "net6"}))),
    ("get_counters", has(lambda s: s.get_counters(), "counters")),
    ("reset_counters", does(lambda s: s.reset_counters())),
    ("get_algorithms", has(lambda s: s.get_algorithms(), "encryption", "aead", "prf", "ke")),
    ("get_keys", has(lambda s: s.get_keys(), "keys")),
    ("get_authorities", has(lambda s: s.get_authorities(), "authorities")),
    ("get_pools", lambda s: [{}].index(s.get_pools())),
    ("list_certs", stream(lambda s: s.list_certs(), lambda all: all == [])),
    ("list_authorities", stream(lambda s: s.list_authorities(), lambda all: all == [])),
    ("flush_certs", does(lambda s: s.flush_certs())),
    # What there is not is refused with a reason.
    ("load_cert", refused("certificate", lambda s: s.load_cert({"type": "X509", "flag": "NONE", "data": "x"}))),
    ("load_key", refused("key", lambda s: s.load_key({"type": "any", "data": "x"}))),
    ("unload_key", refused("key not found", lambda s: s.unload_key({"id": "00"}))),
    ("load_token", refused("", lambda s: s.load_token({"handle": "00"}))),
    ("load_authority", refused("", lambda s: s.load_authority({"a": {"cacert": "x"}}))),
    ("unload_authority", refused("authority 'a' not found", lambda s: s.unload_authority({"name": "a"}))),
    ("load_pool", refused("pool", lambda s: s.load_pool({"p": {"addrs": "10.9.0.0/24"}}))),
    ("unload_pool", refused("p not found", lambda s: s.unload_pool({"name": "p"}))),
    ("redirect", refused("", lambda s: s.redirect({"ike": "site", "gateway": "192.0.2.9"}))),
    ("terminate", stream(lambda s: s.terminate({"ike": "site", "timeout": "30000"}), lambda lines: all(text(line["msg"]) for line in lines))),
    ("clear_creds", does(lambda s: s.clear_creds())),
]

# These carry the others, or are shown below.
CARRIERS = {"request", "streamed_request", "listen"}
EVENTS = ["log", "control-log", "list-sa", "list-policy", "list-conn", "list-cert", "list-authority"]
EVENTS += ["ike-updown", "ike-rekey", "ike-update", "child-updown", "child-rekey", "alert"]

methods = {name for name, _ in inspect.getmembers(Session, inspect.isfunction) if not name.startswith("_")}
assert methods == {name for name, _ in CALLS} | CARRIERS, methods ^ ({name for name, _ in CALLS} | CARRIERS)

# Somebody listens to everything meanwhile, by file and by port.
seen = [set(), set()]
ready = threading.Barrier(3)


def listen(number):
    session = connect(by_port=number == 1)
    for event in EVENTS:
        session._register_unregister(event, True)
        session._register_unregister(event, False)
    listening = session.listen(EVENTS, timeout=0.2)
    assert next(listening) == (None, None)
    ready.wait(60)
    for name, _ in listening:
        seen[number].add(text(name))
        if {"ike-updown", "child-updown", "child-rekey", "log"} <= seen[number] and done.is_set():
            return


def busy(number, failures):
    """Asks this and that until all is done; each answer is that to its own question."""
    try:
        session = connect(by_port=number % 2 == 1)
        name = "busy-%d" % number
        while not done.is_set():
            session.load_conn({name: CONN["py"]})
            assert [list(entry) for entry in session.list_conns({"ike": name})] == [[name]]
            assert "daemon" in session.version()
            for entry in session.list_sas():
                assert list(entry) == ["site"], entry
            session.unload_conn({"name": name})
            counts[number] += 1
    except Exception as error:
        failures.append(error)


done = threading.Event()
failures, counts = [], [0] * 6
listeners = [threading.Thread(target=listen, args=(number,), daemon=True) for number in range(2)]
others = [threading.Thread(target=busy, args=(number, failures), daemon=True) for number in range(6)]
for thread in listeners:
    thread.start()
ready.wait(60)
for thread in others:
    thread.start()
session = connect(by_port=True)
for name, call in CALLS:
    try:
        call(session)
    except Exception as error:
        raise AssertionError("%s: %r" % (name, error)) from error
done.set()
for thread in others + listeners:
    thread.join(60)
    assert not thread.is_alive(), (seen, counts)
assert not failures, failures
assert all(count > 2 for count in counts), counts
print("all methods done; rounds of the others: %s" % counts)
