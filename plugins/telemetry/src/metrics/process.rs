//! The process, as far as Linux tells of it, under the names that all exporters use.

use std::fs;

use rustix::process::{Resource, getrlimit};

use super::family::{
    PROCESS_CPU, PROCESS_FDS, PROCESS_MAX_FDS, PROCESS_RSS, PROCESS_START, PROCESS_THREADS, PROCESS_VIRTUAL,
};
use super::text::Page;

pub(super) fn tell(page: &mut Page, started: f64) {
    if let Some(figures) = fs::read_to_string("/proc/self/stat").ok().as_deref().and_then(Figures::parse) {
        page.single(&PROCESS_CPU, figures.ticks as f64 / rustix::param::clock_ticks_per_second() as f64);
        page.single(&PROCESS_RSS, figures.pages.saturating_mul(rustix::param::page_size() as u64));
        page.single(&PROCESS_VIRTUAL, figures.virtual_octets);
        page.single(&PROCESS_THREADS, figures.threads);
    }
    if let Ok(files) = fs::read_dir("/proc/self/fd") {
        // One of them is this directory.
        page.single(&PROCESS_FDS, files.count().saturating_sub(1));
    }
    if let Some(most) = getrlimit(Resource::Nofile).current {
        page.single(&PROCESS_MAX_FDS, most);
    }
    page.single(&PROCESS_START, started);
}

#[derive(Debug, PartialEq, Eq)]
struct Figures {
    ticks: u64,
    threads: u64,
    virtual_octets: u64,
    pages: u64,
}

impl Figures {
    /// The fields of proc(5) that come after the name, which may hold anything.
    fn parse(stat: &str) -> Option<Self> {
        let (_, rest) = stat.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        let number = |place: usize| fields.get(place - 3)?.parse::<u64>().ok();
        Some(Self {
            ticks: number(14)? + number(15)?,
            threads: number(20)?,
            virtual_octets: number(23)?,
            pages: number(24)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_can_be_anything() {
        let stat =
            "42 (a) b (c) S 1 1 1 0 -1 4194560 9 9 9 9 150 25 9 9 20 0 7 0 12345 1000000 321 18446744073709551615 1";
        let figures = Figures { ticks: 175, threads: 7, virtual_octets: 1_000_000, pages: 321 };
        assert_eq!(Figures::parse(stat), Some(figures));
        assert_eq!(Figures::parse("42 (a) S"), None);
        let own = Figures::parse(&fs::read_to_string("/proc/self/stat").unwrap()).unwrap();
        assert!(own.threads > 0 && own.pages > 0 && own.virtual_octets > own.pages);
    }
}
