//! The status page in a browser: what a person would do and see, against real daemons.

mod axe;
mod browser;
mod receiver;
mod showcase;
mod views;
mod webhooks;

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use fantoccini::key::Key;
use lab::peer::conf::Tunnel;
use lab::peer::cygnet::Cygnet;
use lab::topology::{Lab, Middle, Side};
use libtest_mimic::Trial;

use crate::harness::{Pair, trial, with_pair};
use crate::life;
use browser::Browser;

const PAGE: &str = "http://127.0.0.1:9470/";
const TOKEN: &str = "a-token-for-the-lab";
const CHILD: &str = "net4";
/// What a peer may well call itself: without care it would become an element whose script says so in the title.
const HOSTILE: &str = "<img/src=x/onerror=document.title='owned'>";

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("page::follows_the_life_of_a_tunnel", || {
            let daemon = Cygnet {
                extra: format!("[http]\nlisten = \"127.0.0.1:9470\"\ntoken = \"{TOKEN}\"\n"),
                ..Cygnet::default()
            };
            with_pair(&Middle::Direct, [&daemon, &Cygnet::default()], hostile, follows_a_tunnel)
        }),
        trial("page::redelivers_with_the_token_only", webhooks::redelivers_with_the_token_only),
        trial("page::is_accessible_and_readable_on_a_phone", showcase::is_accessible_and_readable_on_a_phone),
    ]
}

/// The peer has a name that is none.
fn hostile(side: Side, mut tunnel: Tunnel) -> Tunnel {
    let name = match side {
        Side::A => &mut tunnel.remote_id,
        Side::B => &mut tunnel.local_id,
    };
    *name = format!("fqdn:{HOSTILE}");
    tunnel
}

fn follows_a_tunnel(lab: &Lab, pair: &mut Pair<'_>) -> Result<()> {
    let browser = Browser::start(&lab.a.gateway, pair.a.directory())?;
    browser.open(PAGE)?;
    browser.until_text("h1", "Tunnels")?;
    browser.until_text("tbody tr:nth-child(1)", "down")?;
    // A reload would forget it.
    browser.script_with("window.unreloaded = true", Default::default())?;
    pair.a.swanctl(&["--initiate", "--child", CHILD, "--timeout", "30"])?;
    browser.until_text("tbody tr:nth-child(1) .badge", "up")?;
    browser.until_text("tbody tr:nth-child(1)", HOSTILE)?;
    browser.until_text("tbody tr:nth-child(1)", "software")?;
    browser.until_text("#announcer", "site/net4 is up")?;
    filters(&browser)?;
    timeline(&browser, pair)?;
    events(&browser, pair)?;
    ensure!(browser.value("window.unreloaded")? == true, "the page was loaded anew");
    ensure!(browser.value("document.querySelectorAll('main img').length")? == 0, "a name became an element");
    ensure!(browser.value("document.title")? != "owned", "a name became a script");
    quiet(&browser)?;
    goes_and_comes_back(&browser, pair)
}

fn filters(browser: &Browser<'_>) -> Result<()> {
    let rows = "document.querySelectorAll('.tunnels tbody tr').length";
    browser.until("both children", &format!("{rows} === 2"))?;
    browser.click("button[data-state=down]")?;
    browser.until("the one that is down", &format!("{rows} === 1"))?;
    browser.until_text(".tunnels tbody", "site/net6")?;
    browser.click("button[data-state=down]")?;
    browser.type_into("input[type=search]", "gw-a.EXAMPLE")?;
    browser.until_text(".tunnels tbody", "site/net4")?;
    browser.until("by the identity", &format!("{rows} === 1"))?;
    browser.type_into("input[type=search]", "nobody")?;
    browser.until_text(".tunnels .empty", "No tunnel fits")?;
    browser.until("a link would remember it", "location.hash.includes('nobody')")?;
    browser.script_with("history.replaceState(null, '', '#/')", Default::default())?;
    browser.click(".tabs a[href='#/tunnels']")
}

/// Each rekey adds a bar, with its cause for eyes, keyboards and screen readers.
fn timeline(browser: &Browser<'_>, pair: &Pair<'_>) -> Result<()> {
    browser.click("a.name[href='#/tunnel/site/net4']")?;
    browser.until_text("h1", "site/net4")?;
    ensure!(
        browser.value("document.activeElement === document.querySelector('h1')")? == true,
        "the focus stays behind"
    );
    let bars = "document.querySelectorAll('.strip .bar').length";
    browser.until("one bar", &format!("{bars} === 1"))?;
    life::rekey_child(pair, Side::A, CHILD)?;
    browser.until("a second bar", &format!("{bars} === 2"))?;
    life::rekey_child(pair, Side::B, CHILD)?;
    browser.until("a third bar", &format!("{bars} === 3"))?;
    browser.until("two were rekeyed", "document.querySelectorAll('.strip .bar.rekeyed').length === 2")?;
    let sa = life::installed(pair, Side::A, CHILD)?;
    browser.until_text(".halves", &sa.spi_in)?;
    browser.until_text(".halves", &sa.spi_out)?;
    browser.script_with("document.querySelector('.strip .bar[tabindex=\"0\"]').focus()", Default::default())?;
    browser.until_text(".tip", "Generation 2")?;
    browser.until_text(".tip", &sa.spi_in)?;
    browser.key(Key::Left)?;
    browser.until_text(".tip", "Generation 1")?;
    browser.until_text(".tip", "rekeyed")?;
    browser.click("details summary")?;
    let rows = "[...document.querySelectorAll('details tbody tr')].map((row) => row.innerText)";
    browser.until("a row each", &format!("{rows}.length === 3"))?;
    let spis = format!("{rows}.some((row) => row.includes('{}') && row.includes('{}'))", sa.spi_in, sa.spi_out);
    browser.until("the SPIs are in the table", &spis)
}

/// Events come by themselves, can be filtered and held back.
fn events(browser: &Browser<'_>, pair: &Pair<'_>) -> Result<()> {
    browser.click(".tabs a[href='#/events']")?;
    browser.until_text(".live", "live")?;
    browser.until_text(".events li", "child-sa.")?;
    browser.type_into("input[name=type]", "child-sa.rekeyed")?;
    browser.key(Key::Enter)?;
    let rekeys = "[...document.querySelectorAll('.events .type')].filter((type) => type.innerText === 'child-sa.rekeyed').length";
    let all = "document.querySelectorAll('.events li').length";
    browser.until("two rekeys and nothing else", &format!("{rekeys} === 2 && {all} === 2"))?;
    life::rekey_child(pair, Side::A, CHILD)?;
    browser.until("one more, live", &format!("{rekeys} === 3 && {all} === 3"))?;
    browser.click("button[aria-pressed]")?;
    life::rekey_child(pair, Side::A, CHILD)?;
    browser.until_text(".live", "1 new event held")?;
    ensure!(browser.value(&format!("{rekeys} === 3"))? == true, "it is paused and shows more");
    browser.click("button[aria-pressed]")?;
    browser.until("that one, too", &format!("{rekeys} === 4"))?;
    browser.click(".events summary")?;
    browser.until_text(".events pre", "\"type\": \"child-sa.rekeyed\"")
}

/// Nothing has gone wrong, and nothing came from elsewhere.
fn quiet(browser: &Browser<'_>) -> Result<()> {
    let said = browser.console()?;
    ensure!(said.is_empty(), "the console says {said:#?}");
    let loaded = browser.value("performance.getEntriesByType('resource').map(({ name }) => name)")?;
    let names: Vec<&str> = loaded.as_array().context("no list")?.iter().filter_map(|name| name.as_str()).collect();
    let elsewhere: Vec<_> = names.iter().filter(|name| !name.starts_with(PAGE)).collect();
    ensure!(names.len() > 20 && elsewhere.is_empty(), "{} loaded, of them from elsewhere {elsewhere:?}", names.len());
    Ok(())
}

/// The daemon ends, and the page says so; it comes back, and the page goes on.
fn goes_and_comes_back(browser: &Browser<'_>, pair: &mut Pair<'_>) -> Result<()> {
    browser.click(".tabs a[href='#/tunnels']")?;
    browser.until_text(".tunnels tbody", "site/net4")?;
    pair.a.process().kill()?;
    browser.until_text("#banner", "No connection to the daemon")?;
    pair.a.restart()?;
    browser.until("the banner has gone", "document.querySelector('#banner').hidden")?;
    life::settle_within(Duration::from_secs(60), "up again", || {
        Ok(pair.a.swanctl(&["--initiate", "--child", CHILD, "--timeout", "30"]).is_ok())
    })?;
    browser.until_text("tbody tr:nth-child(1) .badge", "up")?;
    ensure!(browser.value("window.unreloaded")? == true, "the page was loaded anew");
    // The events of both runs, those of the new one over the stream that was resumed.
    browser.click(".tabs a[href='#/events']")?;
    let died = "[...document.querySelectorAll('.events .type')].filter((type) => type.innerText === 'child-sa.installed').length";
    browser.until("both installs", &format!("{died} >= 2"))?;
    browser.click(".tabs a[href='#/tunnels']")?;
    browser.click("a.name[href='#/tunnel/site/net4']")?;
    browser
        .until("the generation that died is in trouble", "document.querySelectorAll('.strip .bar.failed').length === 1")
}
