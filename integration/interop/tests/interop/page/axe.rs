//! Accessibility, judged by axe-core.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use serde_json::{Value as Json, json};

use super::browser::Browser;

/// Runs the rules of WCAG 2.2 A and AA and the best practices; keeps what was found, and how many rules had something to look at.
const RUN: &str = "
    const tags = ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'];
    const run = await axe.run(document, { runOnly: { type: 'tag', values: tags } });
    return {
        passed: run.passes.length,
        found: run.violations.map(({ id, help, nodes }) => ({ id, help, nodes: nodes.slice(0, 3).map(({ html, failureSummary }) => html + ' ' + failureSummary) })),
    };";

/// A judge whose script is read once.
pub(super) struct Axe(String);

impl Axe {
    /// From the Python environment that `cargo xtask setup` makes below the target directory.
    pub(super) fn new() -> Result<Self> {
        let own = std::env::current_exe()?;
        let libraries = own.ancestors().map(|directory| directory.join("peers/lib")).find(|path| path.exists());
        let libraries = libraries.context("axe-core is missing: run `cargo xtask setup`")?;
        let script = |python: PathBuf| python.join("site-packages/axe_playwright_python/axe.min.js");
        let pythons = std::fs::read_dir(libraries)?.filter_map(|entry| Some(entry.ok()?.path()));
        let script = pythons.map(script).find(|path| path.exists());
        let script = script.context("axe-core is missing: run `cargo xtask setup`")?;
        Ok(Self(std::fs::read_to_string(script)?))
    }

    /// Whatever the page shows now has to pass.
    pub(super) fn judge(&self, browser: &Browser<'_>, what: &str) -> Result<()> {
        if browser.value("typeof axe")? != "object" {
            browser.script_with(&self.0, Json::Null)?;
            ensure!(browser.value("typeof axe")? == "object", "axe-core does not run on the page");
        }
        let result = browser.script_with(&format!("return (async () => {{ {RUN} }})()"), Json::Null)?;
        let at = |key: &str| result.get(key).cloned().unwrap_or_default();
        ensure!(at("found") == json!([]), "{what}: {:#}", at("found"));
        let passed = at("passed").as_u64().unwrap_or_default();
        ensure!(passed >= 30, "{what}: only {passed} rules had something to look at");
        Ok(())
    }
}
