//! `--list-*`, `--counters`, `--stats`, `--version --daemon`.

use swanctl_compat::text;
use swanctl_compat::vici::Message;
use swanctl_compat::vici::client::ClientError;

use crate::connect::Client;
use crate::control::outcome;
use crate::options::Invocation;
use crate::output::{Form, print};
use crate::stdio::say;

/// A command whose answer is a stream of events.
struct Listing {
    command: &'static str,
    event: &'static str,
    /// Name in JSON of what the event's section is called after.
    key: &'static str,
    human: fn(&Message) -> String,
    /// What the raw forms call an event.
    label: &'static str,
}

pub(crate) fn list_sas(client: &mut Client, invocation: &Invocation) -> Result<u8, ClientError> {
    let mut request = Message::new();
    for key in ["ike", "ike-id", "child", "child-id"] {
        if let Some(value) = invocation.value(key) {
            request.set(key, value);
        }
    }
    request.set_if("noblock", invocation.has("noblock"));
    let listing = Listing {
        command: "list-sas",
        event: "list-sa",
        key: "connection",
        human: text::list_sa,
        label: "list-sa event",
    };
    list(client, invocation, &listing, request)
}

pub(crate) fn list_conns(client: &mut Client, invocation: &Invocation) -> Result<u8, ClientError> {
    let listing = Listing {
        command: "list-conns",
        event: "list-conn",
        key: "name",
        human: text::list_conn,
        label: "list-conn event",
    };
    list(client, invocation, &listing, Message::new())
}

pub(crate) fn list_pols(client: &mut Client, invocation: &Invocation) -> Result<u8, ClientError> {
    let mut request = Message::new();
    if let Some(child) = invocation.value("child") {
        request.set("child", child);
    }
    let kinds = ["trap", "drop", "pass"];
    let all = !kinds.iter().any(|kind| invocation.has(kind));
    for kind in kinds {
        request.set_if(kind, all || invocation.has(kind));
    }
    let listing = Listing {
        command: "list-policies",
        event: "list-policy",
        key: "name",
        human: text::list_policy,
        label: "list-policy event",
    };
    list(client, invocation, &listing, request)
}

pub(crate) fn list_authorities(client: &mut Client, invocation: &Invocation) -> Result<u8, ClientError> {
    let listing = Listing {
        command: "list-authorities",
        event: "list-authority",
        key: "name",
        human: text::list_authority,
        label: "list-authorities event",
    };
    list(client, invocation, &listing, named(invocation))
}

pub(crate) fn list_pools(client: &mut Client, invocation: &Invocation) -> Result<u8, ClientError> {
    let mut request = Message::new();
    request.set_if("leases", invocation.has("leases"));
    if let Some(name) = invocation.value("name") {
        request.set("name", name);
    }
    answer(client, invocation, "get-pools", request, text::pools)
}

pub(crate) fn list_algs(client: &mut Client, invocation: &Invocation) -> Result<u8, ClientError> {
    answer(client, invocation, "get-algorithms", Message::new(), text::algorithms)
}

pub(crate) fn counters(client: &mut Client, invocation: &Invocation) -> Result<u8, ClientError> {
    let reset = invocation.has("reset");
    let command = if reset { "reset-counters" } else { "get-counters" };
    let mut request = Message::new();
    request.set_if("all", invocation.has("all"));
    if let Some(name) = invocation.value("name") {
        request.set("name", name);
    }
    let form = Form::of(invocation);
    let answer = client.command(command, request, |_, _| Ok(()))?;
    if form.dump("counters reply", &answer)? {
        return Ok(0);
    }
    if form == Form::Json || reset || !answer.is_yes("success") {
        return outcome(form, command, &answer);
    }
    print(&text::counters(&answer))?;
    Ok(0)
}

/// The name that a listing is narrowed to.
fn named(invocation: &Invocation) -> Message {
    let mut request = Message::new();
    if let Some(name) = invocation.value("name") {
        request.set("name", name);
    }
    request
}

fn list(client: &mut Client, invocation: &Invocation, listing: &Listing, request: Message) -> Result<u8, ClientError> {
    let form = Form::of(invocation);
    client.register(listing.event)?;
    // As text they take a fraction of the room: there may be a hundred thousand.
    let mut objects: Vec<String> = Vec::new();
    let answer = client.command(listing.command, request, |event, message| {
        if event != listing.event || form.dump(listing.label, message)? {
            return Ok(());
        }
        match form {
            Form::Json => objects.extend(text::named_json(message, listing.key).map(|object| object.to_string())),
            Form::Human | Form::Raw | Form::Pretty => print(&(listing.human)(message))?,
        }
        Ok(())
    })?;
    form.dump(&format!("{} reply", listing.command), &answer)?;
    if form == Form::Json {
        print(&format!("[{}]\n", objects.join(",")))?;
    }
    Ok(failure(&answer, listing.command))
}

/// Prints why a listing was refused.
fn failure(answer: &Message, command: &str) -> u8 {
    match answer.get_str("errmsg") {
        Some(error) => {
            say!("{command} failed: {error}");
            1
        }
        None => 0,
    }
}

pub(crate) fn stats(client: &mut Client, invocation: &Invocation) -> Result<u8, ClientError> {
    answer(client, invocation, "stats", Message::new(), text::stats)
}

pub(crate) fn version(client: &mut Client, invocation: &Invocation) -> Result<u8, ClientError> {
    answer(client, invocation, "version", Message::new(), text::version)
}

fn answer(
    client: &mut Client,
    invocation: &Invocation,
    command: &str,
    request: Message,
    human: fn(&Message) -> String,
) -> Result<u8, ClientError> {
    let form = Form::of(invocation);
    let answer = client.command(command, request, |_, _| Ok(()))?;
    if !form.dump(&format!("{command} reply"), &answer)? {
        match form {
            Form::Json => print(&format!("{}\n", text::json(&answer)))?,
            Form::Human | Form::Raw | Form::Pretty => print(&human(&answer))?,
        }
    }
    Ok(0)
}
