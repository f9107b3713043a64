//! What telemetry sees of the daemon, and when its server runs.

mod seen;

use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;

use anyhow::Context as _;
use ike_model::EventRecord;
use telemetry::{BindError, Bound, Feed, Listen, Options, Server, Site};
use zeroize::Zeroizing;

use crate::config;
use crate::config::http::token;
use crate::core::Core;
use crate::events::EventSink;
use crate::history::Past;
use crate::net::tcp_port_holder;
use seen::Seen;

/// The HTTP server, before and while it runs; nothing where none is wanted.
#[derive(Default)]
pub(crate) struct Telemetry {
    feed: Arc<Feed>,
    bound: Option<(Bound, Options)>,
    server: Option<Server>,
}

impl Telemetry {
    /// Takes its place on the network. Where nobody chose one, that the usual place is taken is a warning only.
    pub(crate) fn bind(config: &config::Http, gateway: &str) -> anyhow::Result<Self> {
        if config.listen.is_empty() {
            return Ok(Self::default());
        }
        let options = options(config, gateway)?;
        let places = config.listen.iter().map(|place| Listen::parse(place));
        let places = places.collect::<Result<Vec<_>, _>>().map_err(anyhow::Error::msg)?;
        match Bound::bind(&places).map_err(explained) {
            Ok(bound) => Ok(Self { bound: Some((bound, options)), ..Self::default() }),
            Err(error) if !config.is_chosen() => {
                tracing::warn!("{error:#}, so there are no metrics and no status page; or set http.listen = \"\"");
                Ok(Self::default())
            }
            Err(error) => Err(error),
        }
    }

    /// Where events go, if anybody can ever see them.
    pub(crate) fn sink(&self) -> Option<Box<dyn EventSink>> {
        self.bound.as_ref().map(|_| Box::new(FeedSink(Arc::clone(&self.feed))) as Box<dyn EventSink>)
    }

    /// Serves from now on.
    pub(crate) fn serve(&mut self, core: &Arc<Core>, past: &Past) -> anyhow::Result<()> {
        let Some((bound, options)) = self.bound.take() else { return Ok(()) };
        for address in bound.addresses() {
            tracing::info!(%address, "metrics, health and the status page are served");
        }
        let seen = Seen::new(core, past);
        let site = Site::new(Arc::new(seen), Arc::clone(&self.feed), options);
        self.server = Some(Server::start(bound, site).context("cannot start the HTTP server")?);
        Ok(())
    }

    /// Ends it.
    pub(crate) fn stop(self) {
        if let Some(server) = self.server {
            server.stop();
        }
    }
}

fn options(config: &config::Http, gateway: &str) -> anyhow::Result<Options> {
    let mut secret = config.token.clone();
    if !config.token_file.as_os_str().is_empty() {
        let shown = config.token_file.display();
        let text = std::fs::read_to_string(&config.token_file).map(Zeroizing::new);
        let text = text.with_context(|| format!("http.token_file: cannot read {shown}"))?;
        secret =
            token(text.trim()).map_err(|reason| anyhow::anyhow!("http.token_file: what {shown} holds {reason}"))?;
        let open = std::fs::metadata(&config.token_file).is_ok_and(|found| found.permissions().mode() & 0o004 != 0);
        if open {
            tracing::warn!("http.token_file: everybody can read {shown}");
        }
    }
    let token = secret.map(|secret| Zeroizing::new(String::from_utf8_lossy(secret.expose()).into_owned()));
    let machine = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let hosts = config.hosts.iter().cloned().chain([machine, gateway.to_owned()]).collect();
    Ok(Options { token, hosts })
}

/// With the process that is in the way, as far as it can be seen.
fn explained(error: BindError) -> anyhow::Error {
    let in_use = error.error.kind() == std::io::ErrorKind::AddrInUse;
    let holder = match &error.listen {
        Listen::Tcp(address) if in_use => tcp_port_holder(address.port()),
        Listen::Tcp(_) | Listen::Unix(_) => None,
    };
    let listen = error.listen;
    match holder {
        Some(holder) => anyhow::anyhow!("http.listen: {listen} is held by {holder}: stop it, or set another place"),
        None if in_use => anyhow::anyhow!("http.listen: {listen} is in use by another process: set another place"),
        None => anyhow::Error::new(error.error).context(format!("http.listen: cannot listen on {listen}")),
    }
}

struct FeedSink(Arc<Feed>);

impl EventSink for FeedSink {
    fn deliver(&self, record: &EventRecord) {
        self.0.deliver(record);
    }
}
