//! Several gateways that keep their history in one PostgreSQL; and histories that an older or a newer release has made.
#![allow(clippy::indexing_slicing, reason = "indexing JSON gives null where there is nothing")]

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab::away::DATABASE;
use lab::netns::{Namespace, command};
use lab::peer::Daemon;
use lab::peer::conf::Tunnel;
use lab::peer::cygnet::Cygnet;
use lab::postgres::Postgres;
use lab::topology::{Family, Lab, Middle, Side};
use libtest_mimic::Trial;
use serde_json::Value as Json;

use crate::harness::{Pair, trial};
use crate::life;

const CHILD: &str = "net4";
/// A daemon has found out by then whether another one lives that has its name.
const TOLD: Duration = Duration::from_secs(30);

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("fleet::three_gateways_share_one_postgres", three),
        trial("fleet::a_history_of_a_newer_release_is_left_alone_and_ike_goes_on", newer),
        trial("fleet::a_history_of_the_first_release_is_migrated_with_a_copy_kept", older),
    ]
}

fn one_child(lab: &Lab, side: Side) -> Tunnel {
    let mut tunnel = Tunnel::between(lab, side, Family::V4);
    tunnel.children.retain(|child| child.name == CHILD);
    tunnel
}

/// A gateway of the fleet with a name of its own.
fn start<'lab>(lab: &'lab Lab, side: Side, name: &str, url: &str) -> Result<Daemon<'lab>> {
    let directory = lab.directory().join(format!("{}-{name}", side.letter()));
    let spool = directory.join("spool");
    let extra = format!("[gateway]\nname = \"{name}\"\n[history]\nurl = \"{url}\"\nspool = \"{}\"\n", spool.display());
    let cygnet = Cygnet { extra, log: String::new() };
    Daemon::start(&cygnet, &lab.site(side).gateway, &directory, &[one_child(lab, side)])
}

fn three() -> Result<()> {
    let (one, two) = (Lab::new(&Middle::Direct)?, Lab::new(&Middle::Direct)?);
    let postgres = Postgres::start(&one.a.gateway, &one.directory().join("postgres"))?;
    postgres.database(DATABASE)?;
    let url = postgres.url_by_socket(DATABASE);
    // All at once, in a database without tables.
    let places = [(&one, Side::A, "gw-1"), (&one, Side::B, "gw-2"), (&two, Side::A, "gw-3")];
    let started: Vec<Result<Daemon<'_>>> = thread::scope(|scope| {
        let starting = places.map(|(lab, side, name)| {
            scope.spawn({
                let url = &url;
                move || start(lab, side, name, url)
            })
        });
        starting.into_iter().map(|thread| thread.join().unwrap_or_else(|_| Err(anyhow::anyhow!("panic")))).collect()
    });
    let [a, b, c] = <[_; 3]>::try_from(started.into_iter().collect::<Result<Vec<_>>>()?).ok().context("three")?;
    let other = start(&two, Side::B, "elsewhere", &format!("sqlite://{}/history.db", two.directory().display()))?;
    let mut pairs = [Pair { a, b }, Pair { a: c, b: other }];
    for pair in &mut pairs {
        pair.check(|pair| {
            pair.a.swanctl(&["--initiate", "--child", CHILD, "--timeout", "30"])?;
            life::rekey_child(pair, Side::A, CHILD)?;
            life::rekey_child(pair, Side::B, CHILD)
        })?;
    }
    // Room for another daemon.
    pairs[1].b.process().terminate()?;
    let [first, second] = &pairs;
    let [gw1, gw2, gw3] = [&first.a, &first.b, &second.a];
    life::settle("each gateway has its own past, and all have all", || {
        let own = history(gw1, &[])?;
        ensure!(spis(&own).len() == 3 && gateways(&own) == names(&["gw-1"]), "{own:#}");
        let of_other = history(gw1, &["--gateway", "gw-2"])?;
        ensure!(
            gateways(&of_other) == names(&["gw-2"]) && spis(&of_other) == spis(&history(gw2, &[])?),
            "{of_other:#}"
        );
        let swapped: Vec<_> = spis(&own).into_iter().map(|(inbound, outbound)| (outbound, inbound)).collect();
        ensure!(spis(&of_other) == swapped, "two ends of one tunnel: {own:#} {of_other:#}");
        let all = history(gw3, &["--gateway", "all", "--limit", "0"])?;
        ensure!(spis(&all).len() == 9 && gateways(&all) == names(&["gw-1", "gw-2", "gw-3"]), "{all:#}");
        ensure!(all["totals"].as_array().map(Vec::len) == Some(3), "{all:#}");
        Ok(true)
    })?;
    let sql = |statement: &str| postgres.sql(DATABASE, statement);
    let events =
        sql("SELECT COUNT(*) = COUNT(DISTINCT ulid), COUNT(DISTINCT boot_id), COUNT(DISTINCT gateway) FROM event")?;
    ensure!(events.trim() == "t|3|3", "{events}");
    let schema = sql("SELECT COUNT(*) = MAX(version) FROM cygnet_schema")?;
    ensure!(schema.trim() == "t", "each step was taken once");
    let table = gw1.cygnet(&["history", "--gateway", "all"])?;
    let table = String::from_utf8_lossy(&table.stdout).into_owned();
    ensure!(table.contains("GATEWAY  CHILD") && table.contains("gw-3     site/net4"), "{table}");
    for daemon in [gw1, gw2, gw3] {
        let log = daemon.log();
        let loud: Vec<_> = log.lines().filter(|line| line.contains(" WARN ") || line.contains("ERROR")).collect();
        ensure!(loud.is_empty(), "{loud:#?}");
    }
    same_name(&two, &url, gw1)
}

/// Two daemons of one name: a mistake that is told, and that closes nothing of the other's.
fn same_name(lab: &Lab, url: &str, known: &Daemon<'_>) -> Result<()> {
    let twin = start(lab, Side::B, "gw-1", url)?;
    let told = "another daemon keeps its history under the same name";
    // It may take a moment until it is clear that the first one lives.
    life::settle_within(TOLD, "the second daemon of a name says so", || Ok(twin.log().matches(told).count() == 1))?;
    let log = twin.log();
    let line = log.lines().find(|line| line.contains(told)).context("no warning")?;
    ensure!(line.contains("(process ") && line.contains(" on ") && line.contains(", since 20"), "{line}");
    life::settle("the first one's SAs are up as before", || {
        let own = history(known, &["--limit", "1"])?;
        ensure!(own["generations"][0].get("removed").is_none() && own["totals"][0]["up"] == true, "{own:#}");
        Ok(true)
    })
}

fn names(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn gateways(history: &Json) -> BTreeSet<String> {
    let rows = history["generations"].as_array().into_iter().flatten();
    rows.filter_map(|row| row["gateway"].as_str()).map(str::to_owned).collect()
}

/// The SPIs of all generations, the newest first.
fn spis(history: &Json) -> Vec<(String, String)> {
    let text = |row: &Json, key: &str| row[key].as_str().unwrap_or_default().to_owned();
    let rows = history["generations"].as_array().into_iter().flatten();
    rows.map(|row| (text(row, "spi-in"), text(row, "spi-out"))).collect()
}

fn history(daemon: &Daemon<'_>, arguments: &[&str]) -> Result<Json> {
    let output = daemon.cygnet(&[&["history", "--json"], arguments].concat())?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success(), "{} {text} {}", output.status, String::from_utf8_lossy(&output.stderr));
    serde_json::from_str(&text).with_context(|| format!("no JSON: {text}"))
}

/// Carries out statements on an SQLite file, with the library that Python has.
fn sqlite(file: &Path, statements: &str) -> Result<String> {
    const PROGRAM: &str = "import sqlite3, sys
c = sqlite3.connect(sys.argv[1])
c.executescript(sys.argv[2])
c.commit()
c.close()";
    python(PROGRAM, file, statements)
}

/// The rows that a query gives.
fn query(file: &Path, query: &str) -> Result<String> {
    const PROGRAM: &str = "import sqlite3, sys
print(sqlite3.connect(sys.argv[1]).execute(sys.argv[2]).fetchall())";
    python(PROGRAM, file, query)
}

fn python(program: &str, file: &Path, text: &str) -> Result<String> {
    command("python3", &["-c", program, file.to_str().context("a path")?, text])
}

fn gateway(lab: &Lab) -> (&Namespace, std::path::PathBuf) {
    (&lab.a.gateway, lab.directory().join("a"))
}

fn newer() -> Result<()> {
    let lab = Lab::new(&Middle::Direct)?;
    let mut pair = Pair::start(&lab, [&Cygnet::default(), &Cygnet::default()], |side| one_child(&lab, side))?;
    pair.check(|pair| {
        // The database is made beside everything else.
        life::settle("the history is there", || Ok(pair.a.cygnet(&["history"])?.status.success()))?;
        pair.a.process().terminate()?;
        let file = pair.a.directory().join("history/history.db");
        sqlite(&file, "INSERT INTO cygnet_schema (version, compatible_from) VALUES (99, 99)")?;
        let content = || -> Result<[String; 2]> {
            let rows =
                "SELECT (SELECT COUNT(*) FROM event), (SELECT COUNT(*) FROM boot), (SELECT COUNT(*) FROM child_sa)";
            Ok([query(&file, rows)?, query(&file, "SELECT sql FROM sqlite_master")?])
        };
        let before = content()?;
        pair.a.restart()?;
        pair.a.swanctl(&["--initiate", "--child", CHILD, "--timeout", "30"])?;
        life::rekey_child(pair, Side::A, CHILD)?;
        life::settle("it is told", || Ok(pair.a.log().contains("made by a newer release")))?;
        let log = pair.a.log();
        let errors: Vec<_> = log.lines().filter(|line| line.contains("ERROR") || line.contains(" WARN ")).collect();
        ensure!(errors.len() == 1 && errors[0].contains("made by a newer release"), "{errors:#?}");
        let output = pair.a.cygnet(&["history"])?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.code() == Some(2) && said.contains("its schema is 99"), "{} {said}", output.status);
        ensure!(content()? == before, "what is in the file was changed");
        Ok(())
    })
}

fn older() -> Result<()> {
    const FIRST: &str = include_str!("../../../../plugins/history/src/schema/0001.sql");
    const ROWS: &str = "CREATE TABLE cygnet_schema (version BIGINT PRIMARY KEY, compatible_from BIGINT NOT NULL);
INSERT INTO cygnet_schema VALUES (1, 1);
INSERT INTO boot (boot_id, gateway, started_us, last_seq) VALUES ('old', 'gw', 1700000000000000, 7);
INSERT INTO child_sa (boot_id, unique_id, gateway, connection, child, ike_unique_id, lineage, generation, reqid, mode, encap, spi_in, spi_out,
  esn, backend, offload, simulated, local_ts, remote_ts, bytes_in, packets_in, bytes_out, packets_out, total_bytes_in, total_packets_in,
  total_bytes_out, total_packets_out, installed_us)
  VALUES ('old', 1, 'gw', 'site', 'net4', 1, 1, 0, 1, 'tunnel', 0, 3221225473, 3221225474, 0, 'userspace', 'no', 0, '10.1.0.0/24', '10.2.0.0/24',
  1000, 10, 1000, 10, 1000, 10, 1000, 10, 1700000000000000);";
    let lab = Lab::new(&Middle::Direct)?;
    let (namespace, directory) = gateway(&lab);
    let file = directory.join("history/history.db");
    std::fs::create_dir_all(directory.join("history"))?;
    sqlite(&file, &format!("{FIRST};{ROWS}"))?;
    let cygnet = Cygnet { extra: "[gateway]\nname = \"gw\"\n".into(), log: String::new() };
    let a = Daemon::start(&cygnet, namespace, &directory, &[one_child(&lab, Side::A)])?;
    let b = Daemon::start(&Cygnet::default(), &lab.b.gateway, &lab.directory().join("b"), &[one_child(&lab, Side::B)])?;
    Pair { a, b }.check(|pair| {
        pair.a.swanctl(&["--initiate", "--child", CHILD, "--timeout", "30"])?;
        life::settle("what was and what is are in one history", || {
            let history = history(&pair.a, &[])?;
            let rows = history["generations"].as_array().context("no list")?;
            ensure!(rows.len() == 2 && rows[1]["spi-in"] == "c0000001", "{history:#}");
            Ok(rows[1]["cause"] == "daemon-died" && history["totals"][0]["generations"] == 2)
        })?;
        let copy = directory.join("history/history.db.schema-1");
        let rows = query(&copy, "SELECT spi_in, removed_us FROM child_sa")?;
        ensure!(rows.trim() == "[(3221225473, None)]", "{rows}");
        for (file, mode) in [(&copy, 0o640), (&directory.join("history/spool"), 0o700)] {
            let found = std::fs::metadata(file)?.permissions().mode() & 0o777;
            ensure!(found == mode, "{} has the mode {found:o}", file.display());
        }
        let log = pair.a.log();
        let told = log.lines().filter(|line| line.contains("a copy of the history is kept")).count();
        ensure!(told == 1, "told {told} times");
        Ok(())
    })
}
