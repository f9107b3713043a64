//! One message as it goes out: in one datagram, or in one for each of its fragments (RFC 7383 §2.5).

use std::slice;

/// The octets of a message. They are kept as they were sent: a repetition is the whole set again, octet for octet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Datagrams {
    /// The message as a whole.
    One(Box<[u8]>),
    /// Its fragments in their order.
    Fragments(Box<[Box<[u8]>]>),
}

impl Datagrams {
    /// The datagrams in the order in which they are sent.
    pub(crate) fn iter(&self) -> slice::Iter<'_, Box<[u8]>> {
        match self {
            Self::One(octets) => slice::from_ref(octets).iter(),
            Self::Fragments(all) => all.iter(),
        }
    }
}

impl From<Vec<u8>> for Datagrams {
    fn from(octets: Vec<u8>) -> Self {
        Self::One(octets.into())
    }
}

impl FromIterator<Vec<u8>> for Datagrams {
    fn from_iter<I: IntoIterator<Item = Vec<u8>>>(all: I) -> Self {
        let mut all: Vec<Box<[u8]>> = all.into_iter().map(Vec::into_boxed_slice).collect();
        match all.pop() {
            Some(only) if all.is_empty() => Self::One(only),
            last => Self::Fragments(all.into_iter().chain(last).collect()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_datagram_is_a_whole_message_and_more_keep_their_order() {
        let one: Datagrams = [vec![1, 2]].into_iter().collect();
        assert_eq!(one, vec![1, 2].into());
        let three: Datagrams = [vec![1], vec![2], vec![3]].into_iter().collect();
        assert!(matches!(three, Datagrams::Fragments(_)));
        assert_eq!(three.iter().map(|octets| octets[0]).collect::<Vec<_>>(), [1, 2, 3]);
    }
}
