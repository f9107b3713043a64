//! Traffic whose fate is known packet by packet.

pub mod bulk;
pub mod inject;
pub mod ping;
pub mod stream;
