//! What a run must show, line by line.

/// The lines of a verdict.
#[derive(Debug, Default)]
pub struct Verdict {
    failed: usize,
}

impl Verdict {
    /// Prints one line.
    pub fn line(&mut self, passed: bool, text: &str) {
        println!("{} {text}", if passed { "pass" } else { "FAIL" });
        self.failed += usize::from(!passed);
    }

    /// The same of something that could fail in words.
    pub fn outcome(&mut self, what: &str, outcome: anyhow::Result<()>) {
        match outcome {
            Ok(()) => self.line(true, what),
            Err(error) => self.line(false, &format!("{what}: {error:#}")),
        }
    }

    /// Whether all passed.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.failed == 0
    }
}
