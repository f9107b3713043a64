//! `cygnet status`: one line for each configured child, whatever its state, with the last cause where it is not up.

use anyhow::{Result, ensure};
use lab::peer::Daemon;
use lab::peer::conf::Tunnel;
use lab::peer::cygnet::Cygnet;
use lab::topology::{Family, Lab, Middle, Side};
use libtest_mimic::Trial;

use crate::harness::{Pair, trial, with_pair};
use crate::life;

const CYGNET: Cygnet = Cygnet { extra: String::new(), log: String::new() };

pub(crate) fn trials() -> Vec<Trial> {
    vec![trial("status::follows_the_life_of_a_child", || {
        let configure = |_, mut tunnel: Tunnel| {
            tunnel.children.iter_mut().take(1).for_each(|child| child.options.push("start_action = trap".into()));
            tunnel
        };
        with_pair(&Middle::Direct, [&CYGNET, &CYGNET], configure, follows_the_life_of_a_child)
    })]
}

/// Exit code and lines.
fn status(daemon: &Daemon<'_>) -> Result<(Option<i32>, String)> {
    let output = daemon.cygnet(&["status"])?;
    Ok((output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned()))
}

fn line<'a>(text: &'a str, child: &str) -> &'a str {
    text.lines().find(|line| line.contains(child)).unwrap_or_default()
}

fn follows_the_life_of_a_child(lab: &Lab, pair: &mut Pair<'_>) -> Result<()> {
    let (code, text) = status(&pair.a)?;
    ensure!(line(&text, "site/net4").contains("trap") && line(&text, "site/net6").contains("down"), "{text}");
    ensure!(code == Some(3), "a child that is down ends with {code:?}");
    life::establish(pair, Side::A)?;
    let (code, text) = status(&pair.a)?;
    ensure!(line(&text, "site/net4").contains("up") && line(&text, "site/net6").contains("up"), "{text}");
    ensure!(code == Some(0), "all is up and it ends with {code:?}");
    // The peer's key changes: the next attempt fails, and the reason stays visible.
    life::delete_ike(pair, Side::A)?;
    let other = Tunnel { secret: "something else".into(), ..Tunnel::between(lab, Side::B, Family::V4) };
    pair.b.write_tunnels(&[other])?;
    pair.b.load()?;
    let refused = pair.a.swanctl(&["--initiate", "--child", "net6", "--timeout", "5"]);
    ensure!(refused.is_err(), "initiated with a wrong key");
    let (_, text) = status(&pair.a)?;
    ensure!(line(&text, "site/net6").to_lowercase().contains("auth"), "no cause in:\n{text}");
    Ok(())
}
