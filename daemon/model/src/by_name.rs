//! Things by name, cheap to copy: a snapshot of thousands shares all of them but the few that have changed since.

use std::ops::Index;
use std::sync::Arc;

/// Names of one part at most; a part that grows beyond it is halved.
const PART: usize = 128;

type Part<V> = Vec<(String, V)>;

/// An ordered map from names to something. A copy shares its parts; changing one copies the part that is changed, and no other.
#[derive(Clone, Debug, PartialEq)]
pub struct ByName<V> {
    /// In the order of names, none of them empty.
    parts: Vec<Arc<Part<V>>>,
}

impl<V> Default for ByName<V> {
    fn default() -> Self {
        Self { parts: Vec::new() }
    }
}

impl<V: Clone> ByName<V> {
    /// What has this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&V> {
        let part = self.parts.get(self.part(name))?;
        let place = find(part, name).ok()?;
        part.get(place).map(|(_, value)| value)
    }

    /// Whether something has this name.
    #[must_use]
    pub fn contains_key(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// Adds something; gives what had its name.
    pub fn insert(&mut self, name: String, value: V) -> Option<V> {
        let number = self.part(&name);
        let Some(part) = self.parts.get_mut(number) else {
            self.parts.push(Arc::new(vec![(name, value)]));
            return None;
        };
        let part = Arc::make_mut(part);
        match find(part, &name) {
            Ok(place) => part.get_mut(place).map(|(_, old)| std::mem::replace(old, value)),
            Err(place) => {
                part.insert(place, (name, value));
                if part.len() > PART {
                    let upper = part.split_off(PART / 2);
                    self.parts.insert(number + 1, Arc::new(upper));
                }
                None
            }
        }
    }

    /// Takes something out.
    pub fn remove(&mut self, name: &str) -> Option<V> {
        let number = self.part(name);
        let part = self.parts.get_mut(number)?;
        let place = find(part, name).ok()?;
        let part = Arc::make_mut(part);
        let (_, old) = part.remove(place);
        if part.is_empty() {
            self.parts.remove(number);
        }
        Some(old)
    }

    /// Takes all of them out.
    pub fn clear(&mut self) {
        self.parts.clear();
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.parts.iter().map(|part| part.len()).sum()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// Names and what has them, in the order of names.
    pub fn iter(&self) -> impl Iterator<Item = (&String, &V)> {
        self.parts.iter().flat_map(|part| part.iter()).map(|(name, value)| (name, value))
    }

    /// Names in their order.
    pub fn keys(&self) -> impl Iterator<Item = &String> {
        self.iter().map(|(name, _)| name)
    }

    /// What has names, in the order of these.
    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.iter().map(|(_, value)| value)
    }

    /// The part where a name is, or would be: the last that begins with it or before it.
    fn part(&self, name: &str) -> usize {
        let begins_before = |part: &Arc<Part<V>>| part.first().is_some_and(|(first, _)| first.as_str() <= name);
        self.parts.partition_point(begins_before).saturating_sub(1)
    }
}

fn find<V>(part: &Part<V>, name: &str) -> Result<usize, usize> {
    part.binary_search_by(|(known, _)| known.as_str().cmp(name))
}

impl<V: Clone> Index<&str> for ByName<V> {
    type Output = V;

    /// # Panics
    /// When nothing has this name.
    fn index(&self, name: &str) -> &Self::Output {
        self.get(name).unwrap_or_else(|| panic!("nothing is called `{name}`"))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn it_holds_what_an_ordered_map_holds() {
        let (mut ours, mut other) = (ByName::default(), BTreeMap::new());
        let mut state = 1_u64;
        for round in 0..6_000_u64 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let name = format!("c{}", (state >> 33) % 700);
            // It grows, and then it shrinks until little is left.
            if (state >> 20) % 10 < if round < 3_000 { 8 } else { 2 } {
                assert_eq!(ours.insert(name.clone(), round), other.insert(name, round));
            } else {
                assert_eq!(ours.remove(&name), other.remove(&name));
            }
            assert_eq!(ours.len(), other.len());
        }
        assert!(ours.iter().eq(other.iter()));
        assert!(other.iter().all(|(name, value)| ours[name.as_str()] == *value));
        assert!(ours.get("a").is_none() && ours.get("d").is_none() && !ours.contains_key(""));
        for name in other.keys() {
            ours.remove(name);
        }
        assert!(ours.is_empty() && ours == ByName::default());
    }

    #[test]
    fn a_copy_shares_what_has_not_changed() {
        let mut all = ByName::default();
        for number in 0..5_000 {
            let name = format!("c{number:05}");
            all.insert(name, number);
        }
        let before = all.clone();
        all.insert("c02500x".into(), 0);
        let shared = all.parts.iter().filter(|part| before.parts.iter().any(|other| Arc::ptr_eq(part, other))).count();
        assert!(
            all.parts.len() < 5_000 / (PART / 2) + 2 && shared + 2 >= all.parts.len(),
            "{shared} of {}",
            all.parts.len()
        );
        assert_eq!((before.len(), all.len()), (5_000, 5_001));
    }
}
