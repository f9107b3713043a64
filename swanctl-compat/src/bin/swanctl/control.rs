//! `--initiate`, `--terminate`, `--rekey`, `--install`, `--uninstall`.

use swanctl_compat::text;
use swanctl_compat::vici::Message;
use swanctl_compat::vici::client::{ClientError, EINVAL};

use crate::connect::Client;
use crate::options::Invocation;
use crate::output::{Form, print};

pub(crate) fn initiate(client: &mut Client, invocation: &Invocation) -> Result<u8, ClientError> {
    logged(client, invocation, "initiate", &["child", "ike"])
}

pub(crate) fn terminate(client: &mut Client, invocation: &Invocation) -> Result<u8, ClientError> {
    logged(client, invocation, "terminate", &["child", "ike", "child-id", "ike-id"])
}

pub(crate) fn rekey(client: &mut Client, invocation: &Invocation) -> Result<u8, ClientError> {
    let mut request = selection(invocation, &["child", "ike", "child-id", "ike-id"]);
    request.set_if("reauth", invocation.has("reauth"));
    let answer = client.command("rekey", request, |_, _| Ok(()))?;
    Form::of(invocation).dump("rekey reply", &answer).and_then(|dumped| outcome("rekey", &answer, dumped))
}

pub(crate) fn install(client: &mut Client, invocation: &Invocation) -> Result<u8, ClientError> {
    policy(client, invocation, "install")
}

pub(crate) fn uninstall(client: &mut Client, invocation: &Invocation) -> Result<u8, ClientError> {
    policy(client, invocation, "uninstall")
}

pub(crate) fn redirect(client: &mut Client, invocation: &Invocation) -> Result<u8, ClientError> {
    let request = selection(invocation, &["ike", "ike-id", "peer-ip", "peer-id", "gateway"]);
    let answer = client.command("redirect", request, |_, _| Ok(()))?;
    Form::of(invocation).dump("redirect reply", &answer).and_then(|dumped| outcome("redirect", &answer, dumped))
}

pub(crate) fn flush_certs(client: &mut Client, invocation: &Invocation) -> Result<u8, ClientError> {
    quiet(client, invocation, "flush-certs", selection(invocation, &["type"]))
}

pub(crate) fn reload_settings(client: &mut Client, invocation: &Invocation) -> Result<u8, ClientError> {
    quiet(client, invocation, "reload-settings", Message::new())
}

/// A command whose success needs no words, except those of Cygnet about what waits for a restart.
fn quiet(client: &mut Client, invocation: &Invocation, command: &str, request: Message) -> Result<u8, ClientError> {
    let answer = client.command(command, request, |_, _| Ok(()))?;
    if Form::of(invocation).dump(&format!("{command} reply"), &answer)? {
        return Ok(0);
    }
    if !answer.is_yes("success") {
        return outcome(command, &answer, false);
    }
    let waiting: Vec<&str> = answer.list_strs("restart-needed").collect();
    if !waiting.is_empty() {
        eprintln!("restart the daemon to apply what has changed in: {}", waiting.join(", "));
    }
    Ok(0)
}

fn policy(client: &mut Client, invocation: &Invocation, command: &str) -> Result<u8, ClientError> {
    let answer = client.command(command, selection(invocation, &["child", "ike"]), |_, _| Ok(()))?;
    Form::of(invocation).dump(&format!("{command} reply"), &answer).and_then(|dumped| outcome(command, &answer, dumped))
}

fn selection(invocation: &Invocation, keys: &[&str]) -> Message {
    let mut request = Message::new();
    for key in keys {
        if let Some(value) = invocation.value(key) {
            request.set(*key, value);
        }
    }
    request
}

/// A command that shows the daemon's log while it works.
fn logged(client: &mut Client, invocation: &Invocation, command: &str, keys: &[&str]) -> Result<u8, ClientError> {
    let form = Form::of(invocation);
    let mut request = selection(invocation, keys);
    request.set_if("force", invocation.has("force"));
    if let Some(seconds) = invocation.value("timeout") {
        let Ok(seconds) = seconds.parse::<i64>() else { return Ok(bad_number("timeout")) };
        request.set_display("timeout", seconds.saturating_mul(1000));
    }
    match invocation.value("loglevel").unwrap_or("1").parse::<i32>() {
        Ok(level) => request.set_display("loglevel", level),
        Err(_) => return Ok(bad_number("loglevel")),
    }
    client.register("control-log")?;
    let answer = client.command(command, request, |event, message| {
        if event == "control-log" && !form.dump("log", message)? {
            print(&text::log(message))?;
        }
        Ok(())
    })?;
    form.dump(&format!("{command} reply"), &answer).and_then(|dumped| outcome(command, &answer, dumped))
}

fn bad_number(option: &str) -> u8 {
    eprintln!("--{option} needs a number");
    EINVAL
}

/// Success or failure in words, unless the answer itself was printed.
pub(crate) fn outcome(command: &str, answer: &Message, dumped: bool) -> Result<u8, ClientError> {
    if dumped {
        return Ok(0);
    }
    if answer.is_yes("success") {
        print(&format!("{command} completed successfully\n"))?;
        return Ok(0);
    }
    eprintln!("{command} failed: {}", answer.get_str("errmsg").unwrap_or("the daemon gave no reason"));
    Ok(1)
}
