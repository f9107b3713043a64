//! A foreign judge: captures that tests have kept together with the keys of their SAs are decrypted by tshark, packet by packet.
//!
//! A test of the guest leaves `NAME.pcap` and `NAME.keys`. The latter's lines are `esp COUNT`, how many ESP packets the test saw, and
//! `sa SOURCE DESTINATION SPI KEY` for each SA: AES-GCM with an ICV of 16 octets, the salt behind the key. tshark lives here and not in the guest,
//! where it and its libraries would be larger than all the rest.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::tool;

/// Judges every capture below a folder; false when an ESP packet of one could not be opened.
///
/// # Errors
/// tshark is missing, or a file is not what it should be.
pub(crate) fn judge(folder: &Path) -> Result<bool> {
    let mut passed = true;
    for keys in tool::files_below(folder)?.iter().filter(|path| path.extension().is_some_and(|end| end == "keys")) {
        let text = fs::read_to_string(keys).with_context(|| format!("reading {}", keys.display()))?;
        let said = Said::parse(&text).with_context(|| format!("in {}", keys.display()))?;
        let output = tool::output(&mut command(&keys.with_extension("pcap"), &said.sas))?;
        let opened = output.lines().filter(|line| is_opened(line)).count();
        let (seen, name) = (output.lines().count(), keys.file_stem().unwrap_or_default().to_string_lossy());
        println!("kernel-lab: tshark opens {opened} of {seen} ESP packets of {name}");
        if opened != seen || seen != said.count {
            println!("kernel-lab: {name} should have had {} ESP packets, all with a good ICV", said.count);
            passed = false;
        }
    }
    Ok(passed)
}

/// What a test says of its capture.
#[derive(Debug, PartialEq, Eq)]
struct Said {
    count: usize,
    sas: Vec<String>,
}

impl Said {
    fn parse(text: &str) -> Result<Self> {
        let (mut count, mut sas) = (None, Vec::new());
        for line in text.lines() {
            match line.split_whitespace().collect::<Vec<_>>().as_slice() {
                ["esp", number] => count = Some(number.parse().with_context(|| format!("{number} is no count"))?),
                ["sa", source, destination, spi, key] => sas.push(preference(source, destination, spi, key)),
                _ => bail!("`{line}` is no line of keys"),
            }
        }
        ensure!(!sas.is_empty(), "no SA");
        Ok(Said { count: count.context("no count of ESP packets")?, sas })
    }
}

/// An SA in tshark's words.
fn preference(source: &str, destination: &str, spi: &str, key: &str) -> String {
    let family = if source.contains(':') { "IPv6" } else { "IPv4" };
    let cipher = "AES-GCM with 16 octet ICV [RFC4106]";
    // It asks for "NULL" beside an AEAD, and checks the AEAD's ICV all the same.
    format!("uat:esp_sa:\"{family}\",\"{source}\",\"{destination}\",\"{spi}\",\"{cipher}\",\"{key}\",\"NULL\",\"\"")
}

/// One line for each ESP packet: whether its ICV is good, and the next header inside.
fn command(capture: &Path, sas: &[String]) -> Command {
    let mut command = Command::new("tshark");
    command.args(["-n", "-r"]).arg(capture);
    for switch in ["esp.enable_encryption_decode:TRUE", "esp.enable_authentication_check:TRUE"] {
        command.args(["-o", switch]);
    }
    for sa in sas {
        command.args(["-o", sa]);
    }
    command.args(["-Y", "esp", "-T", "fields", "-e", "esp.icv_good", "-e", "esp.protocol"]);
    command
}

fn is_opened(line: &str) -> bool {
    matches!(line.split('\t').collect::<Vec<_>>().as_slice(), ["1" | "True", next_header] if !next_header.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_and_handed_over() {
        let said =
            Said::parse("esp 2\nsa 192.0.2.1 192.0.2.2 0xc1 0x0102\nsa 2001:db8::1 2001:db8::2 0xc2 0x03\n").unwrap();
        assert_eq!(said.count, 2);
        let [first, second] = said.sas.as_slice() else { panic!("{:?}", said.sas) };
        assert!(
            first.contains("\"IPv4\",\"192.0.2.1\",\"192.0.2.2\",\"0xc1\"") && first.contains("\"0x0102\",\"NULL\"")
        );
        assert!(second.contains("\"IPv6\""));
        for broken in ["", "esp 2\n", "sa 192.0.2.1 192.0.2.2 0xc1 0x01\n", "esp many\n", "esp 1\nsa too few\n"] {
            assert!(Said::parse(broken).is_err(), "{broken:?}");
        }
    }

    #[test]
    fn a_packet_counts_only_with_a_good_icv_and_something_inside() {
        for (line, opened) in [("1\t0x04", true), ("0\t0x04", false), ("\t", false), ("1\t", false), ("", false)] {
            assert_eq!(is_opened(line), opened, "{line:?}");
        }
    }
}
