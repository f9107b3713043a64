//! A headless Chromium inside a gateway, driven over WebDriver.

use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use fantoccini::key::Key;
use fantoccini::wd::{Capabilities, WebDriverCompatibleCommand};
use fantoccini::{Client, ClientBuilder, Locator};
use http::Method;
use hyper_util::client::legacy::connect::HttpConnector;
use lab::netns::Namespace;
use lab::process::{Process, wait_until};
use serde_json::{Value as Json, json};
use tokio::runtime::Runtime;

use crate::life;

const DRIVER: &str = "/usr/bin/chromedriver";
const BROWSER: &str = "/usr/bin/chromium";
/// Where the driver listens; each gateway has a network of its own.
const PORT: u16 = 9515;
/// A browser on a busy machine takes its time.
const START: Duration = Duration::from_secs(120);
/// How long anything on the page may take.
const SOON: Duration = Duration::from_secs(60);

/// Width and height of a desktop's window, and of a phone's.
pub(super) const DESKTOP: (u32, u32) = (1160, 860);
pub(super) const PHONE: (u32, u32) = (360, 740);

/// One browser at a time: each is busy with several processes.
static ONE: Mutex<()> = Mutex::new(());

/// The browser. Its network is the gateway's, so nothing outside can be reached.
pub(super) struct Browser<'lab> {
    namespace: &'lab Namespace,
    runtime: Runtime,
    client: Client,
    /// Ended last, but for the turn of the next.
    _driver: Process,
    _turn: MutexGuard<'static, ()>,
}

impl<'lab> Browser<'lab> {
    /// Starts it; its files are below `directory`.
    pub(super) fn start(namespace: &'lab Namespace, directory: &Path) -> Result<Self> {
        for program in [DRIVER, BROWSER] {
            ensure!(Path::new(program).exists(), "{program} is missing: run `cargo xtask setup`");
        }
        let turn = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        let home = directory.join("browser");
        std::fs::create_dir_all(&home)?;
        let environment = ["HOME", "TMPDIR", "XDG_CONFIG_HOME", "XDG_CACHE_HOME"].map(|name| (name, home.as_path()));
        let arguments = [format!("--port={PORT}")];
        let driver = Process::start(namespace, Path::new(DRIVER), &arguments, &environment, &home.join("driver.log"))?;
        let listens = || namespace.run(|| TcpStream::connect(("127.0.0.1", PORT)).is_ok()).unwrap_or(false);
        ensure!(wait_until(START, listens), "chromedriver does not listen:\n{}", driver.output());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let session = async {
            let mut builder = ClientBuilder::new(HttpConnector::new());
            builder
                .capabilities(capabilities()?)
                .connect(&format!("http://127.0.0.1:{PORT}"))
                .await
                .context("a browser")
        };
        let client = namespace.run(|| runtime.block_on(session))?;
        let client = client.with_context(|| driver.output())?;
        let browser = Self { namespace, runtime, client, _driver: driver, _turn: turn };
        browser.resize(DESKTOP)?;
        Ok(browser)
    }

    /// Waits for what the driver answers, in the gateway's network.
    fn wait<T: Send>(&self, answer: impl Future<Output = T> + Send) -> Result<T> {
        self.namespace.run(|| self.runtime.block_on(answer))
    }

    pub(super) fn open(&self, url: &str) -> Result<()> {
        Ok(self.wait(self.client.goto(url))??)
    }

    /// What a script returns; `arguments[0]` is the argument.
    pub(super) fn script_with(&self, script: &str, argument: Json) -> Result<Json> {
        self.wait(self.client.execute(script, vec![argument]))?.with_context(|| format!("script {script}"))
    }

    /// What an expression gives.
    pub(super) fn value(&self, expression: &str) -> Result<Json> {
        self.script_with(&format!("return {expression}"), Json::Null)
    }

    /// Waits until an expression is true.
    pub(super) fn until(&self, what: &str, expression: &str) -> Result<()> {
        let outcome = life::settle_within(SOON, what, || Ok(self.value(expression)? == true));
        outcome.with_context(|| {
            let shown = self.value("document.body.innerText").unwrap_or_default();
            format!("the page shows:\n{}", shown.as_str().unwrap_or_default())
        })
    }

    /// Waits until the text of an element contains a word.
    pub(super) fn until_text(&self, selector: &str, word: &str) -> Result<()> {
        let expression =
            format!("(document.querySelector({})?.innerText ?? '').includes({})", json!(selector), json!(word));
        self.until(&format!("{selector} says {word}"), &expression)
    }

    /// Clicks, as soon as there is something to click.
    pub(super) fn click(&self, selector: &str) -> Result<()> {
        self.until(&format!("{selector} is there"), &format!("document.querySelector({}) !== null", json!(selector)))?;
        let click = async { self.client.find(Locator::Css(selector)).await?.click().await };
        self.wait(click)?.with_context(|| format!("clicking {selector}"))
    }

    /// Types into a field.
    pub(super) fn type_into(&self, selector: &str, text: &str) -> Result<()> {
        self.click(selector)?;
        self.keys(text)
    }

    /// Types into whatever has the focus.
    pub(super) fn keys(&self, text: &str) -> Result<()> {
        let send = async { self.client.active_element().await?.send_keys(text).await };
        self.wait(send)?.context("typing")
    }

    pub(super) fn key(&self, key: Key) -> Result<()> {
        self.keys(&(String::new() + &key))
    }

    /// A window of this size, without a change of the window itself: phones are narrower than Chromium's windows can be.
    pub(super) fn resize(&self, (width, height): (u32, u32)) -> Result<()> {
        let metrics = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600});
        self.devtools("Emulation.setDeviceMetricsOverride", &metrics)
    }

    /// What the system says that its user prefers.
    pub(super) fn prefer(&self, scheme: &str) -> Result<()> {
        let features = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        self.devtools("Emulation.setEmulatedMedia", &features)
    }

    fn devtools(&self, command: &str, parameters: &Json) -> Result<()> {
        let body = json!({"cmd": command, "params": parameters});
        self.vendor("goog/cdp/execute", body).map(drop).with_context(|| command.to_owned())
    }

    /// Everything on the console since it was last asked for: errors of scripts, of the network, and what the policy has refused.
    pub(super) fn console(&self) -> Result<Vec<String>> {
        let entries = self.vendor("se/log", json!({"type": "browser"}))?;
        Ok(entries.as_array().into_iter().flatten().map(Json::to_string).collect())
    }

    fn vendor(&self, path: &'static str, body: Json) -> Result<Json> {
        Ok(self.wait(self.client.issue_cmd(Vendor { path, body }))??)
    }

    /// A picture of the whole page as a PNG.
    pub(super) fn picture(&self, (width, height): (u32, u32)) -> Result<Vec<u8>> {
        let whole = self.value("document.documentElement.scrollHeight")?.as_u64().context("no height")?;
        self.resize((width, u32::try_from(whole)?.max(height)))?;
        self.until("drawn", "document.fonts.status === 'loaded'")?;
        let picture = self.picture_of_window()?;
        self.resize((width, height))?;
        Ok(picture)
    }

    /// A picture of what is in the window.
    pub(super) fn picture_of_window(&self) -> Result<Vec<u8>> {
        Ok(self.wait(self.client.screenshot())??)
    }
}

fn capabilities() -> Result<Capabilities> {
    let arguments = [
        "--headless=new",
        // There are namespaces around it, but not those that its sandbox wants.
        "--no-sandbox",
        "--disable-dev-shm-usage",
        "--disable-gpu",
        "--disable-background-networking",
        "--no-first-run",
        "--hide-scrollbars",
        "--lang=en-US",
    ];
    let wanted = json!({
        "goog:loggingPrefs": {"browser": "ALL"},
        // Scripts may take half a minute by default, too short for the look at accessibility on a busy machine.
        "timeouts": {"script": START.as_millis() as u64},
        "goog:chromeOptions": {"binary": BROWSER, "args": arguments},
    });
    match wanted {
        Json::Object(wanted) => Ok(wanted),
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) | Json::Array(_) => bail!("no object"),
    }
}

/// A command of Chromium's driver that the standard does not have.
#[derive(Debug)]
struct Vendor {
    path: &'static str,
    body: Json,
}

impl WebDriverCompatibleCommand for Vendor {
    fn endpoint(&self, base: &url::Url, session: Option<&str>) -> Result<url::Url, url::ParseError> {
        base.join(&format!("session/{}/{}", session.unwrap_or_default(), self.path))
    }

    fn method_and_body(&self, _: &url::Url) -> (Method, Option<String>) {
        (Method::POST, Some(self.body.to_string()))
    }
}

/// Where pictures go: below the target directory, or with `UPDATE_SCREENSHOTS=1` into the documentation.
pub(super) fn pictures() -> Result<PathBuf> {
    let directory = if std::env::var_os("UPDATE_SCREENSHOTS").is_some() {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../plugins/telemetry/docs")
    } else {
        let own = std::env::current_exe()?;
        own.ancestors().find(|at| at.ends_with("target")).context("no target directory")?.join("screenshots")
    };
    std::fs::create_dir_all(&directory)?;
    Ok(directory)
}
