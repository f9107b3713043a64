//! Text in cells of a terminal: how wide it is, cut to a width, and without anything that a terminal would obey.

/// Cells that a character takes. Most of what names are made of takes one; East Asian characters and pictures take two, marks that stand over the
/// character before them take none.
fn cells(c: char) -> usize {
    match u32::from(c) {
        0x0300..=0x036f | 0x200b..=0x200f | 0xfe00..=0xfe0f => 0,
        0x1100..=0x115f
        | 0x2e80..=0xa4cf
        | 0xac00..=0xd7a3
        | 0xf900..=0xfaff
        | 0xfe30..=0xfe6f
        | 0xff00..=0xff60
        | 0xffe0..=0xffe6
        | 0x1f300..=0x1faff
        | 0x20000..=0x3fffd => 2,
        _ => 1,
    }
}

/// Cells that a text takes.
#[must_use]
pub fn width(text: &str) -> usize {
    text.chars().map(cells).sum()
}

/// The text in so many cells at most. What is cut out is in the middle: the ends of names are what tells them apart.
#[must_use]
pub fn cut(text: &str, most: usize) -> String {
    if width(text) <= most {
        return text.to_owned();
    }
    let room = most.saturating_sub(1);
    let tail_room = room / 2;
    let mut head = String::new();
    for c in text.chars() {
        if width(&head) + cells(c) > room - tail_room {
            break;
        }
        head.push(c);
    }
    let mut tail: Vec<char> = Vec::new();
    let mut taken = 0;
    for c in text.chars().rev() {
        if taken + cells(c) > tail_room {
            break;
        }
        taken += cells(c);
        tail.push(c);
    }
    if most > 0 {
        head.push('…');
    }
    head.extend(tail.iter().rev());
    head
}

/// Cut and filled to exactly so many cells.
pub(super) fn fitted(text: &str, cells: usize) -> String {
    let mut out = cut(text, cells);
    out.extend(std::iter::repeat_n(' ', cells.saturating_sub(width(&out))));
    out
}

/// The same, at the right.
pub(super) fn right(text: &str, cells: usize) -> String {
    let text = cut(text, cells);
    let fill: String = std::iter::repeat_n(' ', cells.saturating_sub(width(&text))).collect();
    fill + &text
}

/// A number in five cells: `0`, `999`, `1.2k`, `12k`, `1.2M` ...
pub(super) fn amount(value: u64) -> String {
    const UNITS: [&str; 6] = ["k", "M", "G", "T", "P", "E"];
    if value < 1_000 {
        return value.to_string();
    }
    let (mut rest, mut unit) = (value, 0);
    while rest >= 1_000_000 {
        rest /= 1_000;
        unit += 1;
    }
    let unit = UNITS.get(unit).copied().unwrap_or("");
    match rest {
        ..10_000 => format!("{}.{}{unit}", rest / 1_000, rest % 1_000 / 100),
        _ => format!("{}{unit}", rest / 1_000),
    }
}

/// A span of time in four cells: `59s`, `59m`, `47h`, `99d`.
pub(super) fn span(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7_200 => format!("{}m", seconds / 60),
        7_200..172_800 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}
