//! The crate `rsvici` drives our daemon: a client with types of its own that nobody here wrote, over the socket file.

use std::collections::BTreeMap;
use std::os::unix::net::UnixStream as StdStream;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures_util::{StreamExt as _, TryStreamExt as _};
use lab::topology::Middle;
use libtest_mimic::Trial;
use rsvici::Client;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use crate::harness::{Pair, trial, with_pair};
use crate::peers;

/// What anything may take.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn trials() -> Vec<Trial> {
    vec![trial("rsvici::requests_streams_and_events", requests_streams_and_events)]
}

#[derive(Debug, Deserialize)]
struct Version {
    daemon: String,
    version: String,
}

#[derive(Debug, Deserialize)]
struct Success {
    success: bool,
    errmsg: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Names {
    conns: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Conn {
    remote_addrs: Vec<String>,
    version: String,
    children: BTreeMap<String, ListedChild>,
}

#[derive(Debug, Deserialize)]
struct ListedChild {
    mode: String,
    #[serde(rename = "remote-ts")]
    remote_ts: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct IkeSa {
    uniqueid: u32,
    version: u8,
    state: String,
    remote_id: String,
    established: i64,
    child_sas: BTreeMap<String, ChildSa>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct ChildSa {
    name: String,
    state: String,
    encr_alg: String,
    encr_keysize: u16,
    bytes_in: u64,
    local_ts: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Line {
    group: String,
    level: i8,
    msg: String,
}

#[derive(Serialize)]
struct Wanted<'a> {
    child: &'a str,
    timeout: u32,
}

#[derive(Serialize)]
struct Named<'a> {
    name: &'a str,
}

#[derive(Serialize)]
struct Connection<'a> {
    version: u8,
    remote_addrs: [&'a str; 1],
    local: Auth<'a>,
    remote: Auth<'a>,
    children: BTreeMap<&'a str, Child<'a>>,
}

#[derive(Serialize)]
struct Auth<'a> {
    auth: &'a str,
    id: &'a str,
}

#[derive(Serialize)]
struct Child<'a> {
    remote_ts: [&'a str; 1],
}

fn requests_streams_and_events() -> Result<()> {
    let whole = |pair: &mut Pair<'_>| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async { tokio::time::timeout(PATIENCE, session(pair)).await.context("it takes too long")? })
    };
    with_pair(&Middle::Direct, peers::ours()?, |_, tunnel| tunnel, |_, pair| whole(pair))
}

fn client(pair: &Pair<'_>) -> Result<Client> {
    let stream = StdStream::connect(pair.a.socket())?;
    stream.set_nonblocking(true)?;
    Ok(Client::new(tokio::net::UnixStream::from_std(stream)?))
}

async fn session(pair: &Pair<'_>) -> Result<()> {
    let mut client = client(pair)?;
    let version: Version = client.request("version", ()).await?;
    ensure!(version.daemon == "cygnetd" && !version.version.is_empty(), "{version:?}");
    configuration(&mut client).await?;
    let mut events = self::client(pair)?;
    let updown = events.subscribe::<BTreeMap<String, IgnoredAny>>("child-updown");
    let mut updown = std::pin::pin!(updown);
    // A stream registers when it is first asked.
    let (first, established) = tokio::join!(updown.next(), establish(&mut client));
    established?;
    ensure!(first.transpose()?.is_some_and(|event| event.contains_key("site")), "no event of the child");
    let again: IkeSa = sas(&mut client).await?.remove("site").context("no IKE SA")?;
    ensure!(again.state == "ESTABLISHED", "{again:?}");
    let terminated =
        client.stream_request::<_, Line>("terminate", "control-log", Wanted { child: "net4", timeout: 5_000 });
    let lines: Vec<Line> = std::pin::pin!(terminated).try_collect().await?;
    ensure!(lines.iter().all(|line| !line.msg.is_empty()), "{lines:?}");
    let event = updown.next().await.transpose()?;
    ensure!(event.is_some_and(|event| event.contains_key("site")), "no event of its end");
    Ok(())
}

/// Loading, listing and unloading a connection, and what is said when there is none.
async fn configuration(client: &mut Client) -> Result<()> {
    let auth = |id| Auth { auth: "psk", id };
    let children = BTreeMap::from([("net", Child { remote_ts: ["10.77.0.0/24"] })]);
    let connection =
        Connection { version: 2, remote_addrs: ["192.0.2.77"], local: auth("a"), remote: auth("b"), children };
    let loaded: Success = client.request("load-conn", BTreeMap::from([("by-rsvici", connection)])).await?;
    ensure!(loaded.success, "{loaded:?}");
    let names: Names = client.request("get-conns", ()).await?;
    ensure!(names.conns == ["site", "by-rsvici"], "{names:?}");
    let listed = client.stream_request::<(), BTreeMap<String, Conn>>("list-conns", "list-conn", ());
    let listed: Vec<_> = std::pin::pin!(listed).try_collect().await?;
    let conn = listed.iter().find_map(|entry| entry.get("by-rsvici")).context("it is not listed")?;
    let child = conn.children.get("net").context("its child is not listed")?;
    ensure!(conn.version == "IKEv2" && conn.remote_addrs == ["192.0.2.77"], "{conn:?}");
    ensure!(child.mode == "TUNNEL" && child.remote_ts == ["10.77.0.0/24"], "{child:?}");
    let gone: Success = client.request("unload-conn", Named { name: "by-rsvici" }).await?;
    ensure!(gone.success, "{gone:?}");
    let missing: Success = client.request("unload-conn", Named { name: "by-rsvici" }).await?;
    let reason = "unload: connection 'by-rsvici' not found";
    ensure!(!missing.success && missing.errmsg.as_deref() == Some(reason), "{missing:?}");
    let unknown = client.request::<(), Success>("no-such-command", ()).await;
    ensure!(unknown.is_err(), "an unknown command was answered");
    Ok(())
}

async fn establish(client: &mut Client) -> Result<()> {
    let lines = client.stream_request::<_, Line>("initiate", "control-log", Wanted { child: "net4", timeout: 10_000 });
    let lines: Vec<Line> = std::pin::pin!(lines).try_collect().await?;
    ensure!(lines.iter().any(|line| !line.group.is_empty() && line.level <= 1), "nothing was told: {lines:?}");
    let site = sas(client).await?.remove("site").context("no IKE SA")?;
    ensure!(site.uniqueid > 0 && site.version == 2 && site.established >= 0, "{site:?}");
    ensure!(site.remote_id == "gw-b.example", "{site:?}");
    let child = site.child_sas.values().next().context("no CHILD SA")?;
    ensure!(child.name == "net4" && child.state == "INSTALLED" && child.local_ts == ["10.1.0.0/24"], "{child:?}");
    ensure!(child.encr_alg == "AES_GCM_16" && child.encr_keysize == 128 && child.bytes_in == 0, "{child:?}");
    let wrong = client.stream_request::<_, Line>("initiate", "control-log", Wanted { child: "none", timeout: 1_000 });
    let wrong = std::pin::pin!(wrong).try_collect::<Vec<Line>>().await;
    let reason = wrong.err().context("a child that there is not was initiated")?.to_string();
    ensure!(reason.contains("CHILD_SA config 'none' not found"), "{reason}");
    Ok(())
}

async fn sas(client: &mut Client) -> Result<BTreeMap<String, IkeSa>> {
    let listed = client.stream_request::<(), BTreeMap<String, IkeSa>>("list-sas", "list-sa", ());
    let listed: Vec<_> = std::pin::pin!(listed).try_collect().await?;
    Ok(listed.into_iter().flatten().collect())
}
