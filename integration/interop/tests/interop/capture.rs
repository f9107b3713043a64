//! `cygnet capture`: one file with both sides of every packet, which programs that nobody here wrote can read, and decrypt with the keys beside it.

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use lab::peer::charon::TalkativeCharon;
use lab::peer::conf::Tunnel;
use lab::peer::cygnet::Cygnet;
use lab::peer::{Daemon, binary};
use lab::topology::{Family, Lab, Middle, Side};
use lab::traffic::{bulk, ping};
use libtest_mimic::Trial;
use rustix::process::{Pid, Signal, kill_process};
use swanctl_compat::vici::{Message, Packet};

use crate::harness::{Pair, Ported, SOON, trial, with_pair};
use crate::life;
use crate::recorder::{Line, answer_of, event_of};

const CHILD: &str = "net4";
/// Pings in each part of the capture.
const PINGS: u16 = 5;
/// What a stalled capture may cost the daemon: its queue and what is on the way to the client, twice.
const GROWTH: u64 = 32 << 20;

pub(crate) fn trials() -> Vec<Trial> {
    let leave = "[debug]\nexport_keys = true\n";
    let with_keys = move |middle: Middle, suite: (&'static str, &'static str)| {
        let cygnet = Cygnet { extra: leave.into(), log: String::new() };
        let is_behind_nat = middle == Middle::NatBeforeA;
        let change = move |side, mut tunnel: Tunnel| {
            if is_behind_nat && side == Side::B {
                tunnel.remote = "%any".into();
            }
            tunnel.proposals = suite.0.into();
            tunnel.children.retain(|child| child.name == CHILD);
            tunnel.children.iter_mut().for_each(|child| child.esp_proposals = suite.1.into());
            tunnel
        };
        with_pair(&middle, [&cygnet, &TalkativeCharon], change, decrypted_by_tshark)
    };
    vec![
        trial("capture::tshark_decrypts_esp_and_ike_over_rekeys", move || {
            with_keys(Middle::Direct, ("aes128gcm16-prfsha256-x25519", "aes128gcm16-x25519"))
        }),
        trial("capture::tshark_decrypts_through_nat_with_other_algorithms", move || {
            with_keys(Middle::NatBeforeA, ("aes256-sha256-prfsha256-x25519", "aes256gcm16"))
        }),
        trial("capture::keys_need_leave_and_a_private_place", || {
            with_pair(&Middle::Direct, [&Cygnet::default(), &Cygnet::default()], |_, tunnel| tunnel, refused)
        }),
        trial("capture::keys_are_not_given_out_over_the_network", not_over_the_network),
        trial("capture::a_stalled_reader_loses_packets_and_nobody_else_does", || {
            with_pair(&Middle::Direct, [&Cygnet::default(), &Cygnet::default()], |_, tunnel| tunnel, stalled)
        }),
    ]
}

/// A capture that runs.
struct Running(Child);

impl Running {
    /// Starts it and waits until it captures.
    fn start(daemon: &Daemon<'_>, arguments: &[&str]) -> Result<Self> {
        let mut command = Command::new(binary("cygnet")?);
        command.arg("--uri").arg(daemon.uri()).arg("capture").args(arguments).arg("--json");
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let running = Self(child);
        let began = |log: String| log.contains("packets are captured");
        ensure!(lab::process::wait_until(SOON, || began(daemon.log())), "it does not begin:\n{}", daemon.log_tail(20));
        Ok(running)
    }

    /// Interrupts it as Ctrl-C does; gives its summary.
    fn interrupt(self) -> Result<serde_json::Value> {
        let id = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw).context("a process")?;
        kill_process(id, Signal::INT)?;
        let output = self.0.wait_with_output()?;
        ensure!(output.status.success(), "{output:?}");
        serde_json::from_slice(&output.stdout).with_context(|| String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

fn ping(lab: &Lab, pings: u16) -> Result<()> {
    let (source, target) = (lab.a.host_address(Family::V4), lab.b.host_address(Family::V4));
    let answered = ping::ping(&lab.a.host, source, target, pings, SOON)?;
    ensure!(answered == pings, "{answered} of {pings} pings answered");
    Ok(())
}

fn decrypted_by_tshark(lab: &Lab, pair: &mut Pair<'_>) -> Result<()> {
    let (file, keys) = (lab.directory().join("site.pcapng"), lab.directory().join("keys"));
    let (path, directory) = (text(&file)?, text(&keys)?);
    let running = Running::start(&pair.a, &["site", "-w", path, "--keys", directory])?;
    pair.a.swanctl(&["--initiate", "--child", CHILD, "--timeout", "30"])?;
    ping(lab, PINGS)?;
    life::rekey_child(pair, Side::A, CHILD)?;
    ping(lab, PINGS)?;
    life::rekey_child(pair, Side::B, CHILD)?;
    ping(lab, PINGS)?;
    life::rekey_ike_with(pair, Side::A, &[CHILD])?;
    ping(lab, PINGS)?;
    let carried = totals(&pair.a)?;
    let summary = running.interrupt()?;
    let count =
        |side: &str, what: &str| summary.get(side).and_then(|side| side.get(what)?.as_u64()).unwrap_or(u64::MAX);
    ensure!(summary.get("ended").and_then(|ended| ended.as_str()) == Some("signal"), "{summary}");
    ensure!((count("inner", "lost"), count("outer", "lost")) == (0, 0), "{summary}");
    ensure!(count("inner", "packets") == carried.0 + carried.1, "the SAs count {carried:?}: {summary}");
    ensure!(mode(&file)? == 0o600, "mode {:o}", mode(&file)?);

    let seen = interfaces(&file, None)?;
    let number =
        |interface: &str, protocol: &str| seen.get(&(interface.to_owned(), protocol.to_owned())).copied().unwrap_or(0);
    let inner = number("inner", "ICMP");
    ensure!(
        inner == u64::from(PINGS) * 8 && inner == carried.0 + carried.1,
        "{inner} inner packets, {carried:?}: {seen:?}"
    );
    ensure!(number("outer", "ESP") == inner, "each inner packet has its outer one: {seen:?}");
    ensure!(number("outer", "ISAKMP") == count("outer", "packets") - inner, "and the rest is IKE: {seen:?}");
    let generations = lines(&file, None, &["-T", "fields", "-e", "frame.comment", "-Y", "icmp"])?;
    for generation in 0..3 {
        let of = generations.iter().filter(|line| line.contains(&format!("generation {generation}, SPI "))).count();
        ensure!(of >= usize::from(PINGS) * 2, "generation {generation}: {generations:?}");
    }
    both_ways(&file)?;

    let opened = interfaces(&file, Some(&keys))?;
    let icmp = opened.get(&("outer".to_owned(), "ICMP".to_owned())).copied().unwrap_or(0);
    ensure!(icmp == inner, "with the keys {icmp} of {inner} ESP packets are opened: {opened:?}");
    let auth = lines(&file, Some(&keys), &["-Y", "isakmp.exchangetype == 35 && isakmp.typepayload == 39"])?;
    ensure!(auth.len() == 2, "AUTH is seen in {auth:?}");
    ensure!(lines(&file, None, &["-Y", "isakmp.typepayload == 39"])?.is_empty(), "without keys nobody sees it");
    // CREATE_CHILD_SA of both kinds of rekeying, and what follows with the new keys.
    let rekeys = lines(&file, Some(&keys), &["-Y", "isakmp.exchangetype == 36 && isakmp.typepayload == 33"])?;
    ensure!(rekeys.len() >= 6, "SA payloads are seen in {rekeys:?}");
    for table in ["esp_sa", "ikev2_decryption_table"] {
        ensure!(mode(&keys.join(table))? == 0o600, "{table} has the mode {:o}", mode(&keys.join(table))?);
    }
    told(pair)
}

/// Packets that the child's SAs have carried over all generations, in and out.
fn totals(daemon: &Daemon<'_>) -> Result<(u64, u64)> {
    let text = daemon.swanctl(&["--list-sas", "--raw"])?;
    let of = |key: &str| {
        let all = text.split(key).skip(1).filter_map(|rest| rest.split([' ', '}']).next()?.parse::<u64>().ok());
        // Generations that linger know fewer.
        all.max().with_context(|| format!("{key} in {text}"))
    };
    Ok((of("packets-total-in=")?, of("packets-total-out=")?))
}

/// Directions as pcapng has them: each ping goes out and its answer comes in, on both interfaces.
fn both_ways(file: &Path) -> Result<()> {
    for filter in ["icmp", "esp"] {
        let ways = lines(file, None, &["-Y", filter, "-T", "fields", "-e", "frame.packet_flags_direction"])?;
        let inbound = ways.iter().filter(|way| way.trim_start_matches("0x").trim_start_matches('0') == "1").count();
        ensure!(inbound * 2 == ways.len() && inbound > 0, "{filter}: {ways:?}");
    }
    Ok(())
}

/// Each export is in the log and among the events, with who has the keys, and without a key.
fn told(pair: &Pair<'_>) -> Result<()> {
    let output = pair.a.cygnet(&["events", "--json", "--event", "keys.exported"])?;
    let events = String::from_utf8_lossy(&output.stdout);
    let exported = |protocol: &str| {
        let lines = events.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        let sas = lines
            .filter_map(|event| event.get("sas").cloned())
            .flat_map(|sas| sas.as_array().cloned().unwrap_or_default());
        sas.filter(|sa| sa.get("protocol").and_then(|p| p.as_str()) == Some(protocol)).count()
    };
    ensure!((exported("ike"), exported("esp")) == (2, 6), "{events}");
    ensure!(events.contains("\"uid\":") && events.contains("\"pid\":"), "{events}");
    ensure!(pair.a.log().contains("keys of site were given to a VICI client (pid "), "{}", pair.a.log_tail(30));
    let doctor = pair.a.cygnet(&["doctor"])?;
    ensure!(String::from_utf8_lossy(&doctor.stdout).contains("debug.export_keys"), "{doctor:?}");
    ensure!(pair.a.log().contains("debug.export_keys is on"), "no warning at the start");
    Ok(())
}

/// How many packets tshark sees of each protocol on each interface.
fn interfaces(file: &Path, keys: Option<&Path>) -> Result<BTreeMap<(String, String), u64>> {
    let fields = ["-T", "fields", "-e", "frame.interface_name", "-e", "_ws.col.Protocol"];
    let mut seen = BTreeMap::new();
    for line in lines(file, keys, &fields)? {
        let (interface, protocol) = line.split_once('\t').with_context(|| line.clone())?;
        *seen.entry((interface.to_owned(), protocol.to_owned())).or_default() += 1;
    }
    Ok(seen)
}

/// What tshark says of a file.
fn lines(file: &Path, keys: Option<&Path>, arguments: &[&str]) -> Result<Vec<String>> {
    let mut command = Command::new("tshark");
    command.args(["-n", "-r"]).arg(file).args(arguments);
    if let Some(keys) = keys {
        command.env("WIRESHARK_CONFIG_DIR", keys).args(["-o", "esp.enable_encryption_decode:TRUE"]);
    }
    let Output { status, stdout, stderr } = command.output().context("tshark is missing: cargo xtask setup")?;
    let errors = String::from_utf8_lossy(&stderr);
    ensure!(status.success() && !errors.contains("UAT"), "{errors}");
    Ok(String::from_utf8_lossy(&stdout).lines().map(str::to_owned).collect())
}

fn refused(lab: &Lab, pair: &mut Pair<'_>) -> Result<()> {
    let file = lab.directory().join("none.pcapng");
    fs::write(&file, "precious")?;
    let path = text(&file)?;
    let open = lab.directory().join("open");
    fs::create_dir(&open)?;
    fs::set_permissions(&open, fs::Permissions::from_mode(0o777))?;
    let keys = lab.directory().join("keys");
    let cases: [(&[&str], &str); 4] = [
        (&["site", "-w", path, "--keys", text(&keys)?], "set export_keys = true in the table [debug]"),
        (&["site", "-w", path, "--keys", text(&open)?], "is writable by everybody"),
        (&["nowhere", "-w", path], "IKE_SA config 'nowhere' not found"),
        (&["site", "-w", path, "--child", "none"], "CHILD_SA config 'none' not found"),
    ];
    for (arguments, reason) in cases {
        let output = pair.a.cygnet(&[&["capture"], arguments].concat())?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.code() == Some(2) && said.contains(reason), "{arguments:?}: {output:?}");
    }
    ensure!(fs::read_to_string(&file)? == "precious", "what is refused overwrites nothing");
    // Limits, a pipe, and a child whose connection's IKE messages are left out.
    life::establish(pair, Side::A)?;
    let pings = || ping(lab, 10);
    let piped = Command::new(binary("cygnet")?)
        .arg("--uri")
        .arg(pair.a.uri())
        .args(["capture", "site", "--child", CHILD, "--packets", "8", "-w", "-"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    ensure!(lab::process::wait_until(SOON, || pair.a.log().contains("packets are captured")), "it does not begin");
    pings()?;
    let output = piped.wait_with_output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(said.contains("8 packets (4 inner, 4 outer), 0 lost") && said.contains("its number of packets"), "{said}");
    fs::write(&file, &output.stdout)?;
    let seen = interfaces(&file, None)?;
    ensure!(seen.values().sum::<u64>() == 8 && seen.keys().all(|(_, protocol)| protocol != "ISAKMP"), "{seen:?}");
    let output = pair.a.cygnet(&["capture", "site", "-w", path, "--duration", "1s"])?;
    ensure!(String::from_utf8_lossy(&output.stdout).contains("ended by its duration"), "{output:?}");
    Ok(())
}

/// Leave or not: who comes by a port is nobody that the system knows. By the socket the same request begins.
fn not_over_the_network() -> Result<()> {
    let lab = Lab::new(&Middle::Direct)?;
    let peer = Ported { more: "[debug]\nexport_keys = true" };
    let tunnel = Tunnel::between(&lab, Side::A, Family::V4);
    let daemon = Daemon::start(&peer, &lab.a.gateway, &lab.directory().join("a"), &[tunnel])?;
    let by_port = lab.a.gateway.run(|| TcpStream::connect(("127.0.0.1", Ported::PORT)))??;
    let lines = [OwnedFd::from(by_port).into(), UnixStream::connect(daemon.socket())?].map(Line::new);
    for (line, is_port) in lines.into_iter().zip([true, false]) {
        let mut line = line?;
        for event in ["cygnet-capture", "cygnet-packets", "cygnet-keys"] {
            line.ask(&Packet::EventRegister(event.into()))?;
        }
        line.say(&Packet::CmdRequest("cygnet-capture".into(), Message::new().with("ike", "site").with("keys", "yes")))?;
        let packet = Packet::decode(&line.next()?.context("the daemon has gone")?)?;
        let refusal = answer_of(&packet).and_then(|answer| answer.get_str("errmsg"));
        match is_port {
            true => ensure!(refusal.is_some_and(|why| why.contains("over the Unix socket only")), "{packet:?}"),
            false => ensure!(event_of(&packet).is_some_and(|(name, _)| name == "cygnet-capture"), "{packet:?}"),
        }
    }
    // Without keys a capture may go over the network.
    let file = lab.directory().join("site.pcapng");
    let uri = format!("tcp://127.0.0.1:{}", Ported::PORT);
    let capture = |more: &[&str]| {
        let program = binary("cygnet")?;
        let arguments = ["--uri", &uri, "capture", "site", "-w", text(&file)?, "--duration", "1s"];
        lab.a.gateway.run(|| Command::new(program).args(arguments).args(more).output())?.map_err(anyhow::Error::from)
    };
    let keys = lab.directory().join("keys");
    let refused = capture(&["--keys", text(&keys)?])?;
    ensure!(refused.status.code() == Some(2) && !file.exists(), "{refused:?}");
    ensure!(String::from_utf8_lossy(&refused.stderr).contains("over the Unix socket only"), "{refused:?}");
    ensure!(fs::read_dir(&keys).map_or(0, Iterator::count) == 0, "a table of keys was begun");
    let allowed = capture(&[])?;
    ensure!(allowed.status.success() && file.exists(), "{allowed:?}");
    Ok(())
}

/// A client that asks for packets and reads none, while as much as possible is carried.
fn stalled(lab: &Lab, pair: &mut Pair<'_>) -> Result<()> {
    life::establish(pair, Side::A)?;
    let before = (resident(pair.a.process().id())?, totals_of_all(&pair.a)?);
    let mut line = Line::new(UnixStream::connect(pair.a.socket())?)?;
    for event in ["cygnet-capture", "cygnet-packets"] {
        line.ask(&Packet::EventRegister(event.into()))?;
    }
    let request = Message::new().with("ike", "site").with("child", CHILD);
    line.say(&Packet::CmdRequest("cygnet-capture".into(), request))?;
    ensure!(lab::process::wait_until(SOON, || pair.a.log().contains("packets are captured")), "it does not begin");
    let transfer = bulk::transfer(&lab.a, &lab.b, Family::V4, 64 << 20)?;
    let streams = life::streams(lab)?;
    std::thread::sleep(Duration::from_millis(500));
    let sent = life::all_arrived(streams)?;
    let grown = resident(pair.a.process().id())?.saturating_sub(before.0);
    let mut other = pair.a.vici()?;
    let mut seen = Read::default();
    // The first event says which capture it is; from then on everything is read.
    while seen.id.is_none() {
        seen.packet(&line.next()?.context("the daemon has gone")?)?;
    }
    let id = seen.id.clone().unwrap_or_default();
    other.command("cygnet-capture-stop", Message::new().with("id", id.as_str()), |_, _| Ok(()))?;
    while seen.answer.is_none() {
        seen.packet(&line.next()?.context("the daemon has gone")?)?;
    }
    let carried = totals_of_all(&pair.a)? - before.1;
    let answer = seen.answer.context("an answer")?;
    let number = |key: &str| answer.get_str(key).and_then(|text| text.parse::<u64>().ok()).unwrap_or(u64::MAX);
    let (inner, lost) = (number("packets-inner"), number("lost-inner"));
    println!(
        "{transfer}; {sent} numbered packets in order; inner: {inner} shown, {lost} lost of {carried}; daemon grown by {} KiB",
        grown >> 10
    );
    ensure!(lost > 0 && number("lost-outer") > 0, "nothing was lost: {answer:?}");
    ensure!(
        seen.inner == inner && inner + lost == carried,
        "{} read, {inner} told, {lost} lost, {carried} carried",
        seen.inner
    );
    ensure!(grown < GROWTH, "the daemon has grown by {grown} octets");
    Ok(())
}

/// What came to a client.
#[derive(Default)]
struct Read {
    id: Option<String>,
    inner: u64,
    answer: Option<Message>,
}

impl Read {
    fn packet(&mut self, octets: &[u8]) -> Result<()> {
        let packet = Packet::decode(octets)?;
        match (answer_of(&packet), event_of(&packet)) {
            (Some(answer), _) => self.answer = Some(answer.clone()),
            (None, Some(("cygnet-capture", head))) => self.id = head.get_str("id").map(str::to_owned),
            (None, Some(("cygnet-packets", packets))) => {
                let inner = packets.sections().filter(|(_, packet)| packet.get_str("side") == Some("inner"));
                self.inner += inner.count() as u64;
            }
            (None, _) => bail!("not expected: {packet:?}"),
        }
        Ok(())
    }
}

/// Packets that the SAs of the child carry now, both ways.
fn totals_of_all(daemon: &Daemon<'_>) -> Result<u64> {
    let sas = daemon.sas_at_once()?;
    let children = sas.iter().flat_map(|sa| &sa.children).filter(|child| child.name == CHILD);
    Ok(children.map(|child| child.packets_in + child.packets_out).sum())
}

fn resident(id: u32) -> Result<u64> {
    let text = fs::read_to_string(format!("/proc/{id}/status"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
    let kib: u64 = line.trim().trim_end_matches(" kB").trim().parse()?;
    Ok(kib * 1024)
}

fn mode(path: &Path) -> Result<u32> {
    Ok(fs::metadata(path)?.permissions().mode() & 0o777)
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().context("a path in UTF-8")
}
