//! UDP sockets of IKE: 500 and the NAT-T port, IPv4 and IPv6, with the local address known and chosen per datagram.
//!
//! RFC 7296 §2.23, RFC 3948 §2.2-2.3. Reading the NAT-T port may be left to the backend, which then hands IKE up through the router;
//! sending IKE from it is always done here, on a duplicate of the socket.

mod holder;
mod message;
mod receiver;
mod sockets;

#[cfg(test)]
mod tests;

pub(crate) use holder::process_name;
pub(crate) use receiver::Receiver;
pub(crate) use sockets::{Options, Sockets};
