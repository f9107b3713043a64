//! How the keeping of the past itself is doing.

use serde::Serialize;

/// Tells how the history is doing; asks no database.
pub trait Keeping: Send + Sync {
    /// The figures of this moment.
    fn figures(&self) -> KeepingFigures;
}

/// Figures of the history: how much waits, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct KeepingFigures {
    /// `sqlite` or `postgres`.
    pub engine: &'static str,
    /// Octets the spool takes.
    pub spool_used: u64,
    /// Octets it may take.
    pub spool_size: u64,
    /// There is room for the events of new IKE SAs.
    pub has_room: bool,
    /// Events that wait to be taken over into the database.
    pub waiting: u64,
    /// When the first of them happened.
    pub oldest_ms: Option<u64>,
    /// Events that this run has taken over.
    pub taken_over: u64,
    /// Events that could not be understood or that the database refused, and which are left out.
    pub left_out: u64,
    /// Rows that were forgotten since the start.
    pub forgotten: u64,
    /// The database.
    pub database: Database,
    /// What the database said when it failed last, though it may work again.
    pub last_error: Option<String>,
    /// Days that rows are kept; 0 = for ever.
    pub retain_days: u32,
    /// Rows of each table that are kept; 0 = any number.
    pub retain_rows: u64,
    /// Another daemon that keeps its history under the same name in this database, which is a mistake.
    pub rival: Option<String>,
}

/// What the database does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "state")]
pub enum Database {
    /// It is being opened for the first time.
    Opening,
    /// It takes events.
    Open,
    /// It takes none; they wait in the spool.
    Away {
        /// Since when.
        since_ms: u64,
        /// What it said last.
        error: String,
    },
    /// It was made by a newer release; no history is kept.
    TooNew {
        /// What is the matter.
        error: String,
    },
}
