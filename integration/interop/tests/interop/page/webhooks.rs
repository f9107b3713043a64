//! Deliveries on the page: shown to everybody, changed with the token only.

use std::sync::atomic::Ordering;

use anyhow::{Result, ensure};
use fantoccini::key::Key;
use lab::peer::cygnet::Cygnet;
use lab::topology::{Lab, Middle};

use super::browser::{Browser, DESKTOP, pictures};
use super::receiver::Receiver;
use super::{CHILD, PAGE, TOKEN};
use crate::harness::{Pair, with_pair};

/// Ports of two receivers.
const PORTS: [u16; 2] = [8080, 8081];

pub(super) fn redelivers_with_the_token_only() -> Result<()> {
    let daemon = |token: &str| {
        let webhook = |name: &str, port: u16, events: &str| {
            format!(
                "[[webhook]]\nname = \"{name}\"\nurl = \"http://127.0.0.1:{port}/hook\"\nsecret = \"whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\"\nevents = [{events}]\nretry = []\n"
            )
        };
        let [ops, siem] = PORTS;
        let webhooks = webhook("ops", ops, "\"child-sa.*\", \"ike-sa.*\"") + &webhook("siem", siem, "\"ike-sa.*\"");
        let extra =
            format!("[http]\nlisten = \"127.0.0.1:9470\"\n{token}[gateway]\nname = \"gw-a.example\"\n{webhooks}");
        Cygnet { extra, ..Cygnet::default() }
    };
    let (with, without) = (daemon(&format!("token = \"{TOKEN}\"\n")), daemon(""));
    with_pair(
        &Middle::Direct,
        [&with, &without],
        |_, tunnel| tunnel,
        |lab, pair| {
            // One refuses, one wants no more.
            let ops = Receiver::start(&lab.a.gateway, PORTS[0], 422)?;
            let siem = Receiver::start(&lab.a.gateway, PORTS[1], 410)?;
            let _other = Receiver::start(&lab.b.gateway, PORTS[0], 422)?;
            pair.a.swanctl(&["--initiate", "--child", CHILD, "--timeout", "30"])?;
            with_the_token(lab, pair, [&ops, &siem])?;
            read_only(lab, pair)
        },
    )
}

fn dead(count: usize) -> String {
    let dead =
        "[...document.querySelectorAll('td .badge')].filter((badge) => badge.innerText.trim() === 'dead').length";
    format!("{dead} === {count}")
}

fn with_the_token(lab: &Lab, pair: &Pair<'_>, [ops, siem]: [&Receiver; 2]) -> Result<()> {
    let browser = Browser::start(&lab.a.gateway, pair.a.directory())?;
    browser.open(&format!("{PAGE}#/deliveries"))?;
    browser.until_text("h1", "Webhook deliveries")?;
    browser.until("two to ops are given up", &dead(2))?;
    browser.until_text("tbody", "422")?;
    browser.until_text(".hooks", "disabled")?;
    browser.until_text("#dead", "2")?;
    std::fs::write(pictures()?.join("deliveries.png"), browser.picture(DESKTOP)?)?;
    // Whoever thinks better of it changes nothing.
    browser.click("td button:not([hidden])")?;
    browser.until("the dialog is open", "document.querySelector('dialog')?.open === true")?;
    browser.key(Key::Escape)?;
    browser.until("the dialog is gone", "document.querySelector('dialog') === null")?;
    // A wrong token changes nothing and is asked for again.
    browser.click("td button:not([hidden])")?;
    browser.type_into("dialog input", "not the token")?;
    browser.key(Key::Enter)?;
    browser.until_text("dialog [role=alert]", "token")?;
    ensure!(browser.value(&dead(2))? == true, "a wrong token has changed something");
    let before = ops.messages.load(Ordering::SeqCst);
    ops.status.store(204, Ordering::SeqCst);
    browser.type_into("dialog input", TOKEN)?;
    browser.key(Key::Enter)?;
    browser.until_text(".notice[role=status]", "1 delivery will be sent again")?;
    browser.until("one is not dead any more", &dead(1))?;
    // All that are left; the token is known now.
    browser.click(".hooks .actions button:not([hidden])")?;
    browser.until_text(".notice[role=status]", "1 delivery will be sent again")?;
    browser.until("none is dead", &dead(0))?;
    browser.until("both have arrived", "document.querySelectorAll('td .badge.good').length >= 2")?;
    ensure!(ops.messages.load(Ordering::SeqCst) == before + 2, "the receiver has them once each");
    let kept = browser.value(
        "[sessionStorage.length, JSON.stringify(localStorage).includes('token'), location.href.includes('token')]",
    )?;
    ensure!(kept == serde_json::json!([1, false, false]), "the token is in other places: {kept}");
    siem.status.store(204, Ordering::SeqCst);
    browser.click(".hooks [aria-label='Enable siem']")?;
    browser.until_text(".notice[role=status]", "siem is enabled again")?;
    browser.until("what waited has arrived", "document.querySelectorAll('td .badge.good').length >= 3")?;
    browser.until("it is not disabled any more", "!document.querySelector('.hooks').innerText.includes('disabled')")?;
    let said = browser.console()?;
    // Chromium itself tells of the answer to the wrong token.
    let other: Vec<_> = said.iter().filter(|line| !line.contains("401 (Unauthorized)")).collect();
    ensure!(said.len() == 1 && other.is_empty(), "the console says {said:#?}");
    Ok(())
}

/// Without a token in its settings, a gateway shows everything and changes nothing.
fn read_only(lab: &Lab, pair: &Pair<'_>) -> Result<()> {
    let browser = Browser::start(&lab.b.gateway, pair.b.directory())?;
    browser.open(&format!("{PAGE}#/deliveries"))?;
    browser.until_text("main", "Read only")?;
    browser.until_text("main", "http.token")?;
    browser.until("some are dead", "document.querySelectorAll('td .badge.bad').length > 0")?;
    let buttons = "[...document.querySelectorAll('main button')].filter((button) => /again/i.test(button.innerText) && !button.hidden)";
    browser.until(
        "no button can be pressed",
        &format!("{buttons}.length > 0 && {buttons}.every((button) => button.disabled)"),
    )
}
