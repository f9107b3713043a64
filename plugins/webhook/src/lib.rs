//! Signed delivery of events to webhooks, from a durable outbox.
//!
//! What is to be delivered is in the history's database before anybody acts on it ([`ike_model::history::Outbox`]). A worker for each endpoint
//! claims deliveries, sends each as one signed POST (Standard Webhooks) and settles what became of it. A message arrives at least once: after a
//! crash, those that were under way are sent again, with the same identity. Messages arrive in order as far as none has to be tried again; the
//! record's number says what the order was.
//!
//! Reading order: [`worker`](Webhooks) claims, sends and settles; `circuit` says whether an endpoint is worth a try; `courier` makes one attempt;
//! `failure` says what an answer means; `target` and `tls` say who may be talked to at all.

mod circuit;
mod courier;
mod endpoint;
mod failure;
mod figures;
mod keys;
mod message;
mod retry;
pub mod signature;
mod target;
mod tls;
mod worker;

use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use ike_model::history::Outbox;
use ike_model::{Ulids, WebhookFigures, WebhookTried};
use reqwest::header::HeaderValue;
use ring::rand::{SecureRandom as _, SystemRandom};
use tokio::runtime::Handle;
use tokio::sync::watch;

use courier::{Courier, Http};
pub use endpoint::{Address, Endpoint, Field};
pub use failure::{Class, Failure};
use figures::Board;
pub use keys::{Keys, SECRETS_MAX, is_world_readable, read as read_secrets};
use message::Message;
pub use retry::SCHEDULE;
use worker::{Bell, Worker, now_ms};

/// Says what is wrong with a file of certificates.
///
/// # Errors
/// What is wrong.
pub fn check_certificates(path: &std::path::Path) -> Result<(), String> {
    tls::roots(path).map(drop)
}

struct Post {
    endpoint: Arc<Endpoint>,
    courier: Arc<dyn Courier>,
    board: Arc<Board>,
    bell: Arc<Bell>,
}

/// Endpoints being served.
pub struct Webhooks {
    posts: Vec<Post>,
    ulids: Mutex<Ulids>,
    gateway: String,
    runtime: Handle,
    stop: watch::Sender<bool>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Webhooks {
    /// Begins to deliver what is in `outbox`, in the name of `gateway` and as `agent`, such as `cygnet/1.0`.
    ///
    /// # Errors
    /// No thread, or the agent's name is none.
    pub fn start(
        endpoints: Vec<Endpoint>,
        outbox: &Arc<dyn Outbox>,
        gateway: &str,
        agent: &str,
    ) -> std::io::Result<Self> {
        let agent = HeaderValue::from_str(agent).map_err(std::io::Error::other)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (stop, stopping) = watch::channel(false);
        let posts: Vec<Post> = endpoints.into_iter().map(|endpoint| Post::new(endpoint, &agent)).collect();
        let workers: Vec<Worker> = posts.iter().map(|post| post.worker(Arc::clone(outbox))).collect();
        let thread = thread::Builder::new().name("webhooks".into()).spawn(move || {
            runtime.block_on(serve(workers, stopping));
            // A name that is still being looked up holds up nobody.
            runtime.shutdown_background();
        })?;
        let ulids = Mutex::new(Ulids::default());
        Ok(Self { posts, ulids, gateway: gateway.into(), runtime: handle, stop, thread: Mutex::new(Some(thread)) })
    }

    /// The endpoints.
    pub fn endpoints(&self) -> impl Iterator<Item = &Endpoint> {
        self.posts.iter().map(|post| &*post.endpoint)
    }

    /// What has become of messages to an endpoint so far.
    pub fn figures(&self, endpoint: &str) -> Option<WebhookFigures> {
        self.posts.iter().find(|post| post.endpoint.name == endpoint).map(|post| post.board.read())
    }

    /// Sends a message that tells of nothing, at once and once. `None` without such an endpoint.
    pub async fn test(&self, endpoint: &str) -> Option<WebhookTried> {
        let post = self.posts.iter().find(|post| post.endpoint.name == endpoint)?;
        let id = self.fresh_id();
        let began = Instant::now();
        let message = Message::test(&id, now_ms(), &self.gateway, endpoint);
        let courier = Arc::clone(&post.courier);
        let sending = self.runtime.spawn(async move { courier.carry(&message).await });
        let outcome = sending.await.unwrap_or_else(|_| Err(Failure::new(Class::Settings, "the daemon is stopping")));
        if outcome.is_ok() {
            post.bell.again.notify_one();
        }
        let took = began.elapsed();
        Some(match outcome {
            Ok(status) => WebhookTried { id, status: Some(status), failure: None, took },
            Err(Failure { class, text, status, .. }) => {
                WebhookTried { id, status, failure: Some((class.name(), text)), took }
            }
        })
    }

    /// Something about an endpoint has changed in the outbox, or all, and it is to be tried at once.
    pub fn look_again(&self, endpoint: Option<&str>) {
        for post in self.posts.iter().filter(|post| endpoint.is_none_or(|name| name == post.endpoint.name)) {
            post.bell.again.notify_one();
        }
    }

    /// Ends it; messages under way may hold it up for a moment.
    pub fn stop(&self) {
        // Without a receiver the thread has ended already.
        let _ = self.stop.send(true);
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the webhooks' thread ended in a panic");
        }
    }

    fn fresh_id(&self) -> String {
        let random = || {
            let mut octets = [0; 10];
            // Without random octets it can be guessed, but still is one of its kind.
            if SystemRandom::new().fill(&mut octets).is_err() {
                octets = [0; 10];
            }
            octets
        };
        let mut ulids = self.ulids.lock().unwrap_or_else(PoisonError::into_inner);
        ulids.next(now_ms(), random).to_string()
    }
}

impl Post {
    fn new(endpoint: Endpoint, agent: &HeaderValue) -> Self {
        Self {
            board: Arc::default(),
            courier: Arc::new(Http::new(endpoint.clone(), agent.clone())),
            endpoint: Arc::new(endpoint),
            bell: Arc::default(),
        }
    }

    fn worker(&self, outbox: Arc<dyn Outbox>) -> Worker {
        let (endpoint, courier) = (Arc::clone(&self.endpoint), Arc::clone(&self.courier));
        Worker::new(endpoint, outbox, courier, Arc::clone(&self.board), Arc::clone(&self.bell))
    }
}

async fn serve(workers: Vec<Worker>, mut stopping: watch::Receiver<bool>) {
    let mut all = tokio::task::JoinSet::new();
    for worker in workers {
        all.spawn(worker.run(stopping.clone()));
    }
    // A worker that has ended early leaves the others, and messages that somebody asks to be sent.
    let _ = stopping.wait_for(|stop| *stop).await;
    while let Some(ended) = all.join_next().await {
        if ended.is_err() {
            tracing::error!("the worker of a webhook ended in a panic");
        }
    }
}
