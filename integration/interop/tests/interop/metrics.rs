//! What the daemon shows over HTTP, judged by Prometheus' own parsers: tunnels that are up and those that are not, and counters that equal those of the
//! SAs and outlive them.
#![allow(clippy::indexing_slicing, reason = "indexing JSON gives null where there is nothing")]

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use lab::peer::Daemon;
use lab::topology::{Family, Lab, Middle, Side};
use lab::traffic::ping;
use libtest_mimic::Trial;
use serde_json::Value as Json;

use crate::harness::{Pair, trial, with_pair};
use crate::{life, peers};

/// The foreign reader.
const SCRIPT: &str = include_str!("metrics.py");
const REKEYS: u16 = 4;
/// Packets each way in each generation.
const PINGS: u16 = 3;

pub(crate) fn trials() -> Vec<Trial> {
    vec![trial("metrics::equal_the_sas_and_outlive_them", || {
        with_pair(&Middle::Direct, peers::ours()?, |_, tunnel| tunnel, story)
    })]
}

fn story(lab: &Lab, pair: &mut Pair<'_>) -> Result<()> {
    life::settle("it is ready", || ready(&pair.a).map(|()| true))?;
    let before = Samples::of(&pair.a)?;
    ensure!(before.child("cygnet_child_configured", "net4")? == 1.0, "net4 is configured");
    ensure!(before.child("cygnet_child_up", "net4")? == 0.0, "net4 is down");
    pair.a.swanctl(&["--initiate", "--child", "net4", "--timeout", "30"])?;
    let mut last = (0.0, 0.0);
    for rekey in 0..=REKEYS {
        if rekey > 0 {
            life::rekey_child(pair, if rekey % 2 == 0 { Side::A } else { Side::B }, "net4")?;
        }
        ping_all(lab)?;
        let expected = f64::from(PINGS) * f64::from(rekey + 1);
        life::settle("packets of all generations are counted", || {
            let samples = Samples::of(&pair.a)?;
            let now = samples.carried("packets")?;
            ensure!(now.0 >= last.0 && now.1 >= last.1, "{last:?} went down to {now:?}");
            last = now;
            Ok(now == (expected, expected))
        })?;
    }
    standing(pair)?;
    let octets = Samples::of(&pair.a)?.carried("bytes")?;
    pair.a.swanctl(&["--terminate", "--ike", "site", "--timeout", "30"])?;
    life::settle("the end is seen, and what was carried stays", || {
        let samples = Samples::of(&pair.a)?;
        let all = f64::from(PINGS) * f64::from(REKEYS + 1);
        ensure!(samples.carried("packets")? == (all, all), "{:?}", samples.carried("packets")?);
        ensure!(samples.carried("bytes")? == octets, "{:?}", samples.carried("bytes")?);
        let closed = samples.value("cygnet_connection_closed_total", &[("connection", "site"), ("reason", "operator")]);
        Ok(samples.child("cygnet_child_up", "net4")? == 0.0 && closed.is_ok_and(|closed| closed == 1.0))
    })
}

/// While it is up: the same as `--list-sas` says, and a child that nobody has started beside it.
fn standing(pair: &Pair<'_>) -> Result<()> {
    let samples = Samples::of(&pair.a)?;
    ensure!(samples.child("cygnet_child_up", "net4")? == 1.0, "net4 is up");
    ensure!(samples.child("cygnet_child_up", "net6")? == 0.0, "net6 is configured and down");
    ensure!(samples.value("cygnet_connection_up", &[("connection", "site")])? == 1.0, "the connection is up");
    let rekeys: f64 = samples.all("cygnet_child_rekeys_total", "net4").sum();
    ensure!(rekeys == f64::from(REKEYS), "{rekeys} rekeys");
    let sas = pair.a.sas()?;
    let children = sas.iter().flat_map(|ike| &ike.children).filter(|child| child.state == "INSTALLED");
    let installed = children.count() as f64;
    ensure!(samples.child("cygnet_child_sas_installed", "net4")? == installed, "{installed} are installed");
    let offload = [("child", "net4"), ("mode", "no")];
    ensure!(samples.value("cygnet_child_offload", &offload)? == 1.0, "no offload is in use");
    Ok(())
}

fn ready(daemon: &Daemon<'_>) -> Result<()> {
    let (head, body) = get(daemon, "/readyz", "*/*")?;
    let body: Json = serde_json::from_str(&body).with_context(|| format!("no JSON: {body}"))?;
    let conditions = body.get("conditions").and_then(Json::as_array).context("no conditions")?;
    let met = |name: &str| conditions.iter().any(|condition| condition["name"] == name && condition["state"] == "met");
    ensure!(head.starts_with("HTTP/1.1 200 ") && body["ready"] == true, "{head}\n{body:#}");
    for name in ["sockets", "backend", "shards", "configuration", "running", "spool"] {
        ensure!(met(name), "{name}: {body:#}");
    }
    let (head, body) = get(daemon, "/healthz", "*/*")?;
    ensure!(head.starts_with("HTTP/1.1 200 ") && body == "ok\n", "{head}\n{body}");
    Ok(())
}

fn ping_all(lab: &Lab) -> Result<()> {
    let (from, to) = (lab.a.host_address(Family::V4), lab.b.host_address(Family::V4));
    let answered = ping::ping(&lab.a.host, from, to, PINGS, ping::PATIENCE)?;
    ensure!(answered == PINGS, "{answered} of {PINGS} pings came back");
    Ok(())
}

/// Head and body of an answer.
fn get(daemon: &Daemon<'_>, path: &str, accept: &str) -> Result<(String, String)> {
    let mut stream = UnixStream::connect(daemon.directory().join("cygnet.http"))?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nAccept: {accept}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("no end of the head")?;
    if head.to_ascii_lowercase().contains("transfer-encoding: chunked") {
        anyhow::bail!("a body in pieces: {head}");
    }
    Ok((head.to_owned(), body.to_owned()))
}

/// What the foreign reader understood.
struct Samples(Vec<Json>);

impl Samples {
    /// Both forms are read; the values come from the one for Prometheus. What does not answer in time on a busy machine is left out, which is told.
    fn of(daemon: &Daemon<'_>) -> Result<Self> {
        let mut samples = Self(Vec::new());
        life::settle("everything has answered", || {
            samples = Self::at_once(daemon)?;
            Ok(samples.value("cygnet_scrape_complete", &[])? == 1.0)
        })?;
        Ok(samples)
    }

    fn at_once(daemon: &Daemon<'_>) -> Result<Self> {
        let before = read(daemon, "text/plain", "text")?;
        let open = read(daemon, "application/openmetrics-text", "openmetrics")?;
        let text = read(daemon, "text/plain", "text")?;
        let names = |samples: &[Json]| -> BTreeSet<String> {
            samples.iter().filter_map(|sample| sample["name"].as_str().map(str::to_owned)).collect()
        };
        // What happens in between may make one more or less.
        let (open, known) = (names(&open), &names(&before) | &names(&text));
        let lacks: Vec<_> = (&names(&before) & &names(&text)).difference(&open).cloned().collect();
        ensure!(open.is_subset(&known) && lacks.is_empty(), "OpenMetrics lacks {lacks:?}, or has more in {open:?}");
        Ok(Self(text))
    }

    fn all(&self, name: &str, child: &str) -> impl Iterator<Item = f64> {
        let fits = move |sample: &&Json| sample["name"] == name && sample["labels"]["child"] == child;
        self.0.iter().filter(fits).filter_map(|sample| sample["value"].as_f64())
    }

    fn value(&self, name: &str, labels: &[(&str, &str)]) -> Result<f64> {
        let fits = |sample: &&Json| {
            sample["name"] == name && labels.iter().all(|(label, value)| sample["labels"][*label] == *value)
        };
        let found = self.0.iter().find(fits).and_then(|sample| sample["value"].as_f64());
        found.with_context(|| format!("there is no {name} of {labels:?}"))
    }

    fn child(&self, name: &str, child: &str) -> Result<f64> {
        self.value(name, &[("connection", "site"), ("child", child)])
    }

    fn carried(&self, what: &str) -> Result<(f64, f64)> {
        let name = format!("cygnet_child_{what}_total");
        let of = |direction| self.value(&name, &[("child", "net4"), ("direction", direction)]);
        Ok((of("in")?, of("out")?))
    }
}

fn read(daemon: &Daemon<'_>, accept: &str, form: &str) -> Result<Vec<Json>> {
    let (head, body) = get(daemon, "/metrics", accept)?;
    ensure!(head.starts_with("HTTP/1.1 200 ") && head.contains(accept), "{head}");
    let mut reader = Command::new("/usr/bin/python3")
        .args(["-c", SCRIPT, form])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    reader.stdin.take().context("no way to the reader")?.write_all(body.as_bytes())?;
    let output = reader.wait_with_output()?;
    ensure!(output.status.success(), "{}\nof:\n{body}", String::from_utf8_lossy(&output.stderr));
    Ok(serde_json::from_slice(&output.stdout)?)
}
