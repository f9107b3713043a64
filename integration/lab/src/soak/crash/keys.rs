//! The keys of IKE SAs, out of charon's log, to read what was captured.

use std::collections::{BTreeMap, VecDeque};

use anyhow::{Context, Result};
use ike_crypto::{IkeAead, ring_provider};
use ike_wire::ids::EncryptionId;
use ike_wire::{Message, SkBuffer, SkSizes};

/// SPIs of an IKE SA, the initiator's first.
pub(super) type IkeSpis = (u64, u64);

/// Octets of a key of AES-128-GCM with its salt.
const KEY: usize = 20;
/// Keys that nothing was encrypted with yet, among which the right ones are looked for.
const CANDIDATES: usize = 160;
/// Older ones than those found, by so many: nothing will ever be encrypted with them.
const STALE: usize = 60;

/// What encrypts to and fro.
struct Keys {
    initiator: Box<dyn IkeAead>,
    responder: Box<dyn IkeAead>,
}

impl Keys {
    fn open(&self, message: &Message<'_>) -> Option<SkBuffer> {
        let aead = if message.header.flags.initiator { &self.initiator } else { &self.responder };
        let sizes = SkSizes { iv: aead.iv_len(), icv: aead.icv_len(), block: aead.block_len() };
        let mut buffer = SkBuffer::open(message, sizes).ok()?;
        let parts = buffer.parts();
        aead.open(parts.associated, parts.iv, parts.body, parts.icv).ok()?;
        Some(buffer)
    }
}

/// All keys that charon has told, those in use by the SPIs they belong to.
pub(super) struct Keyring {
    waiting: VecDeque<Keys>,
    known: BTreeMap<IkeSpis, Keys>,
}

impl Keyring {
    /// Reads charon's log.
    pub(super) fn read(log: &str) -> Result<Self> {
        let cipher = ring_provider().ike_cipher(EncryptionId::AES_GCM_16, Some(128)).context("no AES-GCM")?;
        let mut waiting = VecDeque::new();
        // Keys of one IKE SA are told by one thread, those of several may mix.
        let mut first = BTreeMap::new();
        for (thread, name, octets) in secrets(log) {
            let key = cipher.key(&octets, None)?;
            match name {
                "Sk_ei" => drop(first.insert(thread, key)),
                _ => waiting.extend(first.remove(thread).map(|initiator| Keys { initiator, responder: key })),
            }
        }
        Ok(Self { waiting, known: BTreeMap::new() })
    }

    /// Decrypts a message; nothing when charon has told no keys that fit.
    pub(super) fn open(&mut self, message: &Message<'_>) -> Option<SkBuffer> {
        let spis = (message.header.initiator_spi.0, message.header.responder_spi.0);
        if let Some(keys) = self.known.get(&spis) {
            return keys.open(message);
        }
        let place = self.waiting.iter().take(CANDIDATES).position(|keys| keys.open(message).is_some())?;
        let keys = self.waiting.remove(place)?;
        self.waiting.drain(..place.saturating_sub(STALE));
        let opened = keys.open(message);
        self.known.insert(spis, keys);
        opened
    }
}

/// Each key of the encryption of IKE messages: who told it, which it is, its octets.
fn secrets(log: &str) -> Vec<(&str, &'static str, Vec<u8>)> {
    let mut found = Vec::new();
    let mut lines = log.lines();
    while let Some(line) = lines.next() {
        let name =
            ["Sk_ei", "Sk_er"].into_iter().find(|name| line.contains(&format!("[IKE] {name} secret => {KEY} bytes")));
        let Some(name) = name else { continue };
        let octets: Vec<u8> = lines.by_ref().take(KEY.div_ceil(16)).flat_map(dumped).collect();
        if octets.len() == KEY {
            found.push((thread(line), name, octets));
        }
    }
    found
}

/// What stands between the time and the bracket of the group: the number of the thread.
fn thread(line: &str) -> &str {
    line.split("[IKE]").next().and_then(|before| before.split_whitespace().last()).unwrap_or_default()
}

/// The octets of one line of a dump: 16 at most, then the same as text.
fn dumped(line: &str) -> Vec<u8> {
    let Some((_, rest)) = line.split_once(": ").filter(|(before, _)| before.contains("[IKE] ")) else {
        return Vec::new();
    };
    let is_octet = |word: &&str| word.len() == 2;
    rest.split(' ').take(16).take_while(is_octet).map_while(|word| u8::from_str_radix(word, 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_found_in_a_log_of_several_threads() {
        let log = "\
2026-11-26T04:00:01 1795665601.331 08[IKE] Sk_d secret => 32 bytes @ 0x7f4128001930
2026-11-26T04:00:01 1795665601.331 08[IKE]    0: 00 01 02 03 04 05 06 07 08 09 0A 0B 0C 0D 0E 0F  ................
2026-11-26T04:00:01 1795665601.331 08[IKE]   16: 00 01 02 03 04 05 06 07 08 09 0A 0B 0C 0D 0E 0F  ................
2026-11-26T04:00:01 1795665601.331 08[IKE] Sk_ei secret => 20 bytes @ 0x7f4128004250
2026-11-26T04:00:01 1795665601.331 08[IKE]    0: 00 01 02 03 04 05 06 07 08 09 0A 0B 0C 0D 0E 0F  ................
2026-11-26T04:00:01 1795665601.331 08[IKE]   16: 61 62 63 64                                      abcd
2026-11-26T04:00:01 1795665601.331 11[IKE] received DELETE for IKE_SA c0[16]
2026-11-26T04:00:01 1795665601.331 08[IKE] Sk_er secret => 20 bytes @ 0x7f4128004264
2026-11-26T04:00:01 1795665601.331 08[IKE]    0: 10 01 02 03 04 05 06 07 08 09 0A 0B 0C 0D 0E 0F  ................
2026-11-26T04:00:01 1795665601.331 08[IKE]   16: 41 42 43 44                                      ABCD
";
        let found = secrets(log);
        let names: Vec<_> = found.iter().map(|(thread, name, octets)| (*thread, *name, octets.len())).collect();
        assert_eq!(names, [("08", "Sk_ei", KEY), ("08", "Sk_er", KEY)]);
        assert_eq!((found[0].2[19], found[1].2[0]), (0x64, 0x10));
        assert_eq!(Keyring::read(log).unwrap().waiting.len(), 1);
    }
}
