//! Message bodies under construction. Any may hold keys, so all are wiped.

use std::fmt;

use netlink_packet_core::{Emitable, Nla};
use zeroize::{Zeroize, Zeroizing};

/// A fixed part followed by attributes.
pub(super) struct Body(Zeroizing<Vec<u8>>);

impl Body {
    /// A body that begins with `fixed`.
    pub(super) fn of(fixed: &impl Emitable) -> Self {
        let mut body = Self::empty();
        let mut octets = vec![0; fixed.buffer_len()];
        fixed.emit(&mut octets);
        body.append(&octets);
        body
    }

    /// A body without a fixed part.
    pub(super) fn empty() -> Self {
        Self(Zeroizing::new(Vec::with_capacity(1024)))
    }

    /// Appends an attribute that holds no key.
    pub(super) fn attribute(&mut self, attribute: &impl Nla) {
        let mut value = vec![0; attribute.value_len()];
        attribute.emit_value(&mut value);
        self.value(attribute.kind(), &[&value]);
    }

    /// Appends an attribute made of `parts`, which may hold a key.
    pub(super) fn value(&mut self, kind: u16, parts: &[&[u8]]) {
        let length = parts.iter().map(|part| part.len()).sum::<usize>() + 4;
        // The attributes made here are far below 64 KiB; one that is not would be refused by the kernel as malformed.
        self.append(&u16::try_from(length).unwrap_or(u16::MAX).to_ne_bytes());
        self.append(&kind.to_ne_bytes());
        parts.iter().for_each(|part| self.append(part));
        let padding = [0; 3];
        self.append(padding.get(..length.next_multiple_of(4) - length).unwrap_or_default());
    }

    /// The octets.
    pub(super) fn octets(&self) -> &[u8] {
        &self.0
    }

    /// Appends without leaving a copy behind when the buffer grows.
    fn append(&mut self, octets: &[u8]) {
        if self.0.capacity() - self.0.len() < octets.len() {
            let mut larger = Zeroizing::new(Vec::with_capacity(2 * (self.0.len() + octets.len())));
            larger.extend_from_slice(&self.0);
            std::mem::replace(&mut self.0, larger).zeroize();
        }
        self.0.extend_from_slice(octets);
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} octets", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use offload_host::netlink::attributes;

    use super::*;
    use crate::netlink::attributes::{XFRMA_SA_PCPU, sa_pcpu};

    #[test]
    fn attributes_are_padded_and_survive_growth() {
        let mut body = Body::empty();
        body.value(7, &[b"a", b"bc"]);
        body.value(8, &[&[9; 3000]]);
        body.attribute(&sa_pcpu(3));
        let read: Vec<_> = attributes(body.octets()).map(|(kind, value)| (kind, value.len())).collect();
        assert_eq!(read, [(7, 3), (8, 3000), (XFRMA_SA_PCPU, 4)]);
        assert_eq!(format!("{body:?}"), "3020 octets");
    }
}
