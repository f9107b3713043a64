//! A gateway with tunnels of all kinds, for pictures and for those who do not see them: accessibility, keyboards, phones.
#![allow(clippy::indexing_slicing, reason = "indexing JSON gives null where there is nothing")]

use std::time::Duration;

use anyhow::{Result, ensure};
use fantoccini::key::Key;
use lab::pair::Pair;
use lab::peer::Daemon;
use lab::peer::conf::{Child, Tunnel};
use lab::peer::cygnet::Cygnet;
use lab::topology::{Family, Lab, Middle, Side};
use lab::traffic::stream::{self, Load};
use serde_json::json;

use super::PAGE;
use super::axe::Axe;
use super::browser::{Browser, DESKTOP, PHONE, pictures};
use super::views::VIEWS;
use crate::life;

/// The window for the picture of one tunnel, down to its timeline.
const TALL: (u32, u32) = (980, 1080);

pub(super) fn is_accessible_and_readable_on_a_phone() -> Result<()> {
    let lab = Lab::new(&Middle::Direct)?;
    let daemon = |name: &str| {
        let extra = format!(
            "[http]\nlisten = \"127.0.0.1:9470\"\n[gateway]\nname = \"{name}\"\n[backend.userspace]\nsimulate_packet_device = true\n"
        );
        Cygnet { extra, ..Cygnet::default() }
    };
    let start = |side: Side, tunnels: &[Tunnel]| {
        let name = format!("gw-{}.example", side.letter());
        Daemon::start(&daemon(&name), &lab.site(side).gateway, &lab.directory().join(side.letter()), tunnels)
    };
    let b = start(Side::B, &[oslo(&lab, Side::B)])?;
    let a = start(Side::A, &tunnels(&lab))?;
    Pair { a, b }.check(|pair| walk(&lab, pair))
}

fn child(name: &str, local_ts: &str, remote_ts: &str, options: &[&str]) -> Child {
    Child {
        name: name.into(),
        local_ts: local_ts.into(),
        remote_ts: remote_ts.into(),
        esp_proposals: "aes256gcm16-x25519".into(),
        options: options.iter().map(|option| (*option).to_owned()).collect(),
    }
}

/// The tunnel that is up: one child in the packet device, one beside it.
fn oslo(lab: &Lab, side: Side) -> Tunnel {
    let (here, there) = (lab.site(side), lab.site(side.other()));
    let of = |family| (here.lan(family), there.lan(family));
    let (v4, v6) = (of(Family::V4), of(Family::V6));
    let lan = child("lan", &v4.0, &v4.1, &["hw_offload = packet", "rekey_packets = 200000", "life_packets = 260000"]);
    let voice = child("voice", &v6.0, &v6.1, &["rekey_time = 20m"]);
    Tunnel { name: "branch-oslo".into(), children: vec![lan, voice], ..Tunnel::between(lab, side, Family::V4) }
}

fn tunnels(lab: &Lab) -> Vec<Tunnel> {
    let own = lab.a.lan(Family::V4);
    let other = |name: &str, host: u8, option: &[&str], children: &[(&str, u8)]| {
        let children = children.iter().map(|(name, net)| child(name, &own, &format!("10.{net}.0.0/24"), option));
        let remote_id = format!("{name}.example");
        let remote = format!("192.0.2.{host}");
        let tunnel = Tunnel { name: name.into(), remote, remote_id, ..oslo(lab, Side::A) };
        Tunnel { children: children.collect(), ..tunnel }
    };
    vec![
        oslo(lab, Side::A),
        other("dc-west", 20, &["start_action = trap"], &[("mgmt", 20), ("storage", 21)]),
        other("partner-acme", 30, &["start_action = start"], &[("erp", 30)]),
        other("warehouse", 40, &[], &[("cameras", 40)]),
    ]
}

fn walk(lab: &Lab, pair: &mut Pair<'_>) -> Result<()> {
    life_so_far(pair)?;
    let load = |family, rate| Load { octets: 900, rate, family };
    let streams = stream::start_both_ways(&lab.a, &lab.b, &[load(Family::V4, 120.0), load(Family::V6, 40.0)])?;
    let browser = Browser::start(&lab.a.gateway, pair.a.directory())?;
    browser.open(PAGE)?;
    let samples = if std::env::var_os("UPDATE_SCREENSHOTS").is_some() { 12 } else { 2 };
    has_samples(pair, &browser, samples)?;
    let axe = Axe::new()?;
    for scheme in ["light", "dark"] {
        browser.prefer(scheme)?;
        each_view(&browser, |what| axe.judge(&browser, &format!("{what}, {scheme}")))?;
    }
    dark_by_the_button(&browser)?;
    keyboard_alone(&browser)?;
    on_a_phone(&browser, &axe)?;
    browser.resize(DESKTOP)?;
    take_pictures(&browser)?;
    let said = browser.console()?;
    ensure!(said.is_empty(), "the console says {said:#?}");
    stream::finish_all(streams).map(drop)
}

/// Some generations that ended in different ways.
fn life_so_far(pair: &mut Pair<'_>) -> Result<()> {
    let initiate =
        |pair: &Pair<'_>, child| pair.a.swanctl(&["--initiate", "--child", child, "--timeout", "30"]).map(drop);
    initiate(pair, "lan")?;
    life::rekey_child(pair, Side::A, "lan")?;
    pair.a.swanctl(&["--terminate", "--child", "lan", "--timeout", "30"])?;
    initiate(pair, "lan")?;
    pair.a.process().kill()?;
    pair.a.restart()?;
    life::settle_within(Duration::from_secs(60), "up again", || Ok(initiate(pair, "lan").is_ok()))?;
    life::rekey_child(pair, Side::B, "lan")?;
    initiate(pair, "voice")
}

/// Curves need some time; meanwhile there are some more rekeys, for the timeline.
fn has_samples(pair: &Pair<'_>, browser: &Browser<'_>, wanted: usize) -> Result<()> {
    let count = "fetch('/api/status?child=lan&connection=branch-oslo&samples=0').then((answer) => answer.json())\
                 .then(({ tunnels }) => tunnels[0]?.samples?.length ?? 0)";
    let mut seen = 0;
    life::settle_within(Duration::from_secs(120), "samples are there", || {
        let now = browser.value(count)?.as_u64().unwrap_or_default();
        if now > seen {
            seen = now;
            life::rekey_child(pair, Side::A, "lan")?;
        }
        Ok(now >= wanted as u64)
    })
}

/// Goes to a view and waits until it is complete.
fn show(browser: &Browser<'_>, (address, heading, complete): (&str, &str, &str)) -> Result<()> {
    browser.script_with("location.hash = arguments[0]", json!(address))?;
    browser.until_text("h1", heading)?;
    // Webhooks are not part of this lab.
    let shown = if address == "#/deliveries" {
        "true"
    } else {
        &format!("document.querySelector({}) !== null", json!(complete))
    };
    browser.until(&format!("{address} is complete"), shown)
}

fn each_view(browser: &Browser<'_>, mut look: impl FnMut(&str) -> Result<()>) -> Result<()> {
    for view in VIEWS {
        show(browser, view)?;
        look(view.0)?;
    }
    Ok(())
}

/// The button goes through system, light and dark, and what was chosen stays.
fn dark_by_the_button(browser: &Browser<'_>) -> Result<()> {
    let ground = "getComputedStyle(document.body).backgroundColor";
    browser.prefer("light")?;
    let light = browser.value(ground)?;
    browser.click("#theme")?;
    browser.until_text("#theme", "light")?;
    browser.click("#theme")?;
    browser.until_text("#theme", "dark")?;
    ensure!(browser.value(ground)? != light, "it is not dark");
    browser.open("about:blank")?;
    browser.open(PAGE)?;
    browser.until_text("#theme", "dark")?;
    ensure!(browser.value(ground)? != light, "it is forgotten");
    browser.click("#theme")?;
    browser.until_text("#theme", "system")?;
    ensure!(browser.value(ground)? == light, "the system says light");
    Ok(())
}

/// From the top of the page into a tunnel and back, without a pointer, and always seeing where one is.
fn keyboard_alone(browser: &Browser<'_>) -> Result<()> {
    // Where the focus has not been anywhere yet.
    browser.open("about:blank")?;
    browser.open(&format!("{PAGE}#/tunnels"))?;
    browser.until_text(".tunnels tbody", "branch-oslo/lan")?;
    let where_one_is = "(() => { const at = document.activeElement; const style = getComputedStyle(at);\
        const box = at.getBoundingClientRect();\
        return { name: at.getAttribute('href') ?? at.id ?? '', text: at.innerText, seen: style.outlineStyle !== 'none' && box.bottom > 0 }; })()";
    let mut names = Vec::new();
    for _ in 0..40 {
        browser.key(Key::Tab)?;
        let at = browser.value(where_one_is)?;
        ensure!(at["seen"] == true, "the focus cannot be seen: {at}");
        names.push(at["name"].as_str().unwrap_or_default().to_owned());
        if names.last().is_some_and(|name| name == "#/tunnel/branch-oslo/lan") {
            break;
        }
    }
    ensure!(names.first().is_some_and(|name| name == "#main"), "first comes the way past the navigation: {names:?}");
    ensure!(names.iter().any(|name| name == "#/devices"), "the navigation: {names:?}");
    ensure!(
        names.last().is_some_and(|name| name == "#/tunnel/branch-oslo/lan"),
        "the tunnel is not reached: {names:?}"
    );
    browser.key(Key::Enter)?;
    browser.until_text("h1", "branch-oslo/lan")?;
    let on_a_bar = "document.activeElement.classList.contains('bar')";
    for _ in 0..20 {
        browser.key(Key::Tab)?;
        if browser.value(on_a_bar)? == true {
            break;
        }
    }
    ensure!(browser.value(on_a_bar)? == true, "no bar is reached");
    browser.until_text(".tip", "up now")?;
    browser.key(Key::Home)?;
    browser.until_text(".tip", "Generation 0")
}

/// Nothing scrolls sideways, and the cards say what their values are.
fn on_a_phone(browser: &Browser<'_>, axe: &Axe) -> Result<()> {
    browser.resize(PHONE)?;
    each_view(browser, |what| {
        let wide = "[document.documentElement.scrollWidth, innerWidth,\
            [...document.querySelectorAll('main *')].filter((at) => at.getBoundingClientRect().right > innerWidth + 1 && !at.closest('.wide, thead')).map((at) => at.outerHTML.slice(0, 200))]";
        let found = browser.value(wide)?;
        ensure!(found == json!([PHONE.0, PHONE.0, []]), "{what} is too wide: {found:#}");
        axe.judge(browser, &format!("{what} on a phone"))
    })?;
    show(browser, VIEWS[0])?;
    let label = "getComputedStyle(document.querySelector('.tunnels td[data-label=State]'), '::before').content";
    ensure!(browser.value(label)? == "\"State\"", "a card does not say what its values are");
    Ok(())
}

fn take_pictures(browser: &Browser<'_>) -> Result<()> {
    let directory = pictures()?;
    let take = |name: &str, size| -> Result<()> {
        browser.resize(size)?;
        browser.script_with("scrollTo(0, 0)", json!(null))?;
        Ok(std::fs::write(directory.join(name), browser.picture_of_window()?)?)
    };
    let [overview, tunnel, ..] = VIEWS;
    show(browser, overview)?;
    take("overview.png", DESKTOP)?;
    show(browser, tunnel)?;
    browser.click("button[data-range='5m']")?;
    browser.until("bars", "document.querySelectorAll('.strip .bar').length > 3")?;
    browser.script_with("document.querySelector('.strip .bar.failed').focus()", json!(null))?;
    browser.until_text(".tip", "daemon died")?;
    take("tunnel.png", TALL)?;
    browser.prefer("dark")?;
    take("tunnel-dark.png", TALL)?;
    browser.prefer("light")?;
    show(browser, overview)?;
    take("phone.png", PHONE)?;
    browser.resize(DESKTOP)
}
