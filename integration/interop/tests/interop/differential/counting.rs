//! The counters of messages and rekeyings, after each of the same commands given to charon and to Cygnet and to the charon behind them, and after
//! datagrams that are no messages for anybody.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lab::hostile::carrier::{Carrier as _, Udp};
use lab::pair::{Pair, SOON};
use lab::process::wait_until;
use lab::topology::{Family, Lab};
use swanctl_compat::vici::{Message, Packet};

use super::compare::Step;
use crate::recorder::{Line, answer_of, event_of};

/// Nothing is counted any more when nothing was for so long.
const QUIET: Duration = Duration::from_millis(300);

/// A datagram has been looked at by then.
const UNSEEN: Duration = Duration::from_millis(500);

/// What is still under way then is under way for other reasons.
const LONG: Duration = Duration::from_secs(4);

/// Everything that was counted of a life that begins and ends here.
pub(super) fn steps(lab: &Lab, pair: &Pair<'_>) -> Result<Vec<Step>> {
    let mut count = Count {
        ours: Line::new(std::os::unix::net::UnixStream::connect(pair.a.socket())?)?,
        theirs: Line::new(std::os::unix::net::UnixStream::connect(pair.b.socket())?)?,
        out: Vec::new(),
    };
    for line in [&mut count.ours, &mut count.theirs] {
        line.ask(&Packet::EventRegister("list-sa".to_owned()))?;
    }
    count.take("none of an unknown connection", Some(("name", "nothing")))?;
    count.take("before anything is reset", None)?;
    count.reset()?;
    let child = || Message::new().with("child", "net4");
    let ike = || Message::new().with("ike", "site");
    count.after("initiate", true, "initiate", child().with("timeout", "30000"))?;
    count.after("rekey the child", true, "rekey", child())?;
    count.after("rekey the child from behind", false, "rekey", child())?;
    count.after("rekey the IKE SA", true, "rekey", ike())?;
    count.after("rekey the IKE SA from behind", false, "rekey", ike())?;
    count.after("terminate the child", true, "terminate", child().with("timeout", "30000"))?;
    count.after("initiate the child again", true, "initiate", child().with("timeout", "30000"))?;
    count.after("terminate from behind", false, "terminate", ike().with("timeout", "30000"))?;
    count.after("initiate from behind", false, "initiate", child().with("timeout", "30000"))?;
    strange(lab, pair, &mut count)?;
    count.after("terminate", true, "terminate", ike().with("timeout", "30000"))?;
    pair.a.wait_for("no SA", SOON, <[_]>::is_empty)?;
    ask(&mut count.ours, "unload-conn", Message::new().with("name", "site"))?;
    count.take("unloaded", Some(("name", "site")))?;
    count.reset()?;
    Ok(count.out)
}

struct Count {
    ours: Line,
    theirs: Line,
    out: Vec<Step>,
}

impl Count {
    /// Gives a command to the one that is compared, or to the one behind it, and takes down what it made them count.
    fn after(&mut self, name: &str, here: bool, command: &str, request: Message) -> Result<()> {
        let before = self.global()?;
        let line = if here { &mut self.ours } else { &mut self.theirs };
        let answer = ask(line, command, request)?;
        ensure!(answer.is_yes("success"), "{name}: {answer:?}");
        self.wait_for_more(&before).with_context(|| format!("{name}: nothing was counted"))?;
        self.take(&format!("counters after: {name}"), None)
    }

    /// Waits until something was counted, and then nothing more.
    fn wait_for_more(&mut self, before: &Message) -> Result<()> {
        let (start, mut seen, mut since) = (Instant::now(), before.clone(), Instant::now());
        while start.elapsed() < SOON {
            let now = self.global()?;
            if now != seen {
                (seen, since) = (now, Instant::now());
            } else if seen != *before && since.elapsed() >= QUIET && (since.elapsed() >= LONG || !self.is_busy()?) {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        anyhow::bail!("still {seen:?}")
    }

    /// Whether either end has an exchange under way or ahead.
    fn is_busy(&mut self) -> Result<bool> {
        for line in [&mut self.ours, &mut self.theirs] {
            for packet in line.ask(&Packet::CmdRequest("list-sas".to_owned(), Message::new()))? {
                let Some((_, message)) = event_of(&packet) else { continue };
                let under_way = |(_, sa): (&str, &Message)| {
                    ["tasks-queued", "tasks-active"].iter().any(|key| sa.list_strs(key).next().is_some())
                };
                if message.sections().any(under_way) {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// Takes down what is counted of everything, and of each connection or of one.
    fn take(&mut self, name: &str, of: Option<(&str, &str)>) -> Result<()> {
        let (key, value) = of.unwrap_or(("all", "yes"));
        let some = ask(&mut self.ours, "get-counters", Message::new().with(key, value))?;
        let answers = vec![("global".to_owned(), self.global()?), (key.to_owned(), some)];
        self.out.push(Step { name: name.to_owned(), answers });
        Ok(())
    }

    fn reset(&mut self) -> Result<()> {
        for request in [Message::new(), Message::new().with("all", "yes")] {
            let answer = ask(&mut self.ours, "reset-counters", request)?;
            self.out.push(Step { name: "reset-counters".to_owned(), answers: vec![("answer".to_owned(), answer)] });
        }
        self.take("after a reset", None)
    }

    fn global(&mut self) -> Result<Message> {
        ask(&mut self.ours, "get-counters", Message::new())
    }
}

fn ask(line: &mut Line, command: &str, request: Message) -> Result<Message> {
    let answers = line.ask(&Packet::CmdRequest(command.to_owned(), request))?;
    answers.last().and_then(answer_of).cloned().with_context(|| format!("no answer to {command}"))
}

/// Sends what is no message for any IKE SA, or looks like one.
fn strange(lab: &Lab, pair: &Pair<'_>, count: &mut Count) -> Result<()> {
    let sa = pair.a.sas()?.pop().context("no IKE SA")?;
    let address = |side: &lab::topology::Site| -> IpAddr { side.outer_address(Family::V4) };
    let from = SocketAddr::new(address(&lab.b), 0);
    let mut socket = Udp::new(&lab.b.gateway, from, SocketAddr::new(address(&lab.a), 500), false)?;
    let message = |spis: &str, exchange: u8, flags: u8, id: u8, length: u8| -> Vec<u8> {
        let octet = |at: usize| spis.get(at..at + 2).and_then(|pair| u8::from_str_radix(pair, 16).ok()).unwrap_or(0);
        let mut octets: Vec<u8> = (0..16).map(|at| octet(2 * at)).collect();
        octets.extend([46, 0x20, exchange, flags, 0, 0, 0, id, 0, 0, 0, 60, 0, 0, 0, length]);
        octets.resize(60, 0xaa);
        octets
    };
    let vendor_id = |mut octets: Vec<u8>| {
        octets.iter_mut().skip(16).take(1).for_each(|next| *next = 43);
        octets
    };
    const STRANGER: &str = "11111111111111112222222222222222";
    const FIRST: &str = "11111111111111110000000000000000";
    let (initiator, responder) = sa.spis;
    let ours = format!("{initiator}{responder}");
    let other = format!("{}{responder}", "f".repeat(16));
    for (name, octets) in [
        ("five octets", vec![0; 5]),
        ("twenty octets", vec![0x11; 20]),
        ("a request for nobody", message(STRANGER, 37, 0x08, 1, 32)),
        ("a response for nobody", message(STRANGER, 36, 0x20, 1, 32)),
        ("IKE_AUTH for nobody", message(STRANGER, 35, 0x08, 1, 32)),
        ("a response to IKE_SA_INIT for nobody", message(STRANGER, 34, 0x20, 0, 32)),
        ("IKE_SA_INIT for somebody who is not there", message(STRANGER, 34, 0x08, 0, 32)),
        ("a broken request for nobody", message(STRANGER, 37, 0x08, 1, 200)),
        ("a request without SPI", message(FIRST, 37, 0x08, 0, 32)),
        ("IKE_SA_INIT with a message ID", message(FIRST, 34, 0x08, 5, 32)),
        ("another exchange", message(STRANGER, 99, 0x08, 1, 32)),
        ("IKE_SA_INIT without its payloads", vendor_id(message(FIRST, 34, 0x08, 0, 32))),
        ("the SPI of another initiator", message(&other, 37, 0x08, 2, 32)),
        ("a request that nobody of ours has made", message(&ours, 37, 0x08, 2, 32)),
        ("a request ahead of its time", message(&ours, 37, 0x08, 9, 32)),
    ] {
        let before = count.global()?;
        socket.send(&octets)?;
        // What is not to count has no sign by which it could be waited for.
        wait_until(UNSEEN, || count.global().is_ok_and(|now| now != before));
        count.take(&format!("counters after: {name}"), None)?;
    }
    Ok(())
}
