//! What is configured: children against their devices, and the files.

use ipsec::OffloadMode;

use super::{Check, ChildFit, Facts};

pub(super) fn children(facts: &Facts) -> Vec<Check> {
    let mut checks: Vec<Check> = facts.children.iter().flat_map(child).collect();
    checks.extend(facts.refused.iter().map(|(name, reason)| {
        Check::error("child", format!("{name} is refused: {reason}"), "correct it and load it again")
    }));
    if checks.is_empty() {
        checks.push(Check::warning("child", "no child is loaded", "load swanctl.conf with swanctl --load-all"));
    }
    checks
}

fn child(fit: &ChildFit) -> Vec<Check> {
    const AREA: &str = "child";
    let ChildFit { name, wanted, fits, rejected, .. } = fit;
    let device = match &fit.device {
        Ok(device) => device,
        Err(reason) => {
            let fix = "see cygnet why for the way to the peer";
            return vec![Check::warning(AREA, format!("{name}: {reason}"), fix)];
        }
    };
    let wished = word(*wanted);
    let Some(best) = fits.first() else {
        let text = format!("{name} (hw_offload = {wished}) cannot be carried: {}", rejected.join("; "));
        return vec![Check::error(AREA, text, "change what it asks for, or use hw_offload = auto or no")];
    };
    let mut checks = Vec::new();
    if rejected.is_empty() {
        let text = format!("{name} (hw_offload = {wished}) fits on {device}: {}", way(*best));
        checks.push(Check::ok(AREA, text));
    } else {
        let text = format!(
            "{name} (hw_offload = {wished}) runs in {} on {device}, not better: {}",
            way(*best),
            rejected.join("; ")
        );
        checks.push(Check::warning(AREA, text, "change what it asks for if the offload is wanted"));
    }
    checks.extend(fit.notes.iter().map(|note| Check::ok(AREA, format!("{name}: {note}"))));
    checks
}

fn word(mode: OffloadMode) -> &'static str {
    match mode {
        OffloadMode::No => "no",
        OffloadMode::Crypto => "crypto",
        OffloadMode::Packet => "packet",
        OffloadMode::Auto => "auto",
    }
}

fn way(mode: OffloadMode) -> &'static str {
    match mode {
        OffloadMode::No | OffloadMode::Auto => "software",
        OffloadMode::Crypto => "crypto offload",
        OffloadMode::Packet => "packet offload",
    }
}

pub(super) fn files(facts: &Facts) -> Vec<Check> {
    const AREA: &str = "file";
    if facts.files.is_empty() {
        return vec![Check::ok(
            AREA,
            "the configuration files have no doubts, and no secret is readable for everybody",
        )];
    }
    let of = |(error, text, fix): &(bool, String, String)| match error {
        true => Check::error(AREA, text.as_str(), fix.as_str()),
        false => Check::warning(AREA, text.as_str(), fix.as_str()),
    };
    facts.files.iter().map(of).collect()
}
