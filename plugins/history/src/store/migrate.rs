//! Bringing the schema up to date: one step after the other, each additive, so that the release before goes on writing.

use std::path::PathBuf;

use sqlx::{AnyConnection, AnyPool, Connection as _, Executor as _, Row as _};

use super::{Engine, Location, OpenError};
use crate::sql::Sql;

/// One step: its statements, and the oldest schema whose releases can still write afterwards.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Step {
    /// Both engines take them.
    pub(super) statements: &'static str,
    /// What only SQLite takes, before and after; statements are set off from each other by lines of four dashes.
    pub(super) sqlite: [&'static str; 2],
    /// The same of PostgreSQL.
    pub(super) postgres: [&'static str; 2],
    pub(super) compatible_from: i64,
}

/// The steps in order; the first makes schema 1.
pub(super) const STEPS: &[Step] = &[
    Step { statements: include_str!("../schema/0001.sql"), sqlite: [""; 2], postgres: [""; 2], compatible_from: 1 },
    Step {
        statements: include_str!("../schema/0002.sql"),
        sqlite: [include_str!("../schema/0002.sqlite.sql"), include_str!("../schema/0002.after.sqlite.sql")],
        postgres: [include_str!("../schema/0002.postgres.sql"), ""],
        compatible_from: 1,
    },
    Step {
        statements: include_str!("../schema/0003.sql"),
        sqlite: ["", include_str!("../schema/0003.after.sqlite.sql")],
        postgres: [include_str!("../schema/0003.postgres.sql"), include_str!("../schema/0003.after.postgres.sql")],
        compatible_from: 1,
    },
];

/// What sets off statements that have `;` in them.
const ALONE: &str = "\n----\n";

/// The lock that gateways sharing a PostgreSQL take turns with: "cygnet" in ASCII.
const LOCK: i64 = 0x6379_676e_6574;

/// Takes every step that has not been taken.
pub(super) async fn run(location: &Location, writer: &AnyPool, steps: &[Step]) -> Result<(), OpenError> {
    let known = i64::try_from(steps.len()).unwrap_or(i64::MAX);
    let mut connection = writer.acquire().await?;
    keep_copy(location, &mut connection, known).await?;
    let mut transaction = connection.begin().await?;
    if location.engine == Engine::Postgres {
        // Held until the transaction ends.
        let mut lock = Sql::new("SELECT pg_advisory_xact_lock(");
        lock.value(LOCK).push(")");
        lock.execute(&mut *transaction).await?;
    }
    transaction
        .execute(
            "CREATE TABLE IF NOT EXISTS cygnet_schema (version BIGINT PRIMARY KEY, compatible_from BIGINT NOT NULL)",
        )
        .await?;
    let (found, needed) = version(&mut transaction).await?;
    if needed > known {
        return Err(OpenError::TooNew { found, needed, known });
    }
    for (step, number) in steps.iter().zip(1..).filter(|(_, number)| *number > found) {
        let [before, after] = match location.engine {
            Engine::Sqlite => step.sqlite,
            Engine::Postgres => step.postgres,
        };
        let statements = before.split(ALONE).chain(step.statements.split(";\n")).chain(after.split(ALONE));
        for statement in statements.filter(|statement| has_code(statement)) {
            transaction.execute(statement).await?;
        }
        let mut note = Sql::new("INSERT INTO cygnet_schema (version, compatible_from) VALUES (");
        note.list([number.into(), step.compatible_from.into()]).push(")");
        note.execute(&mut *transaction).await?;
    }
    transaction.commit().await?;
    Ok(())
}

/// The schema found, and which one a release has to know to write it; 0 when there is none.
async fn version(connection: &mut AnyConnection) -> Result<(i64, i64), sqlx::Error> {
    let sql = Sql::new("SELECT version, compatible_from FROM cygnet_schema ORDER BY version DESC LIMIT 1");
    match sql.fetch(&mut *connection).await?.first() {
        Some(row) => Ok((row.try_get(0)?, row.try_get(1)?)),
        None => Ok((0, 0)),
    }
}

/// There is more than comments.
fn has_code(statement: &str) -> bool {
    statement.lines().map(str::trim).any(|line| !line.is_empty() && !line.starts_with("--"))
}

/// SQLite: before an existing file is changed, a copy is kept beside it.
async fn keep_copy(location: &Location, connection: &mut AnyConnection, known: i64) -> Result<(), sqlx::Error> {
    let Some(file) = &location.file else { return Ok(()) };
    let sql = Sql::new("SELECT COUNT(*) FROM sqlite_master WHERE name = 'cygnet_schema'");
    let exists: i64 = sql.fetch(&mut *connection).await?.first().map_or(Ok(0), |row| row.try_get(0))?;
    if exists == 0 {
        return Ok(());
    }
    let (found, needed) = version(connection).await?;
    if found >= known || needed > known {
        return Ok(());
    }
    let copy = copy_path(file, found);
    // One that is empty was begun and not finished.
    if copy.metadata().is_ok_and(|copy| copy.len() > 0) {
        return Ok(());
    }
    super::make_private(&copy).map_err(sqlx::Error::Io)?;
    let mut sql = Sql::new("VACUUM INTO ");
    sql.value(&*copy.to_string_lossy());
    sql.execute(connection).await?;
    tracing::info!(copy = %copy.display(), from = found, to = known, "a copy of the history is kept before its schema changes");
    Ok(())
}

pub(super) fn copy_path(file: &std::path::Path, version: i64) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(format!(".schema-{version}"));
    name.into()
}
