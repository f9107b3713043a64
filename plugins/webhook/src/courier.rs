//! One attempt: a signed POST and its answer.

use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::{Client, Proxy, Response, redirect, retry};

use crate::endpoint::Endpoint;
use crate::failure::{Class, Failure};
use crate::keys::Ring;
use crate::message::Message;
use crate::retry::asked;
use crate::target::Guarded;
use crate::tls::{self, Trust};
use crate::{signature, target};

/// Octets of an answer that are read so that its connection can be used again, and how long that may take. Nobody looks at them.
const ANSWER_MAX: usize = 64 * 1024;
const ANSWER_TIME: Duration = Duration::from_secs(1);

/// Shorter than what servers keep idle connections for: a message never meets one that is just being closed.
const IDLE: Duration = Duration::from_secs(4);

/// The answer to an attempt.
pub(crate) type Carrying<'a> = Pin<Box<dyn Future<Output = Result<u16, Failure>> + Send + 'a>>;

/// Carries messages to one receiver.
pub(crate) trait Courier: Send + Sync + 'static {
    /// Makes one attempt; tells the status of success.
    fn carry<'a>(&'a self, message: &'a Message) -> Carrying<'a>;

    /// Looks at files anew before the next one.
    fn refresh(&self) {}
}

/// Carries them over HTTP.
pub(crate) struct Http {
    endpoint: Endpoint,
    ring: Ring,
    agent: HeaderValue,
    client: Mutex<Option<Client>>,
}

impl Http {
    /// Names itself `agent`.
    pub(crate) fn new(endpoint: Endpoint, agent: HeaderValue) -> Self {
        let ring = Ring::new(endpoint.keys.clone());
        Self { endpoint, ring, agent, client: Mutex::new(None) }
    }

    /// The client, made when it is first needed: a file that is missing can be put there while the daemon runs.
    fn client(&self) -> Result<Client, Failure> {
        let mut client = self.client.lock().unwrap_or_else(PoisonError::into_inner);
        match &*client {
            Some(client) => Ok(client.clone()),
            None => self.make_client().map(|made| client.insert(made).clone()),
        }
    }

    /// The next attempt looks at the certificates that are trusted afresh.
    fn forget_client(&self) {
        *self.client.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn make_client(&self) -> Result<Client, Failure> {
        let endpoint = &self.endpoint;
        let wrong = |what: String| Failure::new(Class::Settings, what);
        let secured = endpoint.address.is_https() || endpoint.proxy.as_ref().is_some_and(|proxy| proxy.is_https());
        let trust = match &endpoint.ca_file {
            _ if !secured => Trust::Unused,
            Some(path) => Trust::File(path),
            None => Trust::System,
        };
        let mut fields = HeaderMap::new();
        for field in &endpoint.fields {
            fields.append(field.name.clone(), field.value.clone());
        }
        let mut builder = Client::builder()
            .tls_backend_preconfigured(tls::config(trust).map_err(wrong)?)
            .dns_resolver(Guarded { allow_link_local: endpoint.allow_link_local })
            .redirect(redirect::Policy::none())
            .retry(retry::never())
            .referer(false)
            .no_proxy()
            .user_agent(self.agent.clone())
            .default_headers(fields)
            .connect_timeout(endpoint.connect_timeout)
            .timeout(endpoint.timeout)
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(usize::from(endpoint.concurrency));
        if let Some(proxy) = &endpoint.proxy {
            builder =
                builder.proxy(Proxy::all(proxy.url().clone()).map_err(|error| wrong(error.without_url().to_string()))?);
        }
        builder.build().map_err(|error| wrong(error.without_url().to_string()))
    }

    async fn post(&self, message: &Message) -> Result<u16, Failure> {
        let endpoint = &self.endpoint;
        let url = endpoint.address.url();
        for address in [Some(&endpoint.address), endpoint.proxy.as_ref()].into_iter().flatten() {
            target::check_literal(address.url(), endpoint.allow_link_local)
                .map_err(|error| Failure::new(Class::Forbidden, error.to_string()))?;
        }
        let secrets = self.ring.secrets().map_err(|what| Failure::new(Class::Settings, what))?;
        let timestamp = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let request = self
            .client()?
            .post(url.clone())
            .header(CONTENT_TYPE, "application/json")
            .header("webhook-id", &message.id)
            .header("webhook-timestamp", timestamp)
            .header("webhook-signature", signature::signatures(&secrets, &message.id, timestamp, &message.body))
            .body(message.body.clone());
        let answer = request.send().await.map_err(Failure::of_exchange)?;
        let status = answer.status();
        if status.is_success() {
            read_on(answer).await;
            return Ok(status.as_u16());
        }
        let wait = answer.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
        let wait = wait.and_then(|value| asked(value, SystemTime::now()));
        read_on(answer).await;
        Err(Failure::of_status(status, wait))
    }
}

impl Courier for Http {
    fn carry<'a>(&'a self, message: &'a Message) -> Carrying<'a> {
        Box::pin(async move {
            let outcome = self.post(message).await;
            if outcome.as_ref().is_err_and(|failure| failure.class == Class::Tls) {
                self.forget_client();
            }
            outcome
        })
    }

    /// Secrets are looked at each time anyway.
    fn refresh(&self) {
        self.forget_client();
    }
}

/// Reads the rest of an answer, within limits. What it is worth was said by its status, so that nothing here is a failure.
async fn read_on(mut answer: Response) {
    if answer.content_length().is_some_and(|length| usize::try_from(length).map_or(true, |length| length > ANSWER_MAX))
    {
        return;
    }
    let reading = async {
        let mut octets = 0;
        while let Ok(Some(chunk)) = answer.chunk().await {
            octets += chunk.len();
            if octets > ANSWER_MAX {
                break;
            }
        }
    };
    // A receiver that sends slowly loses its connection, no more.
    let _ = tokio::time::timeout(ANSWER_TIME, reading).await;
}

#[cfg(test)]
mod tests;
