//! UDP sockets of IKE: 500 and the NAT-T port, IPv4 and IPv6, with the local address known and chosen per datagram.
//!
//! RFC 7296 §2.23, RFC 3948 §2.2-2.3. Reading the NAT-T port may be left to the backend, which then hands IKE up through the router;
//! sending IKE from it is always done here, on a duplicate of the socket.
//!
//! A flood is made of first requests, which name no IKE SA of ours. On the IKE port the kernel puts them into a socket of their own
//! ([`steer`]), on the NAT-T port the router puts them into a queue of their own, and a thread of their own ([`screen`]) answers them with
//! COOKIE or drops them. So they take neither room nor time from established IKE SAs.

mod holder;
mod message;
mod receiver;
mod screen;
mod sockets;
mod steer;

#[cfg(test)]
mod tests;

pub(crate) use holder::{process_name, remember_port_holders, tcp_port_holder, udp_port_holders};
pub(crate) use receiver::Receiver;
pub(crate) use screen::Screen;
pub(crate) use sockets::{Options, Sockets};
