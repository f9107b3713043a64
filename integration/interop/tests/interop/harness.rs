//! What every test needs: its name and its words when it fails; the rest is the lab's.

use anyhow::Result;
use libtest_mimic::{Failed, Trial};

pub(crate) use lab::pair::{Pair, SOON, with_pair};

/// A test by name.
pub(crate) fn trial(name: impl Into<String>, test: impl FnOnce() -> Result<()> + Send + 'static) -> Trial {
    let words = |error: anyhow::Error| error.chain().map(ToString::to_string).collect::<Vec<_>>().join("\n\ncause: ");
    Trial::test(name, move || test().map_err(|error| Failed::from(words(error))))
}
