//! Traffic whose fate is known packet by packet.

pub mod bulk;
pub mod flood;
pub mod inject;
pub mod ping;
pub mod stream;
