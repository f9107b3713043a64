//! Hostility: millions of mutated messages and packets at a running daemon, and what they cost it.
//!
//! A [`peer`] that holds the session keys does IKE_SA_INIT and IKE_AUTH as it should; the [`attacker`] then mutates what stands below
//! SK ([`mutate`] octets, [`meaning`] of payloads) and encrypts it again, so that it reaches the handlers, and mutates whole datagrams
//! besides. Everything follows from one seed. The runs judge from outside: answers, log, memory, and an unrelated tunnel that must
//! still carry traffic.

pub mod answers;
pub mod attacker;
pub mod carrier;
pub mod dice;
pub mod esp;
pub mod esp_run;
pub mod ground;
pub mod ike_run;
pub mod keys;
pub mod meaning;
pub mod memory_run;
pub mod mutate;
pub mod peer;
pub mod requests;
pub mod tally;
pub mod verdict;
