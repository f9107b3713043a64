//! `daemon/sa/CONFORMANCE.md`: which code carries out a section of an RFC, and which test shows it.
//!
//! The table is made of the marks `//= RFC 7296 §2.8.1: ...` beside code and tests. A section that is listed in [`sections`] needs a mark on
//! both, or a reason why it has none.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test ends where an expectation fails"
)]

mod marks;
mod sections;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

use marks::{Mark, Place};
use sections::{RFCS, Rfc, Section};

/// Marks shown in one cell; the number of the others stands behind.
const SHOWN: usize = 6;

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

/// To write it anew: `UPDATE_CONFORMANCE=1 cargo test -p lab --test conformance`.
#[test]
fn the_table_is_current() {
    let path = root().join("daemon/sa/CONFORMANCE.md");
    let expected = render(&marks::all(root()));
    if std::env::var_os("UPDATE_CONFORMANCE").is_some() {
        std::fs::write(&path, &expected).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == expected,
        "daemon/sa/CONFORMANCE.md is out of date: UPDATE_CONFORMANCE=1 cargo test -p lab --test conformance"
    );
}

/// Every section is carried out and tested, or there is a reason why not.
#[test]
fn every_section_is_accounted_for() {
    let marks = marks::all(root());
    let mut gaps = Vec::new();
    for rfc in RFCS {
        for section in rfc.sections.iter().filter(|section| section.left_out.is_none()) {
            for place in [Place::Code, Place::Test] {
                if of(&marks, rfc, section, place).is_empty() {
                    gaps.push(format!("RFC {} §{} {}: no {place:?}", rfc.number, section.number, section.title));
                }
            }
        }
    }
    assert!(gaps.is_empty(), "{} gaps:\n{}", gaps.len(), gaps.join("\n"));
}

/// A mark that names a section which is not listed says something that the table would not show.
#[test]
fn every_mark_has_its_row() {
    let marks = marks::all(root());
    assert!(marks.len() > 100, "only {} marks found", marks.len());
    let listed = |mark: &Mark| {
        let rfc = RFCS.iter().find(|rfc| rfc.number == mark.rfc);
        rfc.is_none_or(|rfc| row(rfc, &mark.section).is_some())
    };
    let stray: Vec<_> = marks.iter().filter(|mark| !listed(mark)).collect();
    assert!(stray.is_empty(), "{stray:#?}");
}

/// The row of a section: its own, or that of the section which it is a part of.
fn row<'r>(rfc: &'r Rfc, section: &str) -> Option<&'r str> {
    let part_of =
        |number: &str| section.strip_prefix(number).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
    rfc.sections.iter().map(|section| section.number).filter(|number| part_of(number)).max_by_key(|number| number.len())
}

fn of<'m>(marks: &'m [Mark], rfc: &Rfc, section: &Section, place: Place) -> BTreeSet<&'m str> {
    let fits =
        |mark: &&Mark| mark.rfc == rfc.number && row(rfc, &mark.section) == Some(section.number) && mark.place == place;
    marks.iter().filter(fits).map(|mark| mark.at.as_str()).collect()
}

fn render(marks: &[Mark]) -> String {
    let mut out = String::from(
        "# Conformance\n\n\
         Which code carries out a section, and which test shows it; made of the marks beside both. Sections without requirements on an\n\
         implementation are not listed. Names are `file` and function.\n",
    );
    for rfc in RFCS {
        let _ =
            write!(out, "\n## RFC {}: {}\n\n| § | What | Code | Test |\n|---|---|---|---|\n", rfc.number, rfc.title);
        for section in rfc.sections.iter().filter(|section| section.left_out.is_none()) {
            let cell = |place| cell(&of(marks, rfc, section, place));
            let _ = writeln!(
                out,
                "| {} | {} | {} | {} |",
                section.number,
                section.title,
                cell(Place::Code),
                cell(Place::Test)
            );
        }
        let out_of = rfc.sections.iter().filter_map(|section| Some((section, section.left_out?)));
        let left: Vec<_> = out_of.collect();
        if !left.is_empty() {
            out.push_str("\nLeft out:\n\n| § | What | Why |\n|---|---|---|\n");
            for (section, why) in left {
                let _ = writeln!(out, "| {} | {} | {why} |", section.number, section.title);
            }
        }
    }
    out
}

fn cell(places: &BTreeSet<&str>) -> String {
    let mut shown: Vec<String> = places.iter().take(SHOWN).map(|place| (*place).to_owned()).collect();
    if places.len() > SHOWN {
        shown.push(format!("and {} more", places.len() - SHOWN));
    }
    shown.join("<br>")
}
