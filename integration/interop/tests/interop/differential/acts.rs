//! The table: commands about SAs, one after the other, and what there is after each.

use lab::topology::{Lab, Side};
use swanctl_compat::vici::Message;

use super::live::{load_conn, scene, silent};

/// One command.
pub(super) struct Act {
    pub(super) name: &'static str,
    pub(super) command: &'static str,
    pub(super) request: fn(&Lab) -> Message,
    /// SAs and policies that are there then, as `connection[child child]`; behind a slash what there is of Cygnet where that is something else.
    pub(super) leaves: &'static str,
}

/// A command and what it is given.
type Request = (&'static str, fn() -> Message);

/// Commands of several clients while the peer does not answer, and what there is once it does.
pub(super) struct Together {
    pub(super) name: &'static str,
    pub(super) commands: &'static [Request],
    pub(super) leaves: &'static str,
}

const fn act(name: &'static str, command: &'static str, request: fn(&Lab) -> Message, leaves: &'static str) -> Act {
    Act { name, command, request, leaves }
}

fn child(name: &str) -> Message {
    Message::new().with("child", name)
}

fn ike(name: &str) -> Message {
    Message::new().with("ike", name)
}

/// Limited in time: nothing here waits for ever.
fn soon(message: Message) -> Message {
    message.with("timeout", "10000")
}

fn briefly(message: Message) -> Message {
    message.with("timeout", "300")
}

const NONE: &str = "";
const ALONE: &str = "site[]";
const NET4: &str = "site[net4]";
const BOTH: &str = "site[net4 net6]";

pub(super) const ACTS: &[Act] = &[
    act("load-conn of one that does not answer", "load-conn", |lab| load_conn(&silent(lab)), NONE),
    act("initiate an ike alone", "initiate", |_| soon(ike("site")), ALONE),
    act("initiate an ike that is up", "initiate", |_| briefly(ike("site")), ALONE),
    act("initiate a child", "initiate", |_| soon(child("net4")), NET4),
    act("initiate a child that is up", "initiate", |_| soon(child("net4")), NET4),
    act("initiate a child that is up, at once", "initiate", |_| child("net4").with("timeout", "-1"), NET4),
    act("initiate a child of another ike", "initiate", |_| soon(child("net4").with("ike", "silent")), NET4),
    act("initiate an unknown child of an ike", "initiate", |_| soon(child("nothing").with("ike", "site")), NET4),
    act("initiate a child of an unknown ike", "initiate", |_| soon(child("net4").with("ike", "nothing")), NET4),
    act("initiate an ike by the name of a child", "initiate", |_| soon(ike("net4")), NET4),
    act("initiate with limits", "initiate", |_| soon(child("net6")).with("init-limits", "yes"), BOTH),
    act("initiate without a log", "initiate", |_| soon(child("net6")).with("loglevel", "-1"), BOTH),
    act("terminate a child that is not up", "terminate", |_| soon(child("quiet")), BOTH),
    act("terminate a child of another ike", "terminate", |_| soon(child("net4").with("ike", "silent")), BOTH),
    act("terminate an ike that is not up", "terminate", |_| soon(ike("silent")), BOTH),
    act("terminate an ike by number", "terminate", |_| soon(Message::new().with("ike-id", "4711")), BOTH),
    act("terminate a child by number", "terminate", |_| soon(Message::new().with("child-id", "4711")), BOTH),
    act("terminate number zero", "terminate", |_| soon(Message::new().with("ike-id", "0")), BOTH),
    act("terminate a number that is none", "terminate", |_| soon(Message::new().with("ike-id", "x")), BOTH),
    act("terminate by force what is not there", "terminate", |_| soon(ike("silent")).with("force", "yes"), BOTH),
    act("terminate a child", "terminate", |_| soon(child("net6")), NET4),
    act("terminate it again", "terminate", |_| soon(child("net6")), NET4),
    act("initiate it again", "initiate", |_| soon(child("net6")), BOTH),
    act("terminate a child by force", "terminate", |_| soon(child("net6")).with("force", "yes"), NET4),
    act("rekey a child afresh", "rekey", |_| child("net4").with("reauth", "yes"), NET4),
    act("rekey a child that is not up", "rekey", |_| child("net6"), NET4),
    act("rekey a child of another ike", "rekey", |_| child("net4").with("ike", "silent"), NET4),
    act("rekey an ike that is not up", "rekey", |_| ike("silent"), NET4),
    act("rekey number zero", "rekey", |_| Message::new().with("child-id", "0"), NET4),
    act("rekey afresh without a name", "rekey", |_| Message::new().with("reauth", "yes"), NET4),
    act("redirect", "redirect", |_| ike("silent").with("gateway", "192.0.2.77"), NET4),
    act(
        "redirect a stranger",
        "redirect",
        |_| Message::new().with("peer-id", "*.example.org").with("gateway", "192.0.2.77"),
        NET4,
    ),
    act(
        "redirect other addresses",
        "redirect",
        |_| Message::new().with("peer-ip", "198.51.100.0/24").with("gateway", "192.0.2.77"),
        NET4,
    ),
    act("redirect without a place to go", "redirect", |_| ike("site").with("gateway", ""), NET4),
    act("install a trap", "install", |_| child("quiet"), "policy silent/quiet, site[net4]"),
    act("install it again", "install", |_| child("quiet"), "policy silent/quiet, site[net4]"),
    act(
        "install it below another ike",
        "install",
        |_| child("quiet").with("ike", "site"),
        "policy silent/quiet, site[net4]",
    ),
    act(
        "uninstall it below another ike",
        "uninstall",
        |_| child("quiet").with("ike", "site"),
        "policy silent/quiet, site[net4]",
    ),
    act("uninstall it", "uninstall", |_| child("quiet").with("ike", "silent"), NET4),
    act("uninstall it again", "uninstall", |_| child("quiet"), NET4),
    act("install what is up", "install", |_| child("net4"), "policy site/net4, site[net4]"),
    act("uninstall what is up", "uninstall", |_| child("net4"), NET4),
    act("initiate what does not answer", "initiate", |_| briefly(child("quiet")), "silent:CONNECTING[], site[net4]"),
    act(
        "initiate it while it is on its way",
        "initiate",
        |_| briefly(child("quiet")),
        "silent:CONNECTING[], site[net4]",
    ),
    act(
        "initiate its ike while it is on its way",
        "initiate",
        |_| briefly(ike("silent")),
        "silent:CONNECTING[], site[net4]",
    ),
    act(
        "initiate it and do not wait",
        "initiate",
        |_| child("quiet").with("timeout", "-1"),
        "silent:CONNECTING[], site[net4]",
    ),
    act("rekey it while it is on its way", "rekey", |_| ike("silent"), "silent:CONNECTING[], site[net4]"),
    act(
        "terminate its child while it is on its way",
        "terminate",
        |_| soon(child("quiet")),
        "silent:CONNECTING[], site[net4]",
    ),
    act("terminate it while it is on its way", "terminate", |_| soon(ike("silent")), NET4),
    act("unload one that has nothing", "unload-conn", |_| Message::new().with("name", "silent"), NET4),
    act("initiate a child that was unloaded", "initiate", |_| soon(child("quiet")), NET4),
    act("flush-certs", "flush-certs", |_| Message::new().with("type", "x509"), NET4),
    act("flush-certs of no type", "flush-certs", |_| Message::new().with("type", "bogus"), NET4),
    act("load-shared", "load-shared", |_| shared("x", "first"), NET4),
    act("load-shared of the same id", "load-shared", |_| shared("x", "second"), NET4),
    act("load-shared without an id", "load-shared", |_| shared("", "third"), NET4),
    act("load-shared without an id again", "load-shared", |_| shared("", "fourth"), NET4),
    act("get-shared", "get-shared", |_| Message::new(), NET4),
    act("unload-shared", "unload-shared", |_| Message::new().with("id", "x"), NET4),
    act("unload-shared again", "unload-shared", |_| Message::new().with("id", "x"), NET4),
    act("unload-shared of an empty id", "unload-shared", |_| Message::new().with("id", ""), NET4),
    act("get-shared then", "get-shared", |_| Message::new(), NET4),
    act("get-counters of one that is gone", "get-counters", |_| Message::new().with("name", "silent"), NET4),
    act("reset-counters of all", "reset-counters", |_| Message::new().with("all", "yes"), NET4),
    act("get-counters after that", "get-counters", |_| Message::new().with("all", "yes"), NET4),
    act("reset-counters of one", "reset-counters", |_| Message::new().with("name", "site"), NET4),
    act("get-counters of one", "get-counters", |_| Message::new().with("name", "site"), NET4),
    act("load-conn again with SAs", "load-conn", |lab| load_conn(&scene(lab, Side::A)), NET4),
    act(
        "load-conn with other lifetimes",
        "load-conn",
        |lab| {
            let mut tunnel = scene(lab, Side::A).with_child_option("rekey_time = 30m");
            tunnel.options.push("rekey_time = 1h".to_owned());
            load_conn(&tunnel)
        },
        NET4,
    ),
    act(
        "load-conn without the child that is up",
        "load-conn",
        |lab| {
            let mut tunnel = scene(lab, Side::A);
            tunnel.children.retain(|child| child.name == "net6");
            load_conn(&tunnel)
        },
        NET4,
    ),
    act("rekey the child that is not configured", "rekey", |_| child("net4"), NET4),
    act("initiate the child that is not configured", "initiate", |_| soon(child("net4")), NET4),
    act("load-conn with the child again", "load-conn", |lab| load_conn(&scene(lab, Side::A)), NET4),
    act("initiate it, which was up all the time", "initiate", |_| soon(child("net4")), NET4),
    act(
        "load-conn with another child of that name",
        "load-conn",
        |lab| {
            let mut tunnel = scene(lab, Side::A);
            tunnel.children.iter_mut().for_each(|child| child.options.push("replay_window = 64".to_owned()));
            load_conn(&tunnel)
        },
        NET4,
    ),
    act("initiate a child that was changed", "initiate", |_| soon(child("net4")), "site[net4 net4] / site[net4]"),
    act("terminate it as it was and as it is", "terminate", |_| soon(ike("site")), NONE),
    act("load-conn with the first child", "load-conn", |lab| load_conn(&scene(lab, Side::A)), NONE),
    act("initiate that", "initiate", |_| soon(child("net4")), NET4),
    act(
        "load-conn of another peer",
        "load-conn",
        |lab| {
            let mut tunnel = scene(lab, Side::A);
            tunnel.remote_id = "other.example".into();
            load_conn(&tunnel)
        },
        NET4,
    ),
    act("load-conn of the peer again", "load-conn", |lab| load_conn(&scene(lab, Side::A)), NET4),
    act("unload-conn with SAs", "unload-conn", |_| Message::new().with("name", "site"), NET4),
    act("rekey a child of what was unloaded", "rekey", |_| child("net4"), NET4),
    act("rekey an ike that was unloaded", "rekey", |_| ike("site"), NET4),
    act("initiate a child of what was unloaded", "initiate", |_| soon(child("net4")), NET4),
    act("terminate what was unloaded", "terminate", |_| soon(ike("site")), NONE),
    act("load-conn with a start action", "load-conn", |lab| load_conn(&started(lab)), NET4),
    act("load-conn of the same", "load-conn", |lab| load_conn(&started(lab)), NET4),
    act("load-conn without a start action", "load-conn", |lab| load_conn(&scene(lab, Side::A)), " / site[]"),
    act("load-conn with the start action again", "load-conn", |lab| load_conn(&started(lab)), NET4),
    act("terminate what was started", "terminate", |_| soon(child("net4")), ALONE),
    act("initiate what was started", "initiate", |_| soon(child("net4")), NET4),
    act("unload-conn of what was started", "unload-conn", |_| Message::new().with("name", "site"), NONE),
    act("load-conn with a trap", "load-conn", |lab| load_conn(&trapped(lab)), "policy site/net4, policy site/net6"),
    act(
        "initiate a trapped child",
        "initiate",
        |_| soon(child("net4")),
        "policy site/net4, policy site/net6, site[net4]",
    ),
    act(
        "load-conn with the same trap",
        "load-conn",
        |lab| load_conn(&trapped(lab)),
        "policy site/net4, policy site/net6, site[net4]",
    ),
    act("load-conn without a trap", "load-conn", |lab| load_conn(&scene(lab, Side::A)), NET4),
    act("terminate an ike and do not wait", "terminate", |_| ike("site").with("timeout", "-1"), NONE),
];

pub(super) const TOGETHER: &[Together] = &[Together {
    name: "one child twice at once",
    commands: &[("initiate", || soon(child("net4"))), ("initiate", || soon(child("net4")))],
    leaves: NET4,
}];

fn shared(id: &str, secret: &str) -> Message {
    let mut message = Message::new().with("id", id).with("type", "IKE").with("data", secret);
    message.list("owners", ["x.example"]);
    message
}

fn started(lab: &Lab) -> lab::peer::conf::Tunnel {
    let mut tunnel = scene(lab, Side::A);
    tunnel.children.truncate(1);
    tunnel.with_child_option("start_action = start")
}

fn trapped(lab: &Lab) -> lab::peer::conf::Tunnel {
    scene(lab, Side::A).with_child_option("start_action = trap")
}
