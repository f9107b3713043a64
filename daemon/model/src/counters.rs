//! What is counted of IKE messages and rekeyings: for every connection, and for all together.

use std::ops::AddAssign;

/// What is counted. A message is counted once it can be read, not when it is sent or comes again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(usize)]
pub enum Counter {
    /// An IKE SA was rekeyed by us.
    IkeRekeyInit,
    /// An IKE SA was rekeyed by the peer.
    IkeRekeyResp,
    /// A CHILD SA was rekeyed, by whomever.
    ChildRekey,
    /// A message could not be read: it breaks the format, its integrity check failed, or it holds a critical payload that nobody knows.
    Invalid,
    /// A message names an IKE SA that is not there.
    InvalidSpi,
    /// IKE_SA_INIT request received.
    IkeInitInReq,
    /// IKE_SA_INIT response received.
    IkeInitInResp,
    /// IKE_SA_INIT request made.
    IkeInitOutReq,
    /// IKE_SA_INIT response made.
    IkeInitOutResp,
    /// IKE_AUTH request received.
    IkeAuthInReq,
    /// IKE_AUTH response received.
    IkeAuthInResp,
    /// IKE_AUTH request made.
    IkeAuthOutReq,
    /// IKE_AUTH response made.
    IkeAuthOutResp,
    /// CREATE_CHILD_SA request received.
    CreateChildInReq,
    /// CREATE_CHILD_SA response received.
    CreateChildInResp,
    /// CREATE_CHILD_SA request made.
    CreateChildOutReq,
    /// CREATE_CHILD_SA response made.
    CreateChildOutResp,
    /// INFORMATIONAL request received.
    InfoInReq,
    /// INFORMATIONAL response received.
    InfoInResp,
    /// INFORMATIONAL request made.
    InfoOutReq,
    /// INFORMATIONAL response made.
    InfoOutResp,
}

impl Counter {
    /// How many there are.
    pub const COUNT: usize = 21;

    /// All of them, in the order in which they are shown.
    pub const ALL: [Self; Self::COUNT] = [
        Self::IkeRekeyInit,
        Self::IkeRekeyResp,
        Self::ChildRekey,
        Self::Invalid,
        Self::InvalidSpi,
        Self::IkeInitInReq,
        Self::IkeInitInResp,
        Self::IkeInitOutReq,
        Self::IkeInitOutResp,
        Self::IkeAuthInReq,
        Self::IkeAuthInResp,
        Self::IkeAuthOutReq,
        Self::IkeAuthOutResp,
        Self::CreateChildInReq,
        Self::CreateChildInResp,
        Self::CreateChildOutReq,
        Self::CreateChildOutResp,
        Self::InfoInReq,
        Self::InfoInResp,
        Self::InfoOutReq,
        Self::InfoOutResp,
    ];

    /// Its frozen name, as strongSwan's clients know it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::IkeRekeyInit => "ike-rekey-init",
            Self::IkeRekeyResp => "ike-rekey-resp",
            Self::ChildRekey => "child-rekey",
            Self::Invalid => "invalid",
            Self::InvalidSpi => "invalid-spi",
            Self::IkeInitInReq => "ike-init-in-req",
            Self::IkeInitInResp => "ike-init-in-resp",
            Self::IkeInitOutReq => "ike-init-out-req",
            Self::IkeInitOutResp => "ike-init-out-resp",
            Self::IkeAuthInReq => "ike-auth-in-req",
            Self::IkeAuthInResp => "ike-auth-in-resp",
            Self::IkeAuthOutReq => "ike-auth-out-req",
            Self::IkeAuthOutResp => "ike-auth-out-resp",
            Self::CreateChildInReq => "create-child-in-req",
            Self::CreateChildInResp => "create-child-in-resp",
            Self::CreateChildOutReq => "create-child-out-req",
            Self::CreateChildOutResp => "create-child-out-resp",
            Self::InfoInReq => "info-in-req",
            Self::InfoInResp => "info-in-resp",
            Self::InfoOutReq => "info-out-req",
            Self::InfoOutResp => "info-out-resp",
        }
    }
}

/// A number for each [`Counter`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters([u64; Counter::COUNT]);

impl Counters {
    /// One more.
    pub fn count(&mut self, what: Counter) {
        self.add(what, 1);
    }

    /// So many more.
    pub fn add(&mut self, what: Counter, more: u64) {
        if let Some(number) = self.0.get_mut(what as usize) {
            *number = number.saturating_add(more);
        }
    }

    /// How many so far.
    #[must_use]
    pub fn so_far(&self, what: Counter) -> u64 {
        self.0.get(what as usize).copied().unwrap_or(0)
    }

    /// All numbers, in the order in which they are shown.
    pub fn all(&self) -> impl Iterator<Item = (Counter, u64)> {
        Counter::ALL.into_iter().map(|what| (what, self.so_far(what)))
    }
}

impl AddAssign for Counters {
    fn add_assign(&mut self, other: Self) {
        for (number, more) in self.0.iter_mut().zip(other.0) {
            *number = number.saturating_add(more);
        }
    }
}

/// Whose counters are meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CounterScope {
    /// Those of everything together, messages of no connection included.
    Global,
    /// Those of a connection, which need not be configured any more.
    Connection(String),
    /// Those of each connection that anything was counted of.
    Each,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_counter_has_a_number_and_a_name_of_its_own() {
        let mut counters = Counters::default();
        for (times, what) in Counter::ALL.into_iter().enumerate() {
            assert_eq!(what as usize, times);
            (0..=times).for_each(|_| counters.count(what));
        }
        let mut sum = counters;
        sum += counters;
        for (times, (what, number)) in counters.all().enumerate() {
            assert_eq!((number, sum.so_far(what)), (times as u64 + 1, 2 * (times as u64 + 1)), "{}", what.name());
        }
        let names: std::collections::BTreeSet<_> = Counter::ALL.iter().map(|what| what.name()).collect();
        assert_eq!(names.len(), Counter::COUNT);
    }
}
