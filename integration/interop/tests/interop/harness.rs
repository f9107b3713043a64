//! What every test needs: its name, its words when it fails and the time that it takes; the rest is the lab's.

use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Result;
use lab::peer::cygnet::Cygnet;
use lab::peer::{Peer, Recipe};
use libtest_mimic::{Failed, Trial};

pub(crate) use lab::pair::{Pair, SOON, with_pair};

/// How many tests run at the same time unless it is said otherwise. Each has networks, files and daemons of its own and waits most of its time, so
/// that a machine of two processors is not busy with one.
pub(crate) const AT_ONCE: usize = 3;

/// How long each test took.
static TIMES: Mutex<Vec<(Duration, String)>> = Mutex::new(Vec::new());

/// A test by name.
pub(crate) fn trial(name: impl Into<String>, test: impl FnOnce() -> Result<()> + Send + 'static) -> Trial {
    let words = |error: anyhow::Error| error.chain().map(ToString::to_string).collect::<Vec<_>>().join("\n\ncause: ");
    let name = name.into();
    Trial::test(name.clone(), move || {
        let started = Instant::now();
        let outcome = test().map_err(|error| Failed::from(words(error)));
        TIMES.lock().unwrap_or_else(PoisonError::into_inner).push((started.elapsed(), name));
        outcome
    })
}

/// Prints which tests took longest.
pub(crate) fn tell_longest() {
    let mut times = TIMES.lock().unwrap_or_else(PoisonError::into_inner);
    times.sort_unstable();
    let told = times.iter().rev().take(12).map(|(time, name)| format!("{name} {:.1} s", time.as_secs_f64()));
    println!("longest: {}", told.collect::<Vec<_>>().join(", "));
}

/// Cygnet whose clients may come by a port of its namespace as well, and with further lines of its section `[vici]`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ported {
    pub(crate) more: &'static str,
}

impl Ported {
    /// The port, on loopback.
    pub(crate) const PORT: u16 = 4502;
}

impl Peer for Ported {
    fn name(&self) -> &'static str {
        "cygnet"
    }

    fn prepare(&self, directory: &Path) -> Result<Recipe> {
        let recipe = Cygnet::default().prepare(directory)?;
        let later = directory.join("cygnetd.d");
        std::fs::create_dir_all(&later)?;
        let places = format!("[\"unix://{}\", \"tcp://127.0.0.1:{}\"]", recipe.socket.display(), Self::PORT);
        std::fs::write(later.join("vici.toml"), format!("[vici]\nsocket = {places}\n{}\n", self.more))?;
        Ok(recipe)
    }
}
