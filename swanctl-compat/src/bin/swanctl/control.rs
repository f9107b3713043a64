//! `--initiate`, `--terminate`, `--rekey`, `--install`, `--uninstall`.

use swanctl_compat::text;
use swanctl_compat::vici::Message;
use swanctl_compat::vici::client::{ClientError, EINVAL};

use crate::connect::Client;
use crate::options::Invocation;
use crate::output::{Form, print};
use crate::stdio::say;

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
    outcome(Form::of(invocation), "rekey", &answer)
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
    outcome(Form::of(invocation), "redirect", &answer)
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
    let form = Form::of(invocation);
    if form != Form::Human || !answer.is_yes("success") {
        return outcome(form, command, &answer);
    }
    let waiting: Vec<&str> = answer.list_strs("restart-needed").collect();
    if !waiting.is_empty() {
        say!("restart the daemon to apply what has changed in: {}", waiting.join(", "));
    }
    Ok(0)
}

fn policy(client: &mut Client, invocation: &Invocation, command: &str) -> Result<u8, ClientError> {
    let answer = client.command(command, selection(invocation, &["child", "ike"]), |_, _| Ok(()))?;
    outcome(Form::of(invocation), command, &answer)
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
    let mut lines = Vec::new();
    let answer = client.command(command, request, |event, message| {
        if event != "control-log" || form.dump("log", message)? {
            return Ok(());
        }
        match form {
            Form::Json => lines.push(text::json(message)),
            Form::Human | Form::Raw | Form::Pretty => print(&text::log(message))?,
        }
        Ok(())
    })?;
    if form != Form::Json {
        return outcome(form, command, &answer);
    }
    let mut document = text::json(&answer);
    if let Some(members) = document.as_object_mut() {
        members.insert("log".to_owned(), lines.into());
    }
    print(&format!("{document}\n"))?;
    Ok(u8::from(!answer.is_yes("success")))
}

fn bad_number(option: &str) -> u8 {
    say!("--{option} needs a number");
    EINVAL
}

/// Prints the answer in the form asked for, in words where that is a person's. In raw form the answer says itself whether it worked, and scripts
/// read it there.
pub(crate) fn outcome(form: Form, command: &str, answer: &Message) -> Result<u8, ClientError> {
    if form.dump(&format!("{command} reply"), answer)? {
        return Ok(0);
    }
    let success = answer.is_yes("success");
    if form == Form::Json {
        print(&format!("{}\n", text::json(answer)))?;
    } else if success {
        print(&format!("{command} completed successfully\n"))?;
    } else {
        say!("{command} failed: {}", answer.get_str("errmsg").unwrap_or("the daemon gave no reason"));
    }
    Ok(u8::from(!success))
}
