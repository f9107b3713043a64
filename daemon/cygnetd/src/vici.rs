//! VICI: the control socket, a session per client, and the commands.

mod account;
mod capture;
mod commands;
mod control_log;
mod levels;
mod listener;
mod listing;
mod past;
mod session;
mod settings;
mod socket_file;
mod webhooks;

#[cfg(test)]
mod tests;

pub(crate) use listener::{Listener, Places};
pub(crate) use settings::read_again as read_settings_again;
