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
mod file;
mod keys;
mod message;
mod retry;
pub mod signature;
mod target;
mod tls;
mod worker;

use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread;
use std::time::Instant;

use ike_model::history::Outbox;
use ike_model::{Ulids, WebhookFigures, WebhookTried};
use reqwest::header::HeaderValue;
use ring::rand::{SecureRandom as _, SystemRandom};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;

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
    stop: watch::Sender<bool>,
    worker: Mutex<Option<JoinHandle<()>>>,
}

/// What became of endpoints when others were given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Served from now on.
    pub added: Vec<String>,
    /// Served otherwise than before.
    pub changed: Vec<String>,
    /// Served no more.
    pub removed: Vec<String>,
}

impl Changes {
    /// Nothing is served otherwise than before.
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.changed.is_empty() && self.removed.is_empty()
    }
}

/// Endpoints being served.
type Posts = Arc<RwLock<Vec<Arc<Post>>>>;

/// Endpoints being served.
pub struct Webhooks {
    posts: Posts,
    /// One change at a time.
    changing: tokio::sync::Mutex<()>,
    outbox: Arc<dyn Outbox>,
    agent: HeaderValue,
    ulids: Mutex<Ulids>,
    gateway: String,
    runtime: Handle,
    stop: watch::Sender<bool>,
    thread: Mutex<Option<thread::JoinHandle<()>>>,
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
        let posts = Posts::default();
        let served = Arc::clone(&posts);
        let thread = thread::Builder::new().name("webhooks".into()).spawn(move || {
            runtime.block_on(serve(&served, stopping));
            // A name that is still being looked up holds up nobody.
            runtime.shutdown_background();
        })?;
        let webhooks = Self {
            posts,
            changing: tokio::sync::Mutex::default(),
            outbox: Arc::clone(outbox),
            agent,
            ulids: Mutex::default(),
            gateway: gateway.into(),
            runtime: handle,
            stop,
            thread: Mutex::new(Some(thread)),
        };
        let begun = endpoints.into_iter().map(|endpoint| webhooks.begin(endpoint, Arc::default(), Arc::default()));
        let begun = begun.collect();
        *webhooks.posts.write().unwrap_or_else(PoisonError::into_inner) = begun;
        Ok(webhooks)
    }

    /// Serves these endpoints from now on. One that is as it was goes on undisturbed, but looks at its files anew; of one that is not, or that is
    /// there no more, what is under way is waited for, for a moment, and the rest given back.
    pub async fn change(&self, endpoints: Vec<Endpoint>) -> Changes {
        let _one = self.changing.lock().await;
        let before = self.posts();
        let mut changes = Changes::default();
        let stays = |post: &Arc<Post>| endpoints.iter().any(|endpoint| *endpoint == *post.endpoint);
        let (stay, go): (Vec<_>, Vec<_>) = before.into_iter().partition(stays);
        stay.iter().for_each(|post| post.courier.refresh());
        go.iter().for_each(|post| post.tell_to_stop());
        for post in &go {
            post.ended().await;
        }
        let mut after = Vec::new();
        for endpoint in endpoints {
            if let Some(post) = stay.iter().find(|post| *post.endpoint == endpoint) {
                after.push(Arc::clone(post));
                continue;
            }
            let (board, bell) = match go.iter().find(|post| post.endpoint.name == endpoint.name) {
                Some(post) => {
                    changes.changed.push(endpoint.name.clone());
                    (Arc::clone(&post.board), Arc::clone(&post.bell))
                }
                None => {
                    changes.added.push(endpoint.name.clone());
                    (Arc::default(), Arc::default())
                }
            };
            after.push(self.begin(endpoint, board, bell));
        }
        let gone = go.iter().map(|post| &post.endpoint.name).filter(|name| !changes.changed.contains(name));
        changes.removed.extend(gone.cloned());
        *self.posts.write().unwrap_or_else(PoisonError::into_inner) = after;
        changes
    }

    /// Begins to serve an endpoint.
    fn begin(&self, endpoint: Endpoint, board: Arc<Board>, bell: Arc<Bell>) -> Arc<Post> {
        let courier: Arc<dyn Courier> = Arc::new(Http::new(endpoint.clone(), self.agent.clone()));
        let endpoint = Arc::new(endpoint);
        // Also when all is being ended already.
        let (stop, stopping) = watch::channel(*self.stop.borrow());
        let outbox = Arc::clone(&self.outbox);
        let worker =
            Worker::new(Arc::clone(&endpoint), outbox, Arc::clone(&courier), Arc::clone(&board), Arc::clone(&bell));
        let worker = Mutex::new(Some(self.runtime.spawn(worker.run(stopping))));
        Arc::new(Post { endpoint, courier, board, bell, stop, worker })
    }

    fn posts(&self) -> Vec<Arc<Post>> {
        self.posts.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn post(&self, endpoint: &str) -> Option<Arc<Post>> {
        self.posts().into_iter().find(|post| post.endpoint.name == endpoint)
    }

    /// What has become of messages to an endpoint so far.
    pub fn figures(&self, endpoint: &str) -> Option<WebhookFigures> {
        self.post(endpoint).map(|post| post.board.read())
    }

    /// Sends a message that tells of nothing, at once and once. `None` without such an endpoint.
    pub async fn test(&self, endpoint: &str) -> Option<WebhookTried> {
        let post = self.post(endpoint)?;
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
        for post in self.posts().iter().filter(|post| endpoint.is_none_or(|name| name == post.endpoint.name)) {
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
    fn tell_to_stop(&self) {
        // Without a receiver the worker has ended already.
        let _ = self.stop.send(true);
    }

    /// Waits for the end of its worker, which has been told.
    async fn ended(&self) {
        let worker = self.worker.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(worker) = worker else { return };
        if worker.await.is_err_and(|error| error.is_panic()) {
            tracing::error!(webhook = self.endpoint.name, "the worker of a webhook ended in a panic");
        }
    }
}

/// Lets workers work until all is to be ended. One that has ended early leaves the others, and messages that somebody asks to be sent.
async fn serve(posts: &Posts, mut stopping: watch::Receiver<bool>) {
    let _ = stopping.wait_for(|stop| *stop).await;
    let posts = posts.read().unwrap_or_else(PoisonError::into_inner).clone();
    posts.iter().for_each(|post| post.tell_to_stop());
    for post in posts {
        post.ended().await;
    }
}
