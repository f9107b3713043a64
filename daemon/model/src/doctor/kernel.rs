//! The kernel as the data path: whether it has ESP, what is switched off, what its devices hold, and what it refused.

use super::{Check, Facts, KernelFacts};

pub(super) fn checks(facts: &Facts) -> Vec<Check> {
    let Some(kernel) = &facts.kernel else { return Vec::new() };
    let mut checks = esp(kernel);
    checks.extend(settings(kernel));
    checks.extend(held(kernel));
    checks.push(drops(kernel));
    checks
}

fn esp(kernel: &KernelFacts) -> Vec<Check> {
    const AREA: &str = "device";
    let mut checks = vec![match &kernel.lacks {
        None => Check::ok(AREA, "the kernel has ESP"),
        Some(lacks) => {
            let fix =
                "load the module or use a kernel that has it, or set backend.kind = \"userspace\", which needs none";
            Check::error(AREA, format!("no SA can be installed: {lacks}"), fix)
        }
    }];
    checks.extend(kernel.idle.iter().map(|link| {
        let text = format!("the driver of {link} says that it does ESP, and takes no SA");
        let fix = format!("load esp4_offload and esp6_offload, then set {link} down and up; otherwise ethtool -K {link} esp-hw-offload off");
        Check::warning(AREA, text, fix)
    }));
    checks
}

fn settings(kernel: &KernelFacts) -> Vec<Check> {
    const AREA: &str = "host";
    let mut checks: Vec<Check> = kernel.switched_off.iter().map(|setting| switched_off(setting)).collect();
    if !kernel.settings.is_empty() {
        let all: Vec<String> = kernel.settings.iter().map(|(name, value)| format!("{name} = {value}")).collect();
        checks.push(Check::ok(AREA, all.join(", ")));
    }
    checks
}

fn switched_off(setting: &str) -> Check {
    let what = if setting.ends_with("disable_xfrm") {
        "what leaves there is not protected, and goes in clear"
    } else {
        "what arrives there is taken in clear too"
    };
    Check::error("host", format!("{setting} is 1: {what}"), format!("set {setting} = 0"))
}

fn held(kernel: &KernelFacts) -> Vec<Check> {
    const AREA: &str = "device";
    let of = |(name, protecting, ike): &(String, usize, usize)| match (protecting, ike) {
        (1.., 0) => {
            let text = format!("{name} holds {protecting} policies and none that lets IKE pass");
            Check::error(AREA, text, format!("set {name} down and up, which has everything in it made afresh"))
        }
        _ => Check::ok(AREA, format!("{name} holds {protecting} policies, and {ike} that let IKE pass")),
    };
    kernel.held.iter().map(of).collect()
}

/// They count since the network namespace was made, so they say what there was and not what is wrong.
fn drops(kernel: &KernelFacts) -> Check {
    const AREA: &str = "host";
    let dropped = kernel.drops.iter().filter(|(_, count)| *count > 0);
    let all: Vec<String> = dropped.map(|(reason, count)| format!("{reason} {count}")).collect();
    if all.is_empty() {
        return Check::ok(AREA, "the kernel's IPsec has dropped nothing so far");
    }
    Check::ok(AREA, format!("the kernel's IPsec has dropped packets so far, cygnet why says whose: {}", all.join(", ")))
}
