//! The matrix: algorithms x key exchange x who initiates x forced UDP encapsulation, each cell a test with the whole life of a tunnel.

use anyhow::{Result, ensure};
use lab::peer::Peer;
use lab::topology::{Middle, Side};
use libtest_mimic::Trial;

use crate::harness::{trial, with_pair};
use crate::{life, peers};

/// Name in the test, IKE proposal without key exchange, ESP proposal without key exchange, name in `--list-sas`.
/// AES-CBC protects IKE only: the user-space datapath carries combined-mode ESP.
const CIPHERS: [(&str, &str, &str, &str); 3] = [
    ("aes_gcm", "aes256gcm16-prfsha384", "aes256gcm16", "AES_GCM_16 256"),
    ("aes_cbc", "aes128-sha256", "aes128gcm16", "AES_CBC 128"),
    ("chacha20", "chacha20poly1305-prfsha256", "chacha20poly1305", "CHACHA20_POLY1305"),
];

/// Name in the test, keyword, name in `--list-sas`.
const KEY_EXCHANGES: [(&str, &str, &str); 5] = [
    ("x25519", "x25519", "CURVE_25519"),
    ("p256", "ecp256", "ECP_256"),
    ("p384", "ecp384", "ECP_384"),
    ("modp2048", "modp2048", "MODP_2048"),
    ("modp3072", "modp3072", "MODP_3072"),
];

#[derive(Clone)]
struct Cell {
    /// The other daemon, where it is not the one that was chosen.
    other: Option<&'static str>,
    ike: String,
    esp: String,
    expected: [&'static str; 2],
    initiator: Side,
    forced: bool,
}

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    for (cipher, ike, esp, cipher_name) in CIPHERS {
        for (exchange, keyword, exchange_name) in KEY_EXCHANGES {
            for (role, initiator) in [("we_initiate", Side::A), ("it_initiates", Side::B)] {
                for (path, forced) in [("plain", false), ("nat_t_forced", true)] {
                    let cell = Cell {
                        other: None,
                        ike: format!("{ike}-{keyword}"),
                        esp: format!("{esp}-{keyword}"),
                        expected: [cipher_name, exchange_name],
                        initiator,
                        forced,
                    };
                    trials.push(trial(format!("matrix::{cipher}::{exchange}::{role}::{path}"), move || cell.run()));
                }
            }
        }
    }
    for (role, initiator) in [("we_initiate", Side::A), ("it_initiates", Side::B)] {
        let cell = Cell {
            other: Some("charon-6.0"),
            ike: "aes256gcm16-prfsha384-x25519".to_owned(),
            esp: "aes256gcm16-x25519".to_owned(),
            expected: ["AES_GCM_16 256", "CURVE_25519"],
            initiator,
            forced: true,
        };
        trials.push(trial(format!("matrix::charon_6_0::{role}"), move || cell.run()));
    }
    trials
}

impl Cell {
    fn peers(&self) -> Result<[&'static dyn Peer; 2]> {
        let [ours, chosen] = peers::chosen()?;
        Ok([ours, self.other.map_or(Ok(chosen), peers::by_name)?])
    }

    fn run(&self) -> Result<()> {
        let configure = |side, mut tunnel: lab::peer::conf::Tunnel| {
            tunnel.proposals.clone_from(&self.ike);
            tunnel.encap = self.forced && side == Side::A;
            for child in &mut tunnel.children {
                child.esp_proposals.clone_from(&self.esp);
            }
            tunnel
        };
        with_pair(&Middle::Direct, self.peers()?, configure, |lab, pair| {
            let capture = lab.capture()?;
            life::establish(pair, self.initiator)?;
            for side in [Side::A, Side::B] {
                let sas = pair.side(side).sas()?;
                let agreed = sas.iter().all(|sa| self.expected.iter().all(|name| sa.algorithms.contains(name)));
                ensure!(agreed && !sas.is_empty(), "{side:?} agreed to something else: {sas:#?}");
            }
            let streams = life::streams(lab)?;
            for side in [self.initiator, self.initiator.other()] {
                life::rekey_child(pair, side, "net4")?;
                life::rekey_child(pair, side, "net6")?;
                life::rekey_ike(pair, side)?;
            }
            let sent = life::all_arrived(streams)?;
            life::delete_child(pair, self.initiator, "net6")?;
            life::delete_ike(pair, self.initiator.other())?;
            for captured in capture.finish()? {
                let counts = &captured.counts;
                ensure!(counts.clear == 0 && captured.missed() == 0, "{counts}; missed {}", captured.missed());
                ensure!(counts.esp + counts.udp_esp >= sent, "{counts} for {sent} packets");
                ensure!(!self.forced || counts.esp == 0, "native ESP although UDP was forced: {counts}");
            }
            Ok(())
        })
    }
}
