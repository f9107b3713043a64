//! Statements put together from pieces, with numbered parameters as both engines take them.

use std::fmt::Write as _;

use sqlx::any::{AnyArguments, AnyRow};
use sqlx::query::Query;
use sqlx::{Any, AssertSqlSafe, Executor};

use crate::store::Engine;

/// A statement with its values. Text comes from this program only; what comes from outside is always a value.
#[derive(Debug, Default)]
pub(crate) struct Sql {
    text: String,
    values: Vec<Value>,
    /// Parameters have no numbers.
    unnumbered: bool,
    /// It is planned for its values and the tables as they are now. PostgreSQL keeps the plan of a prepared statement, made when a table was empty
    /// perhaps, until it has counted the table's rows.
    planned_anew: bool,
}

/// A value of a statement.
#[derive(Debug)]
pub(crate) enum Value {
    Int(Option<i64>),
    Text(Option<String>),
}

impl Sql {
    pub(crate) fn new(text: &str) -> Self {
        Self { text: text.into(), ..Self::default() }
    }

    /// One of very many parameters: SQLite searches the list of all numbers for each of them, unless they have none.
    pub(crate) fn long(text: &str, engine: Engine) -> Self {
        Self { unnumbered: engine == Engine::Sqlite, ..Self::new(text) }
    }

    /// The same statement, never planned beforehand.
    pub(crate) fn planned_anew(mut self) -> Self {
        self.planned_anew = true;
        self
    }

    /// Appends text.
    pub(crate) fn push(&mut self, text: &str) -> &mut Self {
        self.text.push_str(text);
        self
    }

    /// Appends a parameter.
    pub(crate) fn value(&mut self, value: impl Into<Value>) -> &mut Self {
        self.values.push(value.into());
        if self.unnumbered {
            self.text.push('?');
        } else {
            // Writing to a string does not fail.
            let _ = write!(self.text, "${}", self.values.len());
        }
        self
    }

    /// Appends parameters with commas between them.
    pub(crate) fn list(&mut self, values: impl IntoIterator<Item = Value>) -> &mut Self {
        for (at, value) in values.into_iter().enumerate() {
            if at > 0 {
                self.text.push_str(", ");
            }
            self.value(value);
        }
        self
    }

    /// The same statement with something in front.
    #[cfg(test)]
    pub(crate) fn after(mut self, prefix: &str) -> Self {
        self.text.insert_str(0, prefix);
        self
    }

    /// Carries it out; tells how many rows it changed.
    pub(crate) async fn execute<'e>(self, on: impl Executor<'e, Database = Any>) -> Result<u64, sqlx::Error> {
        Ok(self.query().execute(on).await?.rows_affected())
    }

    /// The rows it gives.
    pub(crate) async fn fetch<'e>(self, on: impl Executor<'e, Database = Any>) -> Result<Vec<AnyRow>, sqlx::Error> {
        self.query().fetch_all(on).await
    }

    fn query(self) -> Query<'static, Any, AnyArguments> {
        let query = sqlx::query(AssertSqlSafe(self.text)).persistent(!self.planned_anew);
        self.values.into_iter().fold(query, |query, value| match value {
            Value::Int(value) => query.bind(value),
            Value::Text(value) => query.bind(value),
        })
    }
}

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Self::Int(Some(value))
    }
}

impl From<u64> for Value {
    /// Both engines count to 2^63 - 1 only.
    fn from(value: u64) -> Self {
        Self::Int(Some(i64::try_from(value).unwrap_or(i64::MAX)))
    }
}

impl From<u32> for Value {
    fn from(value: u32) -> Self {
        Self::Int(Some(value.into()))
    }
}

impl From<u16> for Value {
    fn from(value: u16) -> Self {
        Self::Int(Some(value.into()))
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Int(Some(value.into()))
    }
}

impl From<&str> for Value {
    /// PostgreSQL has no text with NUL in it.
    fn from(value: &str) -> Self {
        Self::Text(Some(value.replace('\0', "\u{FFFD}")))
    }
}

impl<T: Into<Value>> From<Option<T>> for Value
where
    T: Typed,
{
    fn from(value: Option<T>) -> Self {
        value.map_or(T::NULL, Into::into)
    }
}

/// Which null stands for a missing value: PostgreSQL wants to know.
pub(crate) trait Typed {
    const NULL: Value;
}

macro_rules! typed {
    ($($type:ty => $null:ident),*) => { $(impl Typed for $type { const NULL: Value = Value::$null(None); })* };
}
typed!(i64 => Int, u64 => Int, u32 => Int, u16 => Int, bool => Int, &str => Text);
