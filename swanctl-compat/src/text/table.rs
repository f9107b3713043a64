//! Tables for a terminal: columns as wide as their widest cell, the last one as long as it is.

/// How a row is to be taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tone {
    /// Nothing to see.
    #[default]
    Plain,
    /// Up.
    Good,
    /// Ended as nobody asked for, or failed.
    Bad,
}

/// A table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    heading: Vec<&'static str>,
    rows: Vec<(Tone, Vec<String>)>,
}

/// Between two columns.
const GAP: &str = "  ";

impl Table {
    /// A table without rows.
    #[must_use]
    pub fn new(heading: &[&'static str]) -> Self {
        Self { heading: heading.to_vec(), rows: Vec::new() }
    }

    /// Appends a row.
    pub fn row(&mut self, tone: Tone, cells: impl IntoIterator<Item = String>) {
        self.rows.push((tone, cells.into_iter().collect()));
    }

    /// There are no rows.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Heading and rows as lines without their ends. Columns that are empty in all rows are left out.
    #[must_use]
    pub fn lines(&self) -> (String, Vec<(Tone, String)>) {
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|(_, cells)| cells.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let columns: Vec<(usize, usize)> = (self.heading.iter().enumerate())
            .map(|(column, title)| (column, width(column), title.chars().count()))
            .filter(|(_, content, _)| *content > 0)
            .map(|(column, content, title)| (column, content.max(title)))
            .collect();
        let line = |cell: &dyn Fn(usize) -> String| {
            let cells = columns.iter().map(|(column, width)| format!("{:width$}", cell(*column)));
            cells.collect::<Vec<_>>().join(GAP).trim_end().to_owned()
        };
        let heading = line(&|column| self.heading.get(column).copied().unwrap_or_default().to_owned());
        let rows = self.rows.iter().map(|(tone, cells)| {
            let text = line(&|column| cells.get(column).cloned().unwrap_or_default());
            (*tone, text)
        });
        (heading, rows.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_empty_ones_left_out() {
        let mut table = Table::new(&["NAME", "NOTHING", "END"]);
        assert!(table.is_empty());
        table.row(Tone::Good, ["a".into(), String::new(), String::new()]);
        table.row(Tone::Bad, ["longer".into(), String::new(), "it fell".into()]);
        let rows = vec![(Tone::Good, "a".into()), (Tone::Bad, "longer  it fell".into())];
        assert_eq!(table.lines(), ("NAME    END".into(), rows));
    }
}
