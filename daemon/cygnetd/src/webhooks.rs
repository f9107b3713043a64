//! Webhooks, served as configured.

#[cfg(not(feature = "webhook"))]
mod absent;
#[cfg(feature = "webhook")]
mod present;

#[cfg(not(feature = "webhook"))]
pub(crate) use absent::Webhooks;
#[cfg(feature = "webhook")]
pub(crate) use present::Webhooks;
