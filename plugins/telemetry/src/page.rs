//! The status page and its API.

use axum::Router;

use crate::site::Site;

/// Everything under `/` and `/api/`; the host a request names has been checked.
pub fn routes() -> Router<Site> {
    Router::new()
}
