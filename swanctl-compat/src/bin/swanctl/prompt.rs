//! Asking for passwords on the terminal, unseen.

use std::io::{self, IsTerminal as _};

use zeroize::Zeroizing;

/// Asks, or gives nothing when there is nobody to ask: no terminal, or an empty answer.
pub(crate) fn password(question: &str) -> io::Result<Option<Zeroizing<String>>> {
    if !has_terminal() {
        return Ok(None);
    }
    let answer = Zeroizing::new(rpassword::prompt_password(question)?);
    Ok(Some(answer).filter(|answer| !answer.is_empty()))
}

/// Whether somebody can be asked. What comes through a pipe is not taken for a password.
pub(crate) fn has_terminal() -> bool {
    io::stdin().is_terminal()
}
