//! What goes to which webhook, which may change while events are taken over.

use std::sync::{Arc, PoisonError, RwLock};

use ike_model::history::Subscription;

/// The list that holds now, seen by all who have a copy of this.
#[derive(Clone, Debug, Default)]
pub(crate) struct Subscriptions(Arc<RwLock<Arc<[Subscription]>>>);

impl Subscriptions {
    pub(crate) fn new(list: Vec<Subscription>) -> Self {
        Self(Arc::new(RwLock::new(list.into())))
    }

    /// The list of this moment.
    pub(crate) fn now(&self) -> Arc<[Subscription]> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Another list from now on.
    pub(crate) fn set(&self, list: Vec<Subscription>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = list.into();
    }
}

impl From<Vec<Subscription>> for Subscriptions {
    fn from(list: Vec<Subscription>) -> Self {
        Self::new(list)
    }
}
