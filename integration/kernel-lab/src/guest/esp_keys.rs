//! Keys of SAs as the kernel shows them, kept beside a capture: the lab has the capture decrypted by a program that nobody here wrote.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use lab::capture::Captured;
use lab::netns::Namespace;

/// Where files are put that the host gets.
const OUT: &str = "/lab/out";

/// SAs with their keys, from one or more looks.
#[derive(Debug, Default)]
pub(crate) struct Keys(BTreeSet<Sa>);

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Sa {
    source: String,
    destination: String,
    spi: String,
    key: String,
}

impl Keys {
    /// Takes the SAs that a place has now.
    pub(crate) fn look(&mut self, place: &Namespace) -> Result<()> {
        let text = place.ip(&["xfrm", "state"])?;
        let found = read(&text);
        ensure!(!found.is_empty(), "no SAs with AES-GCM in:\n{text}");
        self.0.extend(found);
        Ok(())
    }

    /// Puts the capture and the keys where the host gets them. Each line of the keys: source, destination, SPI, key with salt; the first line says how many
    /// ESP packets there are.
    pub(crate) fn keep(&self, name: &str, captured: &Captured) -> Result<()> {
        fs::create_dir_all(OUT)?;
        let path = Path::new(OUT);
        captured.write_pcap(&path.join(format!("{name}.pcap")))?;
        let mut text = format!("esp {}\n", captured.counts.esp);
        for sa in &self.0 {
            writeln!(text, "sa {} {} {} {}", sa.source, sa.destination, sa.spi, sa.key)?;
        }
        fs::write(path.join(format!("{name}.keys")), text).context("keeping keys")
    }
}

/// The SAs with AES-GCM out of what `ip xfrm state` prints.
fn read(text: &str) -> Vec<Sa> {
    let mut found = Vec::new();
    let (mut addresses, mut spi) = (None, None);
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["src", source, "dst", destination] if !line.starts_with(char::is_whitespace) => {
                addresses = Some(((*source).to_owned(), (*destination).to_owned()));
                spi = None;
            }
            ["proto", "esp", "spi", number, ..] => spi = Some((*number).to_owned()),
            ["aead", "rfc4106(gcm(aes))", key, "128"] => {
                if let (Some((source, destination)), Some(spi)) = (addresses.clone(), spi.clone()) {
                    found.push(Sa { source, destination, spi, key: (*key).to_owned() });
                }
            }
            _ => {}
        }
    }
    found
}
