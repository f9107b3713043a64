//! The exchanges, one module each. They never name each other: what one of them wants from another it queues as an
//! [`Intent`](crate::established::Intent).

pub(crate) mod auth_lifetime;
pub(crate) mod create_child;
pub(crate) mod delete;
pub(crate) mod ike_auth;
pub(crate) mod ike_sa_init;
pub(crate) mod liveness;
pub(crate) mod mobike;
pub(crate) mod rekey_ike;
