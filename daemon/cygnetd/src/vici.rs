//! VICI: the control socket, a session per client, and the commands.

mod account;
mod capture;
mod commands;
mod control_log;
mod listener;
mod past;
mod session;
mod socket_file;
mod webhooks;

#[cfg(test)]
mod tests;

pub(crate) use listener::Listener;
