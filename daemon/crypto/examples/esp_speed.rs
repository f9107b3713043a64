//! Speed of the ESP ciphers on one core: nanoseconds per packet of 1,408 octets (1,400 and its padding).
//!
//! `cargo run --release -p ike-crypto --example esp_speed [MILLISECONDS]`

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use ike_crypto::{CryptoError, EspCipher, ring_provider};

const PACKET_LEN: usize = 1408;
const HEADER: [u8; 8] = [0x5a; 8];

fn main() -> Result<(), CryptoError> {
    let milliseconds = std::env::args().nth(1).and_then(|argument| argument.parse().ok()).unwrap_or(300);
    let time = Duration::from_millis(milliseconds);
    println!("{:<44} {:>9} {:>9} {:>9} {:>9}", "cipher", "seal ns", "Gbit/s", "open ns", "Gbit/s");
    for cipher in ring_provider().esp_ciphers {
        let (seal, open) = measure(*cipher, time)?;
        println!("{:<44} {seal:>9.0} {:>9.2} {open:>9.0} {:>9.2}", name(*cipher), gigabits(seal), gigabits(open));
    }
    Ok(())
}

fn name(cipher: &dyn EspCipher) -> String {
    let key_bits = cipher.key_bits().map(|bits| format!("-{bits}")).unwrap_or_default();
    let integrity = cipher.integrity_id().map(|id| format!(" {id}")).unwrap_or_default();
    format!("{}{key_bits}{integrity}", cipher.id())
}

/// Best of five, in nanoseconds per packet, for sealing and for opening.
fn measure(cipher: &dyn EspCipher, time: Duration) -> Result<(f64, f64), CryptoError> {
    let key = cipher.key(&vec![1; cipher.key_len_with_salt()], &vec![2; cipher.integrity_key_len()])?;
    let mut iv = vec![0; cipher.iv_len()];
    let mut icv = vec![0; cipher.icv_len()];
    let mut payload = vec![3; PACKET_LEN];
    let mut sequence = 0;
    let seal = best(time, || {
        sequence += 1;
        key.seal_in_place(sequence, &HEADER, &mut iv, black_box(&mut payload), &mut icv)
    })?;

    let sealed = [payload, icv].concat();
    // Opening destroys the ciphertext, so each turn works on a copy; the copy alone is measured and taken off.
    let mut packet = sealed.clone();
    let copy = best(time, || {
        black_box(&mut packet).copy_from_slice(&sealed);
        Ok(())
    })?;
    let open = best(time, || {
        packet.copy_from_slice(&sealed);
        key.open_in_place(&iv, &HEADER, black_box(&mut packet)).map(|_| ())
    })?;
    Ok((seal, open - copy))
}

fn best(time: Duration, mut turn: impl FnMut() -> Result<(), CryptoError>) -> Result<f64, CryptoError> {
    let mut best = f64::INFINITY;
    for _ in 0..5 {
        let start = Instant::now();
        let mut turns = 0_u32;
        while start.elapsed() < time / 5 {
            for _ in 0..256 {
                turn()?;
            }
            turns += 256;
        }
        best = best.min(start.elapsed().as_secs_f64() * 1e9 / f64::from(turns));
    }
    Ok(best)
}

fn gigabits(nanoseconds: f64) -> f64 {
    PACKET_LEN as f64 * 8.0 / nanoseconds
}
