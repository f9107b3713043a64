//! Command lines: the same arguments to Debian's `swanctl` and to ours end with the same code, say the same kind of thing, and ask the daemon the
//! same, octet by octet. Where ours is meant to do otherwise, the reason stands beside it.

use std::process::{Command, Output};

use anyhow::{Result, ensure};
use lab::peer::binary;
use libtest_mimic::Trial;
use swanctl_compat::vici::{Message, Packet};

use crate::differential::debian_swanctl;
use crate::harness::trial;
use crate::recorder::{Behind, Line, Recorder, request_of};

pub(crate) fn trials() -> Vec<Trial> {
    vec![trial("tool::the_same_arguments_end_the_same", the_same_arguments_end_the_same)]
}

/// What is compared.
enum Compare {
    /// Exit code, kind of words, and every request.
    All,
    /// Exit code and kind of words: nobody is asked, or cannot be.
    Ending,
    /// Ours ends with this code, for this reason.
    Otherwise(i32, &'static str),
}

use Compare::{All, Ending, Otherwise};

const LATER_RAW: &str = "5.9.8 loses what is joined to a command's letter";
const NUMBER: &str = "a timeout that is no number would wait for ever";
const NOWHERE: &str = "5.9.8 ends with whatever error the system had before";
const OFFLINE: &str = "the version of the program needs no daemon";

/// Command lines; `@` stands for the URI of the daemon, `%` for the directory of the test.
const LINES: [(&str, Compare); 62] = [
    ("", Ending),
    ("--help", Ending),
    ("-h", Ending),
    ("--bogus", Ending),
    ("-Z", Ending),
    ("stats", Ending),
    ("--list", Ending),
    ("--load --uri @", Ending),
    ("--list-sas --bogus --uri @", Ending),
    ("--list-sas -Z --uri @", Ending),
    ("--list-sas --list-conns --uri @", Ending),
    ("--stats --raw=1 --uri @", Ending),
    ("--terminate --c 3 --uri @", Ending),
    ("--stats --uri unix:///nowhere/vici", Ending),
    ("--stats --uri tcp://127.0.0.1:1", Ending),
    ("--stats --uri nonsense", Otherwise(2, NOWHERE)),
    ("--stats --options /nowhere/file --uri @", Ending),
    ("--list-sas --help --uri @", Ending),
    ("--version --uri unix:///nowhere/vici", Otherwise(0, OFFLINE)),
    ("--initiate --child c --timeout x --uri @", Otherwise(22, NUMBER)),
    ("-lr --uri @", Otherwise(0, LATER_RAW)),
    ("--stats now --uri @", All),
    ("--list-sas --uri @", All),
    ("--list-sas --uri=@", All),
    ("--list-sas -u @", All),
    ("-l -i a -I7 --uri @", All),
    ("--list-sas --ike a --ike b --uri @", All),
    ("--list-sas --ike=a --child b --child-id 4 --noblock --uri @", All),
    ("--list-sas --deb 2 --uri @", All),
    ("--list-sas -v 2 --uri @", All),
    ("--list-sas --options %/options --uri @", All),
    ("--list-sas -+ %/options -u @", All),
    ("--list-pols --uri @", All),
    ("-P -t --child x --uri @", All),
    ("-P -d -p -P --uri @", All),
    ("-L --uri @", All),
    ("-x -t x509 -f ca -s CN=x --uri @", All),
    ("-A -l -n p --uri @", All),
    ("-B -n a --uri @", All),
    ("-g --uri @", All),
    ("-S --raw --uri @", All),
    ("-f -t x509 --uri @", All),
    ("-r --uri @", All),
    ("-C -n site --uri @", All),
    ("-C -a -R --uri @", All),
    ("-v -d --raw --uri @", All),
    ("--initiate --child net --ike site --timeout 3 --uri @", All),
    ("-i -c net -l 2 --uri @", All),
    ("--initiate --child fails --uri @", All),
    ("--initiate --child fails --raw --uri @", All),
    ("--initiate --child fails --pretty --uri @", All),
    ("-t -i x -f -t 5 -l 2 --uri @", All),
    ("--terminate --ike-id 3 --uri @", All),
    ("-t -C 3 --raw --uri @", All),
    ("-R -a -i x --uri @", All),
    ("--rekey --child fails --uri @", All),
    ("-d -i x -g gw.example --uri @", All),
    ("-p -c net --uri @", All),
    ("-u -c net -i ike --uri @", All),
    ("--uninstall --child fails --uri @", All),
    ("--load-all --noprompt --file %/good.conf --uri @", All),
    ("-c -f %/good.conf --pretty --uri @", All),
];

/// A daemon that has nothing; what is about `fails` does.
fn daemon(request: &Packet) -> Vec<Packet> {
    let Some((name, message)) = request_of(request) else { return vec![Packet::EventConfirm] };
    let fails = message.get_str("child") == Some("fails");
    let answer = match name {
        "version" => {
            let pairs =
                [("daemon", "charon"), ("version", "5"), ("sysname", "Linux"), ("release", "6"), ("machine", "m")];
            pairs.iter().fold(Message::new(), |message, (key, value)| message.with(key, *value))
        }
        "stats" => {
            let mut answer = Message::new();
            answer.list("plugins", ["vici"]);
            answer
        }
        "get-conns" | "get-keys" | "get-shared" | "get-authorities" | "get-pools" | "get-algorithms" => Message::new(),
        _ if name.starts_with("list-") => Message::new(),
        _ if fails => Message::new().with("success", "no").with("errmsg", "not here"),
        _ => Message::new().with("success", "yes"),
    };
    vec![Packet::CmdResponse(answer)]
}

/// What kind of words a program ends with.
#[derive(Debug, PartialEq, Eq)]
struct Kind {
    code: Option<i32>,
    /// The help on standard output, or else exactly what is there.
    said: String,
    /// The sort of error.
    told: String,
}

fn kind(output: &Output) -> Kind {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let said = if out.contains("usage:\n") { "usage".to_owned() } else { out.into_owned() };
    // Debian's says much about itself and its surroundings there, and what the system says of a socket is in the exit code.
    let errors = err.lines().filter(|line| line.starts_with("Error: invalid") || line.contains(" failed: not here"));
    Kind { code: output.status.code(), said, told: errors.collect::<Vec<_>>().join("\n") }
}

/// Requests of all clients up to now.
fn requests(recorder: &Recorder, mark: &std::path::Path) -> Result<Vec<Vec<u8>>> {
    let mut line = Line::new(std::os::unix::net::UnixStream::connect(mark)?)?;
    line.ask(&Packet::CmdRequest("mark".to_owned(), Message::new()))?;
    drop(line);
    let mut out = Vec::new();
    loop {
        for exchange in recorder.session()? {
            match request_of(&exchange.request) {
                Some(("mark", _)) => return Ok(out),
                Some(_) | None => out.push(exchange.octets),
            }
        }
    }
}

fn the_same_arguments_end_the_same() -> Result<()> {
    let directory = lab::enter::directory().join("arguments");
    std::fs::create_dir_all(&directory)?;
    std::fs::write(directory.join("options"), "--ike a\n--raw\n")?;
    let good = "connections {\n  site {\n    local {\n      auth = psk\n    }\n    remote {\n      auth = psk\n    }\n  }\n}\n";
    crate::differential::write_private(&directory.join("good.conf"), good)?;
    let socket = directory.join("daemon.vici");
    let recorder = Recorder::start(&socket, Behind::Script(daemon))?;
    let mut wrong = Vec::new();
    for (line, compare) in &LINES {
        let words: Vec<String> = line
            .split_whitespace()
            .map(|word| word.replace('@', &recorder.uri()).replace('%', &directory.display().to_string()))
            .collect();
        let run = |mut command: Command| -> Result<(Kind, Vec<Vec<u8>>)> {
            let output = command.args(&words).output()?;
            Ok((kind(&output), requests(&recorder, &socket)?))
        };
        let (theirs, their_requests) = run(debian_swanctl(&directory)?)?;
        let (ours, mut our_requests) = run(Command::new(binary("swanctl")?))?;
        if line.contains(".conf") {
            // Whom it talks to is asked by ours where it has something to say about the file.
            our_requests.retain(|octets| !octets.ends_with(b"version"));
        }
        let (same, meant) = match compare {
            All => (theirs == ours && their_requests == our_requests && !our_requests.is_empty(), "the same"),
            Ending => (theirs == ours && our_requests.is_empty(), "the same, without a request"),
            // A difference that is none any more should leave the table.
            Otherwise(code, why) => {
                (ours.code == Some(*code) && (theirs != ours || their_requests != our_requests), *why)
            }
        };
        if !same {
            let requests = format!("{their_requests:?} {our_requests:?}");
            wrong.push(format!("`{line}` ({meant}): Debian's {theirs:?}, ours {ours:?}; {requests}"));
        }
    }
    // What stays in the temporary directory harms nobody.
    let _ = std::fs::remove_dir_all(&directory);
    ensure!(wrong.is_empty(), "{} of {} command lines differ:\n{}", wrong.len(), LINES.len(), wrong.join("\n"));
    Ok(())
}
