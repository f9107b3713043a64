//! `cygnet status --watch`: looks at the daemon again and again, over its restarts, and shows what it sees until it is told to end.

mod looks;
mod terminal;

use std::io::{self, IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use swanctl_compat::vici::client::ClientError;
use swanctl_compat::watch::{Choice, Screen, Shade, Sort, View, json, lines, unreachable_json, unreachable_line};

use self::looks::{Looks, Seen};
use self::terminal::{Key, Terminal};
use crate::moment::Clock;
use crate::paint::{Colour, Paint};

/// What is asked for.
#[derive(Clone, Debug)]
pub(crate) struct Wish {
    /// Socket of the daemon.
    pub(crate) uri: String,
    /// Only this connection.
    pub(crate) connection: Option<String>,
    /// Between two looks.
    pub(crate) interval: Duration,
    /// Which children, in which order.
    pub(crate) choice: Choice,
    /// One JSON object for each look.
    pub(crate) json: bool,
    /// Looks after which to end; none = never.
    pub(crate) count: Option<u64>,
    /// Colours.
    pub(crate) colour: Colour,
}

/// How long keys and signals wait at most.
const ATTENTION: Duration = Duration::from_millis(100);
/// How long a daemon may take to answer, besides some intervals, before that is said.
const PATIENCE: Duration = Duration::from_secs(5);

pub(crate) fn run(wish: &Wish) -> Result<u8, ClientError> {
    let ending = terminal::until_told()?;
    let looks = Looks::start(&wish.uri, wish.connection.clone(), wish.interval);
    // Without keys a screen could only be left by a signal.
    let on_terminal = !wish.json && io::stdout().is_terminal() && io::stdin().is_terminal();
    let shown = if on_terminal { live(wish, &looks, &ending) } else { written(wish, &looks, &ending) };
    match shown {
        // Whoever reads us has gone.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(0),
        Err(error) => Err(error.into()),
        Ok(()) => Ok(0),
    }
}

/// Lines or objects, one after the other.
fn written(wish: &Wish, looks: &Looks, ending: &terminal::Ending) -> io::Result<()> {
    let (mut view, mut count) = (View::default(), 0);
    while !ending.is_told() {
        let Some(seen) = looks.next(ATTENTION) else { continue };
        let time = time_of_day();
        let text = match (&seen, wish.json) {
            (Seen::Children(look), as_json) => {
                view.look(look);
                if as_json { format!("{}\n", json(&view, wish.choice)) } else { lines(&view, wish.choice, &time) }
            }
            (Seen::Nothing { wall, why }, true) => format!("{}\n", unreachable_json(*wall, why)),
            (Seen::Nothing { why, .. }, false) => unreachable_line(&time, why),
        };
        if let Seen::Nothing { .. } = seen {
            view.forget();
        }
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes())?;
        out.flush()?;
        count += 1;
        if wish.count == Some(count) {
            break;
        }
    }
    Ok(())
}

/// What is on the screen besides the view.
struct Shown {
    choice: Choice,
    above: usize,
    /// Since when the daemon cannot be reached, and why.
    lost: Option<(String, String)>,
    most_above: usize,
}

/// A screen that follows.
fn live(wish: &Wish, looks: &Looks, ending: &terminal::Ending) -> io::Result<()> {
    let mut terminal = Terminal::take()?;
    let paint = wish.colour.paint();
    let interval = format!("{}s", wish.interval.as_secs_f64());
    let (mut view, mut count) = (View::default(), 0);
    let mut shown = Shown { choice: wish.choice, above: 0, lost: None, most_above: 0 };
    let (mut heard, patience) = (Instant::now(), wish.interval * 3 + PATIENCE);
    let mut size = terminal.size();
    let mut changed = true;
    while !ending.is_told() {
        if changed {
            let frame = draw(&view, &mut shown, size, &interval);
            terminal.show(&frame.iter().map(|line| coloured(line, paint)).collect::<Vec<_>>())?;
        }
        changed = false;
        for key in terminal.keys(ATTENTION)? {
            changed = true;
            match key {
                Key::Quit => return Ok(()),
                Key::Sort => shown.choice.sort = shown.choice.sort.next(),
                Key::Down => shown.choice.down = !shown.choice.down,
                Key::Lines(by) => shown.above = moved(shown.above, by, shown.most_above),
                Key::Pages(by) => {
                    let page = isize::try_from(size.1.saturating_sub(4).max(1)).unwrap_or(1);
                    shown.above = moved(shown.above, by.saturating_mul(page), shown.most_above);
                }
            }
        }
        if heard.elapsed() > patience && shown.lost.is_none() {
            changed = true;
            shown.lost = Some((time_of_day(), "it does not answer".into()));
        }
        if let Some(seen) = looks.next(Duration::ZERO) {
            changed = true;
            heard = Instant::now();
            take(&mut view, &mut shown, seen);
            count += 1;
            if wish.count == Some(count) {
                return Ok(());
            }
        }
        let now = terminal.size();
        changed |= now != size;
        size = now;
    }
    Ok(())
}

fn take(view: &mut View, shown: &mut Shown, seen: Seen) {
    match seen {
        Seen::Children(look) => {
            view.look(&look);
            shown.lost = None;
        }
        Seen::Nothing { why, .. } => {
            view.forget();
            let since = shown.lost.take().map_or_else(time_of_day, |(since, _)| since);
            shown.lost = Some((since, why));
        }
    }
}

fn draw(view: &View, shown: &mut Shown, (columns, lines): (usize, usize), interval: &str) -> Vec<Vec<(Shade, String)>> {
    let time = time_of_day();
    let mut screen = Screen {
        columns,
        lines,
        above: shown.above,
        choice: shown.choice,
        interval,
        time: &time,
        lost: shown.lost.as_ref().map(|(since, why)| (since.as_str(), why.as_str())),
    };
    let mut frame = screen.draw(view);
    shown.most_above = frame.most_above;
    if shown.above > frame.most_above {
        shown.above = frame.most_above;
        screen.above = shown.above;
        frame = screen.draw(view);
    }
    frame.lines
}

fn moved(above: usize, by: isize, most: usize) -> usize {
    above.saturating_add_signed(by).min(most)
}

fn coloured(line: &[(Shade, String)], paint: Paint) -> String {
    let piece = |(shade, text): &(Shade, String)| match shade {
        Shade::Plain => text.clone(),
        Shade::Strong => paint.heading(text),
        Shade::Good => paint.good(text),
        Shade::Doubtful => paint.doubtful(text),
        Shade::Bad => paint.bad(text),
        Shade::Faint => paint.faint(text),
    };
    line.iter().map(piece).collect()
}

fn time_of_day() -> String {
    let clock = Clock::new(false);
    let shown = clock.show(clock.now_ms());
    shown.rsplit(' ').next().unwrap_or_default().to_owned()
}

/// `2`, `0.5`, `500ms`, `10s`, `1m`.
pub(crate) fn interval(text: &str) -> Result<Duration, String> {
    let number = |text: &str| text.parse::<f64>().ok().filter(|number| number.is_finite());
    let seconds = match text.strip_suffix("ms") {
        Some(milliseconds) => number(milliseconds).map(|number| number / 1_000.0),
        None => number(text.strip_suffix('s').unwrap_or(text))
            .or_else(|| crate::moment::ago(text).map(|seconds| f64::from(u32::try_from(seconds).unwrap_or(u32::MAX)))),
    };
    seconds
        .filter(|seconds| (0.1..=3_600.0).contains(seconds))
        .map(Duration::from_secs_f64)
        .ok_or_else(|| "expected 0.1 to 3600 seconds, such as 2, 0.5 or 1m".to_owned())
}

/// `throughput`, `name`, `state`.
pub(crate) fn sort(text: &str) -> Result<Sort, String> {
    let all = [Sort::Name, Sort::Throughput, Sort::State];
    all.into_iter().find(|sort| sort.name() == text).ok_or_else(|| "expected name, throughput or state".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_seconds_unless_they_say_otherwise() {
        let good = [("2", 2_000), ("0.5", 500), ("500ms", 500), ("10s", 10_000), ("1m", 60_000)];
        for (text, milliseconds) in good {
            assert_eq!(interval(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
        for wrong in ["0", "0.01", "-1", "4000", "x", "", "NaN", "inf"] {
            assert!(interval(wrong).is_err(), "{wrong}");
        }
        assert_eq!(sort("state"), Ok(Sort::State));
        assert!(sort("size").is_err());
    }

    #[test]
    fn scrolling_stays_within_the_list() {
        assert_eq!([moved(0, -1, 9), moved(0, 1, 9), moved(8, 20, 9), moved(0, 1, 0)], [0, 1, 9, 0]);
    }
}
