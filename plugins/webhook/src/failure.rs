//! Why an attempt failed, and what follows from that.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use reqwest::StatusCode;

use crate::target::{Forbidden, NotResolved};

/// What went wrong, as metrics count it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// The secret or another file that is needed cannot be used.
    Settings,
    /// The address is one that must not be connected to.
    Forbidden,
    /// The name was not resolved.
    Resolve,
    /// No connection.
    Connect,
    /// No TLS, or with somebody else.
    Tls,
    /// No answer in time.
    Timeout,
    /// What came was no HTTP, or broke off.
    Protocol,
    /// 3xx: redirects are not followed.
    Redirect,
    /// 4xx.
    Refused,
    /// 410: nobody wants messages there any more.
    Gone,
    /// 429 or 503: not now.
    Busy,
    /// Another 5xx.
    Server,
}

impl Class {
    /// All there are.
    pub const ALL: [Self; 12] = [
        Self::Settings,
        Self::Forbidden,
        Self::Resolve,
        Self::Connect,
        Self::Tls,
        Self::Timeout,
        Self::Protocol,
        Self::Redirect,
        Self::Refused,
        Self::Gone,
        Self::Busy,
        Self::Server,
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Settings => "settings",
            Self::Forbidden => "forbidden",
            Self::Resolve => "dns",
            Self::Connect => "tcp",
            Self::Tls => "tls",
            Self::Timeout => "timeout",
            Self::Protocol => "http",
            Self::Redirect => "redirect",
            Self::Refused => "refused",
            Self::Gone => "gone",
            Self::Busy => "busy",
            Self::Server => "server-error",
        }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why an attempt failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Failure {
    /// What went wrong.
    pub class: Class,
    /// The same in words, without any secret.
    pub text: String,
    /// The status, where there was an answer.
    pub status: Option<u16>,
    /// How long the receiver asks to be left alone.
    pub asked: Option<Duration>,
}

impl Failure {
    pub(crate) fn new(class: Class, text: impl Into<String>) -> Self {
        Self { class, text: text.into(), status: None, asked: None }
    }

    /// Of an answer that is none of success.
    pub(crate) fn of_status(status: StatusCode, asked: Option<Duration>) -> Self {
        let class = match status.as_u16() {
            410 => Class::Gone,
            429 | 503 => Class::Busy,
            300..=399 => Class::Redirect,
            400..=499 => Class::Refused,
            500..=599 => Class::Server,
            _ => Class::Protocol,
        };
        let name = status.canonical_reason().map(|name| format!(" {name}")).unwrap_or_default();
        let mut text = format!("the receiver answered {}{name}", status.as_u16());
        if class == Class::Redirect {
            text.push_str(", but redirects are not followed: configure the address it leads to");
        }
        // Only these two answers give the header a meaning here.
        let asked = asked.filter(|_| class == Class::Busy);
        Self { class, text, status: Some(status.as_u16()), asked }
    }

    /// Of an exchange that did not come about.
    pub(crate) fn of_exchange(error: reqwest::Error) -> Self {
        let error = error.without_url();
        if let Some(failure) = root(&error).find_map(known) {
            return failure;
        }
        if error.is_timeout() && error.is_connect() {
            return Self::new(Class::Connect, "no connection in time");
        }
        if error.is_timeout() {
            return Self::new(Class::Timeout, "no answer in time");
        }
        let class = if error.is_connect() { Class::Connect } else { Class::Protocol };
        // The last cause is what the system or the peer said; those before it only say where.
        let deepest = root(&error).last().map(ToString::to_string).unwrap_or_default();
        let what = if class == Class::Connect { "no connection" } else { "no HTTP answer" };
        Self::new(class, format!("{what}: {deepest}"))
    }

    /// It says nothing about the one message, but keeps all others from arriving as well: they wait rather than fail one by one.
    pub(crate) fn concerns_all(&self) -> bool {
        match self.class {
            Class::Settings
            | Class::Forbidden
            | Class::Resolve
            | Class::Connect
            | Class::Tls
            | Class::Timeout
            | Class::Protocol
            | Class::Gone
            | Class::Busy => true,
            Class::Redirect | Class::Refused => false,
            // A gateway before the receiver answers for it.
            Class::Server => matches!(self.status, Some(502 | 504)),
        }
    }

    /// It cannot be because of the one message, whatever that is: it does not count as an attempt.
    pub(crate) fn is_free(&self) -> bool {
        match self.class {
            Class::Settings | Class::Forbidden | Class::Resolve | Class::Connect | Class::Tls | Class::Gone => true,
            Class::Busy => self.asked.is_some() || self.status == Some(429),
            Class::Timeout | Class::Protocol | Class::Redirect | Class::Refused | Class::Server => false,
        }
    }
}

/// An error and its causes.
fn root<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    fn cause<'a>(error: &&'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
        let error: &'a (dyn Error + 'static) = *error;
        match error.downcast_ref::<std::io::Error>() {
            // What such an error wraps is not its source, but what it is.
            Some(io) => io.get_ref().map(|inner| inner as &(dyn Error + 'static)),
            None => error.source(),
        }
    }
    std::iter::successors(Some(error), cause)
}

fn known(error: &(dyn Error + 'static)) -> Option<Failure> {
    if let Some(error) = error.downcast_ref::<NotResolved>() {
        let class = match error {
            NotResolved::Failed(..) | NotResolved::Empty(_) => Class::Resolve,
            NotResolved::Forbidden(..) => Class::Forbidden,
        };
        return Some(Failure::new(class, error.to_string()));
    }
    if let Some(error) = error.downcast_ref::<Forbidden>() {
        return Some(Failure::new(Class::Forbidden, error.to_string()));
    }
    let tls = error.downcast_ref::<rustls::Error>()?;
    Some(Failure::new(Class::Tls, format!("no TLS connection: {tls}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_have_their_classes() {
        let cases = [
            (301, Class::Redirect, false),
            (307, Class::Redirect, false),
            (400, Class::Refused, false),
            (401, Class::Refused, false),
            (408, Class::Refused, false),
            (410, Class::Gone, true),
            (429, Class::Busy, true),
            (500, Class::Server, false),
            (501, Class::Server, false),
            (502, Class::Server, true),
            (503, Class::Busy, true),
            (504, Class::Server, true),
            (999, Class::Protocol, true),
        ];
        for (status, class, all) in cases {
            let wait = Some(Duration::from_secs(9));
            let failure = Failure::of_status(StatusCode::from_u16(status).unwrap(), wait);
            assert_eq!((failure.class, failure.concerns_all(), failure.status), (class, all, Some(status)), "{status}");
            assert_eq!(failure.asked.is_some(), matches!(status, 429 | 503), "{status}");
            assert!(failure.text.contains(&status.to_string()), "{}", failure.text);
        }
        let busy = Failure::of_status(StatusCode::SERVICE_UNAVAILABLE, None);
        assert!(!busy.is_free() && Failure::of_status(StatusCode::TOO_MANY_REQUESTS, None).is_free());
        for class in Class::ALL {
            assert_eq!(Class::ALL.iter().filter(|other| other.name() == class.name()).count(), 1);
        }
    }
}
