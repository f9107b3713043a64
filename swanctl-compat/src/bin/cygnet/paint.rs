//! Colours, on a terminal only.

use std::io::IsTerminal as _;

/// When output is coloured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Colour {
    /// On a terminal, unless NO_COLOR is set.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// Colours text, or leaves it as it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Paint(bool);

impl Colour {
    /// Decides.
    pub(crate) fn paint(self) -> Paint {
        Paint(match self {
            Self::Always => true,
            Self::Never => false,
            Self::Auto => {
                std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
            }
        })
    }
}

impl Paint {
    /// A heading.
    pub(crate) fn heading(self, text: &str) -> String {
        self.with("1", text)
    }

    /// What is up.
    pub(crate) fn good(self, text: &str) -> String {
        self.with("32", text)
    }

    /// What ended as nobody asked for, or failed.
    pub(crate) fn bad(self, text: &str) -> String {
        self.with("31", text)
    }

    /// What is on its way.
    pub(crate) fn doubtful(self, text: &str) -> String {
        self.with("33", text)
    }

    /// What is of little weight.
    pub(crate) fn faint(self, text: &str) -> String {
        self.with("2", text)
    }

    fn with(self, code: &str, text: &str) -> String {
        if self.0 { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_on_or_off() {
        assert_eq!(Colour::Always.paint().bad("x"), "\x1b[31mx\x1b[0m");
        assert_eq!(Colour::Never.paint().good("x"), "x");
    }
}
