//! The requests and what each does.

mod dedup;
mod extract;
mod vms;

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::{Method, StatusCode, Uri};
use axum::routing::{get, post, put};
use tokio::sync::{Semaphore, oneshot};
use tokio::time::timeout;

use super::body::MAX_BODY_BYTES;
use super::control::{Control, ControlError};
use super::error::ApiError;

/// Settle requests that may be under way at once: each holds a thread for up to its limit.
const MAX_SETTLES: usize = 4;

/// Compact requests that may be under way at once: one is carried out after the other.
const MAX_COMPACTIONS: usize = 2;

/// Requests that may be carried out at once, each on a thread: fewer than there are connections, so
/// that there always are some whose clients are waited for, and which can make room for others.
pub(super) const MAX_REQUESTS: usize = 32;

#[derive(Clone)]
struct Shared {
    control: Arc<dyn Control>,
    requests: Arc<Semaphore>,
    /// How long one too many waits for others to be answered.
    request_limit: Duration,
    settles: Arc<Semaphore>,
    compactions: Arc<Semaphore>,
}

/// All routes, carried out by `control`. A request that is one too many waits for others to be
/// answered, for `request_limit` at most.
pub(super) fn router(control: Arc<dyn Control>, request_limit: Duration) -> Router {
    let shared = Shared {
        control,
        requests: Arc::new(Semaphore::new(MAX_REQUESTS)),
        request_limit,
        settles: Arc::new(Semaphore::new(MAX_SETTLES)),
        compactions: Arc::new(Semaphore::new(MAX_COMPACTIONS)),
    };
    Router::new()
        .route("/v1/vms", get(vms::all))
        .route("/v1/vms/{id}", get(vms::one).patch(vms::fold))
        .route("/v1/vms/{id}/pause", put(vms::pause))
        .route("/v1/vms/{id}/resume", put(vms::resume))
        .route("/v1/vms/{id}/stop", put(vms::stop))
        .route("/v1/dedup", get(dedup::stats).patch(dedup::set_knobs))
        .route("/v1/dedup/rmap", get(dedup::rmap))
        .route("/v1/dedup/settle", post(dedup::settle))
        .route("/v1/dedup/compact", post(dedup::compact))
        .route("/metrics", get(dedup::prometheus))
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .with_state(shared)
}

impl Shared {
    /// Does what may block on a thread of its own, unless too much is being done already.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&dyn Control) -> Result<T, ControlError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let permit = Arc::clone(&self.requests).acquire_owned();
        let Ok(Ok(permit)) = timeout(self.request_limit, permit).await else {
            return Err(ApiError::new(
                StatusCode::SERVICE_UNAVAILABLE,
                format!("{MAX_REQUESTS} requests are being carried out already"),
                "ask again when some of them have been answered",
            ));
        };
        let control = Arc::clone(&self.control);
        let (sender, done) = oneshot::channel();
        // Not tokio's pool, which panics where the system has no thread for it.
        let thread = thread::Builder::new().name("pagefold-request".to_owned()).spawn(move || {
            // Held by the work and not by the request: a client that leaves frees no thread.
            let _permit = permit;
            // Failing to send means that it has left.
            let _ = sender.send(work(&*control));
        });
        if let Err(error) = thread {
            return Err(ApiError::new(
                StatusCode::SERVICE_UNAVAILABLE,
                format!("the process cannot start a thread for the request: {error}"),
                "see its limits on threads (ulimit -u, pids.max), or ask again later",
            ));
        }
        match done.await {
            Ok(result) => Ok(result?),
            // Nothing is sent by work that panics.
            Err(_) => Err(ApiError::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "the request failed: it panicked",
                "this is a fault in pagefold: see its log, and report it",
            )),
        }
    }
}

async fn unknown_path(uri: Uri) -> ApiError {
    ApiError::new(
        StatusCode::NOT_FOUND,
        format!("there is nothing at {}", uri.path()),
        "there are /v1/vms, /v1/vms/{id}, /v1/vms/{id}/pause, …/resume, …/stop, /v1/dedup, \
         /v1/dedup/settle, …/compact, …/rmap and /metrics",
    )
}

async fn wrong_method(method: Method, uri: Uri) -> ApiError {
    ApiError::new(
        StatusCode::METHOD_NOT_ALLOWED,
        format!("{} does not take {method}", uri.path()),
        "GET reads, PUT pauses, resumes and stops a VM, PATCH changes knobs and what of a VM is \
         folded, POST settles and compacts",
    )
}
