//! Both ends rekey the same SA at once: which of the two new SAs stays (RFC 7296 §2.8.1, §2.8.2). Pure.

/// Whose new SA stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The one of the exchange that we began.
    Ours,
    /// The one of the exchange that the peer began.
    Theirs,
}

/// The lower of an exchange's two nonces.
pub(crate) fn lowest<'n>(initiator: &'n [u8], responder: &'n [u8]) -> &'n [u8] {
    initiator.min(responder)
}

//= RFC 7296 §2.8.1: the exchange with the lowest of the four nonces loses
/// Decides between two exchanges by the lower nonce of each: the SA made with the lowest of all four is the redundant one.
pub(crate) fn verdict(ours: &[u8], theirs: &[u8]) -> Verdict {
    if ours < theirs { Verdict::Theirs } else { Verdict::Ours }
}

#[cfg(test)]
mod tests {
    use super::*;

    //= RFC 7296 §2.8.1: the SA created with the lowest of the four nonces should be closed by the endpoint that created it
    #[test]
    fn lowest_nonce_loses_wherever_it_is() {
        for (at, expected) in [(0, Verdict::Theirs), (1, Verdict::Theirs), (2, Verdict::Ours), (3, Verdict::Ours)] {
            let nonce = |index: usize| if index == at { vec![0; 32] } else { vec![9; 32] };
            let nonces = [nonce(0), nonce(1), nonce(2), nonce(3)];
            let (a, b) = (lowest(&nonces[0], &nonces[1]), lowest(&nonces[2], &nonces[3]));
            assert_eq!(verdict(a, b), expected);
            let other = if expected == Verdict::Ours { Verdict::Theirs } else { Verdict::Ours };
            assert_eq!(verdict(b, a), other, "both ends decide alike");
        }
    }

    #[test]
    fn equal_nonces_leave_ours() {
        assert_eq!(verdict(&[1, 2], &[1, 2]), Verdict::Ours);
    }

    #[test]
    fn a_prefix_is_lower() {
        assert_eq!(verdict(&[1, 2], &[1, 2, 0]), Verdict::Theirs);
    }
}
