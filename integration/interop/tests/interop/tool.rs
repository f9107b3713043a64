//! `swanctl` as a program: what it sends, how it ends and what it shows, next to Debian's.

mod arguments;
mod certificates;

use libtest_mimic::Trial;

pub(crate) fn trials() -> Vec<Trial> {
    [arguments::trials(), certificates::trials()].into_iter().flatten().collect()
}
