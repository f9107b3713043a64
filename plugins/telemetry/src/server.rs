//! The server: a thread, a runtime, and a bounded number of connections.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use axum::extract::DefaultBodyLimit;
use axum::http::StatusCode;
use axum::{Router, middleware, routing};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use crate::address::Bound;
use crate::guard::{self, Problem};
use crate::page::{self, Page};
use crate::patient::Patient;
use crate::site::Site;
use crate::{health, metrics};

/// Connections at the same time.
const CONNECTIONS: usize = 128;
/// How long a connection may take to send the head of a request, also of the next one.
const HEAD_TIME: Duration = Duration::from_secs(10);
/// Octets of a head, and header lines in it.
const HEAD_OCTETS: usize = 16 * 1024;
const HEAD_LINES: usize = 64;
/// Octets of a body.
const BODY_OCTETS: usize = 64 * 1024;
/// How long answers under way may take when the server stops.
const FAREWELL: Duration = Duration::from_secs(1);

/// The running server.
#[derive(Debug)]
pub struct Server {
    site: Site,
    stop: watch::Sender<bool>,
    thread: JoinHandle<()>,
}

impl Server {
    /// Serves `site` on what is bound.
    ///
    /// # Errors
    /// No thread or no runtime.
    pub fn start(bound: Bound, site: Site) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (stop, stopping) = watch::channel(false);
        let page = Arc::new(Page::default());
        let router = router(site.clone(), Arc::clone(&page));
        let sampling = page::sample(page, site.clone());
        let thread = std::thread::Builder::new().name("http".into()).spawn(move || {
            runtime.spawn(sampling);
            if let Err(error) = runtime.block_on(serve(bound, router, stopping)) {
                tracing::error!(%error, "the HTTP server has ended");
            }
        })?;
        Ok(Self { site, stop, thread })
    }

    /// Ends it; answers under way get a moment.
    pub fn stop(self) {
        self.site.feed.close();
        // Without a receiver the thread has ended already.
        let _ = self.stop.send(true);
        if self.thread.join().is_err() {
            tracing::error!("the HTTP server's thread ended in a panic");
        }
    }
}

fn router(site: Site, page: Arc<Page>) -> Router {
    let page = page::routes(page).layer(middleware::from_fn_with_state(site.clone(), guard::host));
    Router::new()
        .route("/metrics", routing::get(metrics::metrics))
        .route("/healthz", routing::get(health::healthz))
        .route("/readyz", routing::get(health::readyz))
        .merge(page)
        .fallback(|| async { Problem::not_found("there is nothing here") })
        .method_not_allowed_fallback(|| async {
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method", "this cannot be done here")
        })
        .layer(DefaultBodyLimit::max(BODY_OCTETS))
        .layer(middleware::from_fn(guard::in_time))
        .layer(middleware::from_fn(guard::headers))
        .with_state(site)
}

async fn serve(bound: Bound, router: Router, mut stopping: watch::Receiver<bool>) -> io::Result<()> {
    let connections = Connections { router, places: Arc::new(Semaphore::new(CONNECTIONS)), stopping: stopping.clone() };
    let mut accepting = JoinSet::new();
    for listener in bound.tcp {
        let listener = TcpListener::from_std(listener)?;
        let connections = connections.clone();
        accepting.spawn(async move {
            loop {
                let place = connections.place().await;
                match listener.accept().await {
                    Ok((stream, _)) => connections.begin(stream, place),
                    Err(error) => refused(&error).await,
                }
            }
        });
    }
    let mut files = Vec::new();
    for file in bound.unix {
        let listener = UnixListener::from_std(file.listener.try_clone()?)?;
        // Removed when the server ends.
        files.push(file);
        let connections = connections.clone();
        accepting.spawn(async move {
            loop {
                let place = connections.place().await;
                match listener.accept().await {
                    Ok((stream, _)) => connections.begin(stream, place),
                    Err(error) => refused(&error).await,
                }
            }
        });
    }
    // Without a sender nobody is left to stop us.
    let _ = stopping.wait_for(|stop| *stop).await;
    accepting.shutdown().await;
    let all = u32::try_from(CONNECTIONS).unwrap_or(u32::MAX);
    let _ = tokio::time::timeout(FAREWELL, connections.places.acquire_many(all)).await;
    Ok(())
}

/// Too many open files, for example: that passes.
async fn refused(error: &io::Error) {
    tracing::warn!(%error, "cannot accept an HTTP connection");
    tokio::time::sleep(Duration::from_millis(100)).await;
}

#[derive(Clone)]
struct Connections {
    router: Router,
    places: Arc<Semaphore>,
    stopping: watch::Receiver<bool>,
}

type Place = Option<tokio::sync::OwnedSemaphorePermit>;

impl Connections {
    /// Room for one more. Those beyond the bound wait in the kernel's queue, which is bounded as well.
    async fn place(&self) -> Place {
        // It is never closed.
        Arc::clone(&self.places).acquire_owned().await.ok()
    }

    fn begin<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(&self, stream: S, place: Place) {
        let service = TowerToHyperService::new(self.router.clone());
        let mut stopping = self.stopping.clone();
        tokio::spawn(async move {
            let mut http = http1::Builder::new();
            http.timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIME)
                .max_buf_size(HEAD_OCTETS)
                .max_headers(HEAD_LINES);
            let connection = http.serve_connection(TokioIo::new(Patient::new(stream)), service);
            tokio::pin!(connection);
            let stopped = async { stopping.wait_for(|stop| *stop).await.is_ok() };
            let mut served = tokio::select! {
                served = connection.as_mut() => Some(served),
                _ = stopped => None,
            };
            if served.is_none() {
                connection.as_mut().graceful_shutdown();
                served = Some(connection.await);
            }
            if let Some(Err(error)) = served {
                tracing::debug!(%error, "an HTTP connection ended early");
            }
            drop(place);
        });
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::{SocketAddr, TcpStream};

    use super::*;
    use crate::address::Listen;
    use crate::feed::Feed;
    use crate::fixture::Puppet;
    use crate::site::Options;
    use crate::view::Condition;

    struct Running {
        server: Server,
        puppet: Arc<Puppet>,
        address: SocketAddr,
    }

    fn run() -> Running {
        let bound = Bound::bind(&[Listen::parse("127.0.0.1:0").unwrap()]).unwrap();
        let address = bound.addresses()[0];
        let puppet = Arc::new(Puppet::default());
        let site = Site::new(Arc::<Puppet>::clone(&puppet), Arc::new(Feed::default()), Options::default());
        Running { server: Server::start(bound, site).unwrap(), puppet, address }
    }

    /// Everything that comes back until the connection is closed.
    fn said(address: SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(HEAD_TIME * 6)).unwrap();
        // A server that refuses early may have closed already.
        let _ = stream.write_all(request.as_bytes());
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8(answer).unwrap()
    }

    fn get(address: SocketAddr, path: &str) -> String {
        said(address, &format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"))
    }

    #[test]
    fn health_and_readiness_say_what_is_wrong() {
        let Running { server, puppet, address } = run();
        let answer = get(address, "/healthz");
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\nok\n"), "{answer}");
        assert!(answer.contains("content-security-policy: default-src 'none';"), "{answer}");
        drop(puppet.alive.send_replace(Err("shard 0 does not answer".into())));
        let answer = get(address, "/healthz");
        assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("shard 0 does not answer"), "{answer}");
        assert!(get(address, "/readyz").starts_with("HTTP/1.1 200 "));
        puppet.conditions.send_replace(vec![Condition::met("sockets"), Condition::degraded("history", "away")]);
        let answer = get(address, "/readyz");
        assert!(
            answer.starts_with("HTTP/1.1 200 ") && answer.contains(r#""state":"degraded","reason":"away""#),
            "{answer}"
        );
        puppet.conditions.send_replace(vec![Condition::unmet("spool", "it is full")]);
        let answer = get(address, "/readyz");
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
        let body = r#"{"ready":false,"conditions":[{"name":"spool","state":"unmet","reason":"it is full"}]}"#;
        assert!(answer.ends_with(body), "{answer}");
        server.stop();
        assert!(TcpStream::connect(address).is_err());
    }

    #[test]
    fn requests_are_bounded() {
        let Running { server, address, .. } = run();
        let long = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(2 * HEAD_OCTETS));
        assert!(said(address, &long).starts_with("HTTP/1.1 4"), "a long head is refused");
        let lines = "a: b\r\n".repeat(HEAD_LINES + 1);
        let answer = said(address, &format!("GET / HTTP/1.1\r\n{lines}\r\n"));
        assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
        let answer = get(address, "/nothing");
        assert!(answer.starts_with("HTTP/1.1 404 ") && answer.contains(r#""code":"not-found""#), "{answer}");
        let answer = said(address, "POST /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        assert!(answer.starts_with("HTTP/1.1 405 ") && answer.contains(r#""code":"method""#), "{answer}");
        server.stop();
    }

    #[test]
    fn who_says_nothing_takes_no_place_for_long() {
        let Running { server, address, .. } = run();
        let before = std::time::Instant::now();
        let silent: Vec<_> = (0..CONNECTIONS).map(|_| TcpStream::connect(address).unwrap()).collect();
        // No place is free: this one waits until the others have been given up.
        assert!(get(address, "/healthz").starts_with("HTTP/1.1 200 "));
        assert!(before.elapsed() >= HEAD_TIME, "{:?}", before.elapsed());
        drop(silent);
        server.stop();
    }

    #[test]
    fn a_client_in_the_middle_does_not_hold_up_the_end() {
        let Running { server, address, .. } = run();
        let before = std::time::Instant::now();
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(b"GET /healthz HTTP/1.1\r\n").unwrap();
        server.stop();
        // So long it would be waited for.
        assert!(before.elapsed() < HEAD_TIME, "{:?}", before.elapsed());
    }
}
