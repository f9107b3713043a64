//! Network-namespace labs: two LANs, two gateways, what lies between them, and everything needed to look at it.
//!
//! A lab is LAN-A host, gateway A, gateway B and LAN-B host, each in a network namespace of its own, IPv4 and IPv6, with a direct
//! link, a router, an address translator or a lossy relay between the gateways ([`topology`]). Daemons run inside the gateways with
//! files a user could have written ([`peer`]); traffic is sent and counted by sequence number ([`traffic`]); the outer links are
//! captured and every frame is classified ([`capture`]).
//!
//! Everything happens inside namespaces that the program entered first ([`enter`]): when it ends, however it ends, nothing is left.

pub mod away;
pub mod busy;
pub mod capture;
pub mod classify;
pub mod enter;
pub mod frame;
pub mod hostile;
pub mod life;
pub mod netns;
pub mod packet;
pub mod pair;
pub mod peer;
pub mod postgres;
pub mod process;
pub mod random;
pub mod relay;
pub mod topology;
pub mod traffic;
