//! Commands that go on until they are interrupted, or until nobody is there any more.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixListener;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};

use swanctl_compat::vici::{Message, Packet, frame};

use crate::daemon::{Daemon, Script};
use crate::pipes::unread_pipe;

fn following(arguments: &[&str], uri: &str, output: impl Into<Stdio>) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_swanctl"));
    command.args(arguments).args(["--uri", uri]);
    command.stdin(Stdio::null()).stdout(output).stderr(Stdio::piped()).spawn().unwrap()
}

/// A daemon that has so much to tell, and then nothing more.
fn telling(lines: usize) -> Script {
    let line = Message::new().with("group", "IKE").with("thread", "5").with("msg", "one\ntwo");
    Script::default().streams("register", "log", vec![line; lines])
}

/// Each event is out as soon as it is in, also into a pipe; an interruption is a good end.
#[test]
fn followed_events_are_flushed_and_an_interruption_ends_well() {
    for signal in ["-INT", "-TERM"] {
        let daemon = Daemon::start(telling(1));
        let mut child = following(&["--log"], &daemon.uri(), Stdio::piped());
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert_eq!(lines.next().unwrap().unwrap(), "05[IKE] one");
        assert_eq!(lines.next().unwrap().unwrap(), "05[IKE] two");
        assert!(Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap().success());
        let status = child.wait().unwrap();
        assert_eq!((status.code(), status.signal()), (Some(0), None), "{signal}");
        assert!(lines.next().is_none());
    }
}

/// A monitor that ended well because its daemon died would say that all is quiet.
#[test]
fn that_the_daemon_goes_away_is_a_failure() {
    let path = std::env::temp_dir().join(format!("swanctl-gone-{}.vici", std::process::id()));
    // Left by an earlier process of the same number.
    let _ = std::fs::remove_file(&path);
    let listener = UnixListener::bind(&path).unwrap();
    for (arguments, registrations) in [(&["--log"][..], 1), (&["--monitor-sa"], 2), (&["--monitor-sa", "--json"], 2)] {
        let mut child = following(arguments, &format!("unix://{}", path.display()), Stdio::piped());
        let (mut stream, _) = listener.accept().unwrap();
        for _ in 0..registrations {
            let mut length = [0; 4];
            stream.read_exact(&mut length).unwrap();
            stream.read_exact(&mut vec![0; u32::from_be_bytes(length) as usize]).unwrap();
            stream.write_all(&frame::encode(&Packet::EventConfirm).unwrap()).unwrap();
        }
        drop(stream);
        let mut told = String::new();
        child.stderr.take().unwrap().read_to_string(&mut told).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(1), "{told}");
        assert_eq!(told, "Error: protocol error: the daemon closed the connection\n");
    }
    std::fs::remove_file(&path).unwrap();
}

/// Keys that come faster than they are looked at are all looked at: here many that sort, and one that ends it.
#[test]
fn a_burst_of_keys_is_read_to_its_end() {
    let daemon = Daemon::start(Script::default());
    let line = format!("'{}' --uri {} status --watch --interval 3600", env!("CARGO_BIN_EXE_cygnet"), daemon.uri());
    let mut command = Command::new("script");
    command.args(["--quiet", "--return", "--command", &line, "/dev/null"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let mut keys = child.stdin.take().unwrap();
    keys.write_all(&[&[b's'; 500][..], b"q"].concat()).unwrap();
    let began = std::time::Instant::now();
    let ended = loop {
        match child.try_wait().unwrap() {
            Some(status) => break Some(status),
            None if began.elapsed().as_secs() > 60 => break None,
            None => std::thread::sleep(std::time::Duration::from_millis(20)),
        }
    };
    if ended.is_none() {
        child.kill().unwrap();
    }
    assert_eq!(ended.and_then(|status| status.code()), Some(0));
}

/// `swanctl --log | head -1` ends without complaint.
#[test]
fn a_closed_pipe_ends_it_without_a_word() {
    let daemon = Daemon::start(telling(4_000));
    let mut child = following(&["--log", "--raw"], &daemon.uri(), unread_pipe());
    let mut told = String::new();
    child.stderr.take().unwrap().read_to_string(&mut told).unwrap();
    assert_eq!((child.wait().unwrap().code(), told.as_str()), (Some(141), ""));
}
