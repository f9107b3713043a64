//! A past of millions of rows, made by the database, and what is asked about it.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use ike_model::Timeline as _;
use ike_model::history::{DeliveryState, Outbox as _, Wanted, WantedDeliveries};
use sa_history::History;
use sqlx::any::AnyConnectOptions;
use sqlx::{AnyConnection, AssertSqlSafe, ConnectOptions as _, Connection as _, Executor as _, Row as _};

use super::{BEGIN, GATEWAY, forget_files, start, wait, write_out};
use crate::quantiles::quantiles;

/// Children there are, ten of each connection. One row in twenty is of the first one, which so has many more than the others.
const CHILDREN: u64 = 1000;
/// One row in so many is of a seldom kind.
const SELDOM: u64 = 100_000;
/// Rows of one statement.
const STEP: u64 = 200_000;
/// How often each question is asked.
const ASKED: u64 = 50;
/// Every question is to be answered within this time.
const IN_TIME: Duration = Duration::from_millis(100);

/// Makes the past and asks about it; true when answers come in time: nearly all of what is in memory, most of what is not.
pub(super) fn measure(engine: &str, url: &str, place: &Path, rows: u64) -> Result<bool> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let history = start(url, place)?;
    wait(&history, |figures| figures.waiting == 0)?;
    history.stop();
    drop(history);
    let begin = Instant::now();
    runtime.block_on(fill(url, rows))?;
    println!("{engine}: {rows} rows made in {:.0} s", begin.elapsed().as_secs_f64());
    let history = start(url, place)?;
    wait(&history, |figures| figures.waiting == 0)?;
    let good = runtime.block_on(ask_all(engine, &history, place, rows))?;
    history.stop();
    Ok(good)
}

/// When the row of this number begins, in milliseconds.
fn time_ms(row: u64) -> u64 {
    BEGIN + row * 10
}

async fn fill(url: &str, rows: u64) -> Result<()> {
    sqlx::any::install_default_drivers();
    let sqlite = url.starts_with("sqlite:");
    let options: AnyConnectOptions = url.parse().context("URL")?;
    let mut connection = options.connect().await?;
    let set_aside = set_aside(&mut connection, sqlite).await?;
    for from in (0..rows).step_by(usize::try_from(STEP)?) {
        let to = rows.min(from + STEP);
        let numbers = numbers(sqlite, from, to);
        execute(&mut connection, format!("{numbers} {}", child_sas(rows))).await?;
        let (from, to) = (from.div_ceil(10), to.div_ceil(10));
        let numbers = self::numbers(sqlite, from, to);
        execute(&mut connection, format!("{numbers} {}", events(sqlite))).await?;
        execute(&mut connection, format!("{numbers} {}", deliveries(sqlite))).await?;
    }
    for statement in set_aside {
        execute(&mut connection, statement).await?;
    }
    execute(
        &mut connection,
        "INSERT INTO child_total SELECT gateway, connection, child, COUNT(*), SUM(bytes_in), SUM(packets_in), SUM(bytes_out), \
         SUM(packets_out), MIN(installed_us), MAX(COALESCE(removed_us - installed_us, 0)) FROM child_sa GROUP BY gateway, connection, child"
            .into(),
    )
    .await?;
    execute(&mut connection, format!("INSERT INTO endpoint (gateway, endpoint) VALUES ('{GATEWAY}', 'ops')")).await?;
    if !sqlite {
        // It would do so by itself within a minute.
        execute(&mut connection, "VACUUM (ANALYZE)".into()).await?;
    }
    connection.close().await?;
    Ok(())
}

async fn execute(connection: &mut AnyConnection, statement: String) -> Result<()> {
    let shown = statement.chars().take(120).collect::<String>();
    connection.execute(AssertSqlSafe(statement)).await.with_context(|| format!("carrying out {shown}"))?;
    Ok(())
}

/// Takes indexes and triggers away, with which filling takes hours; gives what makes them again.
async fn set_aside(connection: &mut AnyConnection, sqlite: bool) -> Result<Vec<String>> {
    let find = if sqlite {
        "SELECT 'DROP ' || type || ' ' || name, sql FROM sqlite_master WHERE type IN ('index', 'trigger') AND sql IS NOT NULL"
    } else {
        "SELECT 'DROP INDEX ' || indexname, indexdef FROM pg_indexes WHERE schemaname = 'public' AND indexname NOT LIKE '%_pkey' \
         AND indexname NOT LIKE '%_key' UNION ALL SELECT 'ALTER TABLE ' || name || ' DISABLE TRIGGER ALL', \
         'ALTER TABLE ' || name || ' ENABLE TRIGGER ALL' FROM (VALUES ('child_sa'), ('ike_sa')) AS tables (name)"
    };
    let mut again = Vec::new();
    for row in connection.fetch_all(find).await? {
        execute(connection, row.try_get(0)?).await?;
        again.push(row.try_get(1)?);
    }
    if sqlite {
        for setting in ["PRAGMA synchronous = OFF", "PRAGMA cache_size = -400000"] {
            execute(connection, setting.into()).await?;
        }
    } else {
        execute(connection, "SET maintenance_work_mem = '512MB'".into()).await?;
    }
    Ok(again)
}

/// A table `n` of numbers `i`.
fn numbers(sqlite: bool, from: u64, to: u64) -> String {
    if sqlite {
        format!("WITH RECURSIVE n (i) AS (SELECT {from} UNION ALL SELECT i + 1 FROM n WHERE i < {to} - 1)")
    } else {
        format!("WITH n (i) AS (SELECT * FROM generate_series(CAST({from} AS BIGINT), {to} - 1))")
    }
}

/// The child of a row: the first, or one of the others in turn.
const CHILD: &str = "CASE WHEN i % 20 = 0 THEN 0 ELSE i % 1000 END";

fn child_sas(rows: u64) -> String {
    let life = 10_000 * CHILDREN;
    format!(
        "INSERT INTO child_sa SELECT 'bench', i, '{GATEWAY}', 'site' || (({CHILD}) / 10), 'net' || ({CHILD}), i, 1, i / {CHILDREN}, 7, \
         'tunnel', 0, 3221225472 + i, 3489660928 + i, 20, 128, NULL, 31, 1, 'userspace', 'no', NULL, 0, '10.1.0.0/16', '10.2.0.0/16', \
         3300, NULL, NULL, 3600, NULL, NULL, 1000, 10, 1000, 10, 1000, 10, 1000, 10, {BEGIN}000 + i * 10000, \
         CASE WHEN i < {rows} - {CHILDREN} THEN {BEGIN}000 + i * 10000 + {life} END, \
         CASE WHEN i < {rows} - {CHILDREN} THEN CASE WHEN i % {SELDOM} = 7 THEN 'peer-unreachable' ELSE 'rekeyed' END END, CASE WHEN i < {rows} - {CHILDREN} THEN 'replaced' END FROM n"
    )
}

fn ulid(sqlite: bool) -> &'static str {
    if sqlite { "printf('01J%023d', i)" } else { "'01J' || lpad(CAST(i AS TEXT), 23, '0')" }
}

fn events(sqlite: bool) -> String {
    let ulid = ulid(sqlite);
    format!(
        "INSERT INTO event (ulid, boot_id, seq, gateway, time_us, type, connection, child, data) SELECT {ulid}, 'bench', i + 1, '{GATEWAY}', \
         {BEGIN}000 + i * 100000, CASE WHEN i % {SELDOM} = 7 THEN 'ike-sa.auth-failed' ELSE 'child-sa.rekeyed' END, \
         'site' || (i % {CHILDREN} / 10), 'net' || (i % {CHILDREN}), \
         CASE WHEN i % {SELDOM} = 7 THEN '{{\"cause\":{{\"kind\":\"authentication-failed\"}}}}' ELSE '{{}}' END FROM n"
    )
}

fn deliveries(sqlite: bool) -> String {
    let ulid = ulid(sqlite);
    format!(
        "INSERT INTO delivery (ulid, endpoint, gateway, state, attempts, due_us, delivered_us) SELECT {ulid}, 'ops', '{GATEWAY}', \
         CASE WHEN i % 50000 = 3 THEN 'dead' ELSE 'delivered' END, 1, {BEGIN}000 + i * 100000, {BEGIN}000 + i * 100000 FROM n"
    )
}

/// A question, about another part of the past each time.
type Question<'a> = (&'a str, Box<dyn Fn(u64) -> Ask + 'a>);

enum Ask {
    Generations(Wanted),
    Totals(Wanted),
    IkeSas(Wanted),
    Events(Wanted),
    Deliveries(WantedDeliveries),
    Backlog,
}

impl Ask {
    /// How many rows the answer has.
    async fn answer(&self, history: &History) -> Result<usize> {
        Ok(match self {
            Self::Generations(wanted) => history.generations(wanted).await?.len(),
            Self::Totals(wanted) => history.totals(wanted).await?.len(),
            Self::IkeSas(wanted) => history.ike_sas(wanted).await?.len(),
            Self::Events(wanted) => history.events(wanted).await?.len(),
            Self::Deliveries(wanted) => history.deliveries(wanted).await?.len(),
            Self::Backlog => history.backlog().await?.len(),
        })
    }
}

async fn ask_all(engine: &str, history: &History, place: &Path, rows: u64) -> Result<bool> {
    write_out(place)?;
    let mut good = true;
    for (name, question) in questions(rows) {
        let (mut cold, mut warm, mut given) = (Vec::new(), Vec::new(), 0);
        for number in 0..ASKED {
            let ask = question(number);
            forget_files(place)?;
            for times in [&mut cold, &mut warm] {
                let begin = Instant::now();
                given += ask.answer(history).await?;
                times.push(begin.elapsed());
            }
        }
        let [[cold, cold_p99, _], [warm, warm_p99, _]] = [cold, warm].map(quantiles);
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        println!(
            "{engine}: {name}: from the disk median {:.1} ms, p99 {:.1} ms; again median {:.1} ms, p99 {:.1} ms; {given} rows",
            ms(cold),
            ms(cold_p99),
            ms(warm),
            ms(warm_p99)
        );
        good &= cold < IN_TIME && warm_p99 < IN_TIME;
    }
    Ok(good)
}

fn questions<'a>(rows: u64) -> Vec<Question<'a>> {
    let one = |number: u64| Wanted {
        connection: Some(format!("site{}", (number * 37 + 11) % CHILDREN / 10)),
        child: Some(format!("net{}", (number * 37 + 11) % CHILDREN)),
        limit: 100,
        ..Wanted::default()
    };
    let busy =
        |_| Wanted { connection: Some("site0".into()), child: Some("net0".into()), limit: 100, ..Wanted::default() };
    let by_child = move |number| Wanted { connection: None, ..one(number) };
    let by_connection = move |number| Wanted { child: None, ..one(number) };
    // An hour somewhere in the past.
    let hour = move |number: u64, wanted: Wanted| {
        let since = time_ms(rows / ASKED * number);
        Wanted { since_ms: Some(since), until_ms: Some(since + 3_600_000), ..wanted }
    };
    let rare = |_| Wanted { event: Some("ike-sa.auth-failed".into()), limit: 20, ..Wanted::default() };
    let caused = |cause: &str, wanted: Wanted| Wanted { cause: Some(cause.into()), limit: 20, ..wanted };
    let dead = |_| WantedDeliveries { state: Some(DeliveryState::Dead), limit: 50, ..WantedDeliveries::default() };
    let listed = |_| WantedDeliveries { limit: 50, ..WantedDeliveries::default() };
    let of = |number: u64| WantedDeliveries {
        connection: Some(format!("site{}", number % 100)),
        limit: 50,
        ..WantedDeliveries::default()
    };
    vec![
        ("generations of a child", Box::new(move |number| Ask::Generations(one(number)))),
        (
            "generations of a child whose connection is not named",
            Box::new(move |number| Ask::Generations(by_child(number))),
        ),
        ("generations of a connection", Box::new(move |number| Ask::Generations(by_connection(number)))),
        ("an hour of a child", Box::new(move |number| Ask::Generations(hour(number, one(number))))),
        (
            "an hour of a child with very many generations",
            Box::new(move |number| Ask::Generations(hour(number, busy(number)))),
        ),
        (
            "an hour of everything, the newest hundred",
            Box::new(move |number| Ask::Generations(hour(number, Wanted { limit: 100, ..Wanted::default() }))),
        ),
        (
            "what is up of a connection",
            Box::new(move |number| Ask::Generations(Wanted { up: true, ..by_connection(number) })),
        ),
        ("totals of a child", Box::new(move |number| Ask::Totals(one(number)))),
        ("totals of a child with very many generations", Box::new(move |number| Ask::Totals(busy(number)))),
        ("totals of every child", Box::new(|_| Ask::Totals(Wanted::default()))),
        ("totals of a child in an hour", Box::new(move |number| Ask::Totals(hour(number, one(number))))),
        ("IKE SAs of a connection", Box::new(move |number| Ask::IkeSas(by_connection(number)))),
        ("events of a child", Box::new(move |number| Ask::Events(by_child(number)))),
        ("events of a connection", Box::new(move |number| Ask::Events(by_connection(number)))),
        ("events of a rare kind", Box::new(move |number| Ask::Events(rare(number)))),
        (
            "what ended for a seldom cause",
            Box::new(move |_| Ask::Generations(caused("peer-unreachable", Wanted::default()))),
        ),
        (
            "what ended for a seldom cause in an hour",
            Box::new(move |number| Ask::Generations(hour(number, caused("peer-unreachable", Wanted::default())))),
        ),
        (
            "what of a connection ended for a seldom cause",
            Box::new(move |number| Ask::Generations(caused("peer-unreachable", by_connection(number)))),
        ),
        ("what was replaced", Box::new(move |_| Ask::Generations(caused("rekeyed", Wanted::default())))),
        ("totals of a seldom cause", Box::new(move |_| Ask::Totals(caused("peer-unreachable", Wanted::default())))),
        (
            "events of a seldom cause",
            Box::new(move |_| Ask::Events(caused("authentication-failed", Wanted::default()))),
        ),
        ("the newest events", Box::new(|_| Ask::Events(Wanted { limit: 100, ..Wanted::default() }))),
        ("the newest deliveries", Box::new(move |number| Ask::Deliveries(listed(number)))),
        ("how many deliveries wait or are dead", Box::new(|_| Ask::Backlog)),
        ("dead deliveries", Box::new(move |number| Ask::Deliveries(dead(number)))),
        ("deliveries of a connection", Box::new(move |number| Ask::Deliveries(of(number)))),
    ]
}
