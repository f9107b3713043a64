//! What this run has in the kernel, for the next one: a crash leaves SAs that nothing in the kernel marks as ours.
//!
//! A line for each SA, written before the kernel is asked for it: direction, destination, SPI, mark, reqid. Never a key. Policies need no line, for
//! they carry a mark of ours (see [`crate::control`]). The file lies where a reboot empties it, like the kernel's tables.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use ipsec::{Direction, Mark, Spi};

use crate::xfrm::StateId;

const HEADER: &str = "cygnet-kernel 1";
/// Lines beyond twice those that matter after which the file is written anew.
const STALE: usize = 1_000;

/// See the module.
#[derive(Debug)]
pub(crate) struct Journal {
    file: Option<(PathBuf, File)>,
    lines: usize,
    left: Left,
}

/// What an earlier run had, or this one has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Left {
    /// SAs, with direction and reqid.
    pub(crate) sas: BTreeMap<StateId, (Direction, u32)>,
    /// What `net.core.xfrm_larval_drop` was.
    pub(crate) larval_drop: Option<String>,
}

impl Journal {
    /// Reads what an earlier run left and goes on from there. A journal that cannot be written to is no reason not to start.
    pub(crate) fn open(path: Option<PathBuf>) -> (Self, Left) {
        let mut journal = Self { file: None, lines: 0, left: Left::default() };
        let Some(path) = path else { return (journal, Left::default()) };
        if let Ok(text) = fs::read_to_string(&path) {
            journal.left = parse(&text);
        }
        let left = journal.left.clone();
        journal.rewrite(path);
        (journal, left)
    }

    fn rewrite(&mut self, path: PathBuf) {
        self.lines = self.left.sas.len();
        match write_anew(&path, &self.left) {
            Ok(file) => self.file = Some((path, file)),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "cannot write down which SAs are ours: after a crash they stay until their hard limit");
                self.file = None;
            }
        }
    }

    /// An SA is about to be added.
    pub(crate) fn added(&mut self, id: StateId, direction: Direction, reqid: u32) {
        self.left.sas.insert(id, (direction, reqid));
        self.append(&added(&id, direction, reqid));
    }

    /// An SA is gone.
    pub(crate) fn removed(&mut self, id: &StateId) {
        if self.left.sas.remove(id).is_some() {
            self.append(&format!("- {}\n", words(id)));
        }
    }

    /// What the setting was before the first run.
    pub(crate) fn note_larval_drop(&mut self, value: &str) {
        if self.left.larval_drop.as_deref() != Some(value) {
            self.left.larval_drop = Some(value.to_owned());
            self.append(&format!("larval_drop {value}\n"));
        }
    }

    fn append(&mut self, line: &str) {
        let Some((path, file)) = &mut self.file else { return };
        self.lines += 1;
        if self.lines > 2 * self.left.sas.len() + STALE {
            let path = path.clone();
            return self.rewrite(path);
        }
        if let Err(error) = file.write_all(line.as_bytes()) {
            tracing::warn!(path = %path.display(), %error, "cannot write down which SAs are ours");
        }
    }

    /// Nothing is left in the kernel.
    pub(crate) fn close(&mut self) {
        if let Some((path, _)) = self.file.take()
            && let Err(error) = fs::remove_file(&path)
        {
            tracing::warn!(path = %path.display(), %error, "cannot remove the journal of SAs");
        }
    }
}

/// A whole file in place of the old one, in one step.
fn write_anew(path: &Path, left: &Left) -> std::io::Result<File> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    let mut text = format!("{HEADER}\n");
    text.extend(left.sas.iter().map(|(id, (direction, reqid))| added(id, *direction, *reqid)));
    text.extend(left.larval_drop.iter().map(|value| format!("larval_drop {value}\n")));
    let new = path.with_extension("new");
    fs::write(&new, text)?;
    fs::rename(&new, path)?;
    OpenOptions::new().append(true).open(path)
}

fn added(id: &StateId, direction: Direction, reqid: u32) -> String {
    let way = match direction {
        Direction::Inbound | Direction::Forward => "in",
        Direction::Outbound => "out",
    };
    format!("+ {} {way} {reqid}\n", words(id))
}

fn words(id: &StateId) -> String {
    let mark = id.mark.map_or_else(|| "-".to_owned(), |mark| format!("{:x}/{:x}", mark.value, mark.mask));
    format!("{} {} {mark}", id.destination, id.spi)
}

/// A line that makes no sense, such as one that was being written, counts for nothing.
fn parse(text: &str) -> Left {
    let mut left = Left::default();
    let Some(lines) = text.strip_prefix(HEADER) else { return left };
    for line in lines.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        match words.as_slice() {
            ["+", destination, spi, mark, way @ ("in" | "out"), reqid] => {
                let direction = if *way == "in" { Direction::Inbound } else { Direction::Outbound };
                if let (Some(id), Ok(reqid)) = (id(destination, spi, mark), reqid.parse()) {
                    left.sas.insert(id, (direction, reqid));
                }
            }
            ["-", destination, spi, mark] => {
                if let Some(id) = id(destination, spi, mark) {
                    left.sas.remove(&id);
                }
            }
            ["larval_drop", value @ ("0" | "1")] => left.larval_drop = Some((*value).to_owned()),
            _ => {}
        }
    }
    left
}

fn id(destination: &str, spi: &str, mark: &str) -> Option<StateId> {
    let mark = match mark {
        "-" => None,
        mark => {
            let (value, mask) = mark.split_once('/')?;
            Some(Mark { value: u32::from_str_radix(value, 16).ok()?, mask: u32::from_str_radix(mask, 16).ok()? })
        }
    };
    let spi = Spi::new(u32::from_str_radix(spi, 16).ok()?)?;
    Some(StateId { destination: destination.parse().ok()?, spi, mark })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn some(number: u32, mark: Option<Mark>) -> StateId {
        StateId { destination: "2001:db8::1".parse().unwrap(), spi: Spi::new(256 + number).unwrap(), mark }
    }

    #[test]
    fn what_was_added_and_not_removed_is_found_again() {
        let path = crate::tests::scratch("journal").join("deep/kernel.journal");
        let (mut journal, left) = Journal::open(Some(path.clone()));
        assert_eq!(left, Left::default());
        let marked = some(2, Some(Mark::new(0x12, 0xff)));
        journal.added(some(1, None), Direction::Inbound, 7);
        journal.added(marked, Direction::Outbound, 8);
        journal.added(some(3, None), Direction::Outbound, 9);
        journal.removed(&some(1, None));
        journal.note_larval_drop("1");
        let expected = Left {
            sas: [(marked, (Direction::Outbound, 8)), (some(3, None), (Direction::Outbound, 9))].into(),
            larval_drop: Some("1".into()),
        };
        for cut in [0, 3] {
            let text = fs::read_to_string(&path).unwrap();
            fs::write(&path, format!("{text}+ 2001:db8::2 0000{}", &"1234 - in 5"[..11 - cut])).unwrap();
            let (_, left) = Journal::open(Some(path.clone()));
            assert!(left.sas.len() == expected.sas.len() + usize::from(cut == 0) || cut != 0);
            assert_eq!(left.larval_drop, expected.larval_drop);
        }
    }

    #[test]
    fn a_journal_of_many_short_lives_stays_short() {
        let path = crate::tests::scratch("journal-short").join("kernel.journal");
        let (mut journal, _) = Journal::open(Some(path.clone()));
        for number in 0..5_000 {
            journal.added(some(number, None), Direction::Inbound, 7);
            journal.removed(&some(number, None));
        }
        assert!(fs::read_to_string(&path).unwrap().lines().count() < 1_100);
        journal.close();
        assert!(!path.exists());
    }

    #[test]
    fn without_a_place_to_write_it_goes_on() {
        let (mut journal, left) = Journal::open(Some("/proc/nowhere/kernel.journal".into()));
        journal.added(some(1, None), Direction::Inbound, 7);
        journal.close();
        assert_eq!(left, Left::default());
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_harm(text in "(cygnet-kernel 1\n)?([-+] [0-9a-f.:]{0,9} [0-9a-f]{0,9} [-0-9a-f/]{0,9} (in|out|x)? ?[0-9]{0,12}\n?|.{0,40}\n)*") {
            parse(&text);
        }
    }
}
