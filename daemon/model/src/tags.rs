//! Marks and interface ids as configured, and as drawn for one CHILD SA.

use ipsec::Mark;
use serde::Serialize;

/// A number that may be drawn for each SA.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TagValue {
    /// This number.
    Fixed(u32),
    /// One number for each CHILD SA (for each IKE SA where a connection says so), the same in both directions (`%unique`).
    Unique,
    /// One number for each CHILD SA and direction (`%unique-dir`).
    UniqueByDirection,
    /// The number of `mark_in` or `mark_out` (`%same`; only where a mark is set).
    Same,
}

/// A mark as configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MarkConfig {
    /// Its value.
    pub value: TagValue,
    /// Bits that count.
    pub mask: u32,
}

/// `if_id_in` and `if_id_out`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InterfaceIds {
    /// From the peer.
    pub inbound: TagValue,
    /// To the peer.
    pub outbound: TagValue,
}

/// Everything that binds a child to marks and interfaces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TagConfig {
    /// `mark_in`: mark of packets that inbound policies apply to.
    pub mark_in: Option<MarkConfig>,
    /// `mark_out`: mark of packets that outbound policies and the outbound SA apply to.
    pub mark_out: Option<MarkConfig>,
    /// `mark_in_sa`: the inbound SA is bound to `mark_in`, too.
    pub mark_in_sa: bool,
    /// `set_mark_in`: mark that the inbound SA sets.
    pub set_mark_in: Option<MarkConfig>,
    /// `set_mark_out`: mark that the outbound SA sets.
    pub set_mark_out: Option<MarkConfig>,
    /// Interface ids; those of the connection where they are 0.
    pub interface: InterfaceIds,
}

/// What one CHILD SA was given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct DrawnTags {
    /// Mark of inbound policies.
    pub mark_in: Option<Mark>,
    /// Mark of the outbound side.
    pub mark_out: Option<Mark>,
    /// Mark that the inbound SA sets.
    pub set_mark_in: Option<Mark>,
    /// Mark that the outbound SA sets.
    pub set_mark_out: Option<Mark>,
    /// Interface id of the inbound side; 0 = none.
    pub if_id_in: u32,
    /// Interface id of the outbound side; 0 = none.
    pub if_id_out: u32,
}

impl Default for TagValue {
    fn default() -> Self {
        Self::Fixed(0)
    }
}

impl InterfaceIds {
    /// Whether there is any.
    #[must_use]
    pub fn is_any(&self) -> bool {
        *self != Self::default()
    }

    /// Both numbers; `draw` gives one that nobody else has.
    pub fn draw(self, mut draw: impl FnMut() -> u32) -> (u32, u32) {
        let shared = match (self.inbound, self.outbound) {
            (TagValue::Unique, _) | (_, TagValue::Unique) => draw(),
            _ => 0,
        };
        (value(self.inbound, shared, &mut draw), value(self.outbound, shared, &mut draw))
    }
}

impl TagConfig {
    /// Whether there is any mark.
    #[must_use]
    pub fn has_marks(&self) -> bool {
        [self.mark_in, self.mark_out, self.set_mark_in, self.set_mark_out].iter().any(Option::is_some)
    }

    /// Whether there is anything.
    #[must_use]
    pub fn is_any(&self) -> bool {
        self.has_marks() || self.interface.is_any()
    }

    /// What one CHILD SA below an IKE SA with the interface ids `ike` is given; `draw` gives numbers that nobody else has.
    pub fn draw(&self, ike: (u32, u32), mut draw: impl FnMut() -> u32) -> DrawnTags {
        let unique = |mark: Option<MarkConfig>| mark.is_some_and(|mark| mark.value == TagValue::Unique);
        let shared = if unique(self.mark_in) || unique(self.mark_out) { draw() } else { 0 };
        let mut match_mark =
            |mark: Option<MarkConfig>| mark.map(|mark| Mark::new(value(mark.value, shared, &mut draw), mark.mask));
        let (mark_in, mark_out) = (match_mark(self.mark_in), match_mark(self.mark_out));
        let set = |mark: Option<MarkConfig>, same: Option<Mark>| {
            mark.map(|mark| match mark.value {
                TagValue::Fixed(number) => Mark::new(number, mark.mask),
                TagValue::Same | TagValue::Unique | TagValue::UniqueByDirection => {
                    Mark::new(same.map_or(0, |same| same.value), mark.mask)
                }
            })
        };
        let own = self.interface.draw(&mut draw);
        let or = |own: u32, ike: u32| if own == 0 { ike } else { own };
        DrawnTags {
            mark_in,
            mark_out,
            set_mark_in: set(self.set_mark_in, mark_in),
            set_mark_out: set(self.set_mark_out, mark_out),
            if_id_in: or(own.0, ike.0),
            if_id_out: or(own.1, ike.1),
        }
    }
}

fn value(configured: TagValue, shared: u32, draw: &mut impl FnMut() -> u32) -> u32 {
    match configured {
        TagValue::Fixed(number) => number,
        TagValue::Unique => shared,
        TagValue::UniqueByDirection => draw(),
        TagValue::Same => 0,
    }
}

impl DrawnTags {
    /// Whether there is nothing.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counter() -> impl FnMut() -> u32 {
        let mut next = 0;
        move || {
            next += 1;
            next
        }
    }

    fn mark(value: TagValue) -> Option<MarkConfig> {
        Some(MarkConfig { value, mask: u32::MAX })
    }

    #[test]
    fn one_number_for_both_directions_or_one_for_each() {
        let unique =
            TagConfig { mark_in: mark(TagValue::Unique), mark_out: mark(TagValue::Unique), ..TagConfig::default() };
        let drawn = unique.draw((0, 0), counter());
        assert_eq!((drawn.mark_in, drawn.mark_out), (Some(Mark::new(1, u32::MAX)), Some(Mark::new(1, u32::MAX))));
        let each = TagValue::UniqueByDirection;
        let each = TagConfig { mark_in: mark(each), mark_out: mark(each), ..TagConfig::default() };
        let drawn = each.draw((0, 0), counter());
        assert_eq!((drawn.mark_in, drawn.mark_out), (Some(Mark::new(1, u32::MAX)), Some(Mark::new(2, u32::MAX))));
    }

    #[test]
    fn the_mark_that_is_set_may_be_the_one_that_is_met() {
        let config = TagConfig {
            mark_out: mark(TagValue::Fixed(7)),
            set_mark_in: Some(MarkConfig { value: TagValue::Fixed(0x123), mask: 0xff }),
            set_mark_out: mark(TagValue::Same),
            ..TagConfig::default()
        };
        let drawn = config.draw((0, 0), counter());
        assert_eq!(
            (drawn.set_mark_in, drawn.set_mark_out),
            (Some(Mark::new(0x23, 0xff)), Some(Mark::new(7, u32::MAX)))
        );
    }

    #[test]
    fn a_child_without_interface_ids_has_those_of_its_ike_sa() {
        let own = InterfaceIds { inbound: TagValue::Fixed(5), outbound: TagValue::Fixed(0) };
        let config = TagConfig { interface: own, ..TagConfig::default() };
        let drawn = config.draw((8, 9), counter());
        assert_eq!((drawn.if_id_in, drawn.if_id_out), (5, 9));
        assert!(TagConfig::default().draw((0, 0), counter()).is_none());
        let unique = InterfaceIds { inbound: TagValue::Unique, outbound: TagValue::Unique };
        assert_eq!(unique.draw(counter()), (1, 1));
        let each = InterfaceIds { inbound: TagValue::UniqueByDirection, outbound: TagValue::UniqueByDirection };
        assert_eq!(each.draw(counter()), (1, 2));
    }
}
