//! The view as a screen of so many cells.

use super::cells::{amount, fitted, right, span, width};
use super::{Choice, Left, Rate, Row, View};
use crate::text::printable;

/// What is drawn on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Screen<'s> {
    /// Cells in a line.
    pub columns: usize,
    /// Lines.
    pub lines: usize,
    /// Children above the first one that is shown.
    pub above: usize,
    /// Which children, and in which order.
    pub choice: Choice,
    /// Between two looks, as it is written.
    pub interval: &'s str,
    /// The time of day.
    pub time: &'s str,
    /// Since when the daemon cannot be reached, and why, if so.
    pub lost: Option<(&'s str, &'s str)>,
}

/// How a piece of a line is to be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shade {
    /// As it is.
    Plain,
    /// A heading.
    Strong,
    /// Up.
    Good,
    /// On its way.
    Doubtful,
    /// In trouble.
    Bad,
    /// Of little weight.
    Faint,
}

/// A drawn screen: lines of pieces.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frame {
    /// The lines.
    pub lines: Vec<Vec<(Shade, String)>>,
    /// The most children that may stand above the first one shown.
    pub most_above: usize,
}

/// Widths of the columns.
struct Columns {
    name: usize,
    mode: usize,
}

const STATE: usize = 10;
const BYTES: usize = 6;
const PACKETS: usize = 5;
const REKEY: usize = 16;
/// All columns but the name and the mode, with a blank before each of the others.
const FIXED: usize = STATE + 2 * (BYTES + PACKETS) + REKEY + 7;
const LEAST_NAME: usize = 8;
const LEAST_MODE: usize = 9;

impl Columns {
    /// The mode gets what it needs once names have what they need.
    fn of(columns: usize, rows: &[&Row]) -> Self {
        let widest = |of: &dyn Fn(&Row) -> usize| rows.iter().map(|row| of(row)).max().unwrap_or(0);
        let room = columns.saturating_sub(FIXED).max(LEAST_NAME + LEAST_MODE);
        let name = widest(&|row| width(&printable(&row.name))).clamp(LEAST_NAME, room - LEAST_MODE);
        Self { name, mode: (room - name).min(widest(&|row| width(&printable(&row.mode))).max(LEAST_MODE)) }
    }
}

impl Screen<'_> {
    /// Draws the view; never wider or longer than the screen.
    #[must_use]
    pub fn draw(&self, view: &View) -> Frame {
        let rows = view.chosen(self.choice);
        let columns = Columns::of(self.columns, &rows);
        let mut lines = vec![self.head(view), self.state(&rows, view), self.titles(&columns)];
        for row in rows.iter().skip(self.above) {
            lines.push(child(row, &columns));
            lines.extend(trouble(row));
            if lines.len() >= self.lines {
                break;
            }
        }
        lines.truncate(self.lines);
        Frame {
            lines: lines.into_iter().map(|line| clipped(line, self.columns)).collect(),
            most_above: rows.len().saturating_sub(1),
        }
    }

    fn head(&self, view: &View) -> Vec<(Shade, String)> {
        let sum = view.sum();
        let (bytes_in, bytes_out) = (amount(sum.bytes_in), amount(sum.bytes_out));
        let states = view.states().into_iter().map(|(state, count)| format!("{count} {state}"));
        let states = states.collect::<Vec<_>>().join(", ");
        let count = view.rows().len();
        let children = if count == 1 { "child" } else { "children" };
        let mut line = vec![(Shade::Strong, format!("cygnet {}", self.time))];
        line.push((Shade::Plain, format!("  {count} {children}: {states}")));
        line.push((Shade::Plain, format!("  in {bytes_in}B/s  out {bytes_out}B/s")));
        line
    }

    fn state(&self, rows: &[&Row], view: &View) -> Vec<(Shade, String)> {
        if let Some((since, why)) = self.lost {
            let text = format!("daemon not reachable since {since}: {}", printable(why));
            return vec![(Shade::Bad, text)];
        }
        let shown = match (self.choice.down, self.above) {
            (true, _) => format!("only those not up: {} of {}", rows.len(), view.rows().len()),
            (false, 0) => String::new(),
            (false, above) => format!("from {} of {}", above + 1, rows.len()),
        };
        let keys =
            format!("every {}, by {} (s)  d: not up only  q: quit  {shown}", self.interval, self.choice.sort.name());
        vec![(Shade::Faint, keys.trim_end().to_owned())]
    }

    fn titles(&self, columns: &Columns) -> Vec<(Shade, String)> {
        let cells = [
            fitted("CHILD", columns.name),
            fitted("STATE", STATE),
            right("IN B/s", BYTES),
            right("pkt/s", PACKETS),
            right("OUT", BYTES),
            right("pkt/s", PACKETS),
            fitted("REKEY IN", REKEY),
            fitted("OFFLOAD", columns.mode),
        ];
        vec![(Shade::Strong, cells.join(" "))]
    }
}

fn child(row: &Row, columns: &Columns) -> Vec<(Shade, String)> {
    let known = |of: fn(&Rate) -> u64| row.rate.as_ref().map_or_else(|| "-".to_owned(), |rate| amount(of(rate)));
    let cells = [
        right(&known(|rate| rate.bytes_in), BYTES),
        right(&known(|rate| rate.packets_in), PACKETS),
        right(&known(|rate| rate.bytes_out), BYTES),
        right(&known(|rate| rate.packets_out), PACKETS),
        fitted(&left(&row.left), REKEY),
        fitted(&printable(&row.mode), columns.mode),
    ];
    vec![
        (Shade::Plain, format!("{} ", fitted(&printable(&row.name), columns.name))),
        (shade(row), fitted(&state(row), STATE)),
        (Shade::Plain, format!(" {}", cells.join(" ")).trim_end().to_owned()),
    ]
}

fn shade(row: &Row) -> Shade {
    match row.state.as_str() {
        "up" | "shunt" => Shade::Good,
        "trapped" => Shade::Plain,
        "connecting" => Shade::Doubtful,
        _ => Shade::Bad,
    }
}

fn state(row: &Row) -> String {
    match (row.state.as_str(), row.retry_in) {
        ("retry", Some(seconds)) => format!("retry {}", span(seconds)),
        ("up", _) if row.sas > 1 => format!("up, {} SAs", row.sas),
        (state, _) => printable(state).into_owned(),
    }
}

fn left(left: &Left) -> String {
    let seconds = left.seconds.map(|seconds| u64::try_from(seconds).map_or_else(|_| "now".into(), span));
    let bytes = left.bytes.map(|bytes| format!("{}B", amount(bytes)));
    let packets = left.packets.map(|packets| format!("{}p", amount(packets)));
    [seconds, bytes, packets].into_iter().flatten().collect::<Vec<_>>().join(" ")
}

fn trouble(row: &Row) -> Option<Vec<(Shade, String)>> {
    let (text, age) = row.trouble.as_ref()?;
    let age = age.map(|age| format!(" ({} ago)", span(age))).unwrap_or_default();
    let shade = if row.is_up() { Shade::Faint } else { Shade::Bad };
    Some(vec![(shade, format!("  last: {}{age}", printable(text)))])
}

/// A line that ends where the screen does.
fn clipped(line: Vec<(Shade, String)>, columns: usize) -> Vec<(Shade, String)> {
    let mut room = columns;
    let mut out = Vec::new();
    for (shade, text) in line {
        if room == 0 {
            break;
        }
        let taken = width(&text).min(room);
        // The age at the end of a cause stays.
        out.push((shade, super::cut(&text, room)));
        room -= taken;
    }
    out
}

impl Frame {
    /// The lines without shades.
    #[must_use]
    pub fn text(&self) -> String {
        let line = |line: &Vec<(Shade, String)>| line.iter().map(|(_, text)| text.as_str()).collect::<String>();
        self.lines.iter().map(|pieces| format!("{}\n", line(pieces).trim_end())).collect()
    }
}
