//! The requests and what each does.

use std::sync::Arc;

use axum::extract::{DefaultBodyLimit, FromRequestParts, Path, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::request::Parts;
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::{Json, Router};
use pagefold_dedup::stats::DedupStats;
use pagefold_dedup::{SettleReport, VmId};
use tokio::sync::Semaphore;

use super::body::{MAX_BODY_BYTES, NoBody, OptionalJson};
use super::control::{Control, ControlError};
use super::error::ApiError;
use super::metrics;
use super::settle::{MAX_SETTLE_LIMIT, SettleRequest};
use crate::status::VmStatus;

/// Settle requests that may be under way at once: each holds a thread for up to its limit.
const MAX_SETTLES: usize = 4;

#[derive(Clone)]
struct Shared {
    control: Arc<dyn Control>,
    settles: Arc<Semaphore>,
}

/// All routes, carried out by `control`.
pub(super) fn router(control: Arc<dyn Control>) -> Router {
    let shared = Shared { control, settles: Arc::new(Semaphore::new(MAX_SETTLES)) };
    Router::new()
        .route("/v1/vms", get(vms))
        .route("/v1/vms/{id}", get(vm))
        .route("/v1/vms/{id}/pause", put(pause))
        .route("/v1/vms/{id}/resume", put(resume))
        .route("/v1/vms/{id}/stop", put(stop))
        .route("/v1/dedup", get(dedup))
        .route("/v1/dedup/settle", post(settle))
        .route("/metrics", get(prometheus))
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .with_state(shared)
}

impl Shared {
    /// Does what may block on a thread where it may.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&dyn Control) -> Result<T, ControlError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let control = Arc::clone(&self.control);
        match tokio::task::spawn_blocking(move || work(&*control)).await {
            Ok(result) => Ok(result?),
            Err(panicked) => Err(ApiError::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                format!("the request failed: {panicked}"),
                "this is a fault in pagefold: see its log, and report it",
            )),
        }
    }
}

/// The `{id}` of a path.
struct Id(VmId);

impl<S: Send + Sync> FromRequestParts<S> for Id {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let hint = "a VM's id is a decimal number; GET /v1/vms lists the VMs";
        let Path(text) =
            Path::<String>::from_request_parts(parts, state).await.map_err(|error| {
                ApiError::bad_request(format!("the VM's id is unreadable: {error}"), hint)
            })?;
        match text.parse() {
            Ok(id) if text.bytes().all(|byte| byte.is_ascii_digit()) => Ok(Self(VmId(id))),
            _ => Err(ApiError::bad_request(format!("{text:?} is not the id of a VM"), hint)),
        }
    }
}

async fn vms(State(shared): State<Shared>, _: NoBody) -> Result<Json<Vec<VmStatus>>, ApiError> {
    shared.blocking(|control| Ok(control.vms())).await.map(Json)
}

async fn vm(
    State(shared): State<Shared>,
    Id(id): Id,
    _: NoBody,
) -> Result<Json<VmStatus>, ApiError> {
    shared.blocking(move |control| control.vm(id)).await.map(Json)
}

async fn pause(
    State(shared): State<Shared>,
    Id(id): Id,
    _: NoBody,
) -> Result<Json<VmStatus>, ApiError> {
    change(shared, id, Control::pause).await
}

async fn resume(
    State(shared): State<Shared>,
    Id(id): Id,
    _: NoBody,
) -> Result<Json<VmStatus>, ApiError> {
    change(shared, id, Control::resume).await
}

async fn stop(
    State(shared): State<Shared>,
    Id(id): Id,
    _: NoBody,
) -> Result<Json<VmStatus>, ApiError> {
    change(shared, id, Control::stop).await
}

async fn change(
    shared: Shared,
    id: VmId,
    step: fn(&dyn Control, VmId) -> Result<(), ControlError>,
) -> Result<Json<VmStatus>, ApiError> {
    shared
        .blocking(move |control| {
            step(control, id)?;
            control.vm(id)
        })
        .await
        .map(Json)
}

async fn dedup(State(shared): State<Shared>, _: NoBody) -> Result<Json<DedupStats>, ApiError> {
    shared.blocking(Control::dedup).await.map(Json)
}

async fn settle(
    State(shared): State<Shared>,
    OptionalJson(request): OptionalJson<SettleRequest>,
) -> Result<Json<SettleReport>, ApiError> {
    let limit = request.limit().ok_or_else(|| {
        ApiError::bad_request(
            "timeout_ms is too long",
            format!("at most {} are taken", MAX_SETTLE_LIMIT.as_millis()),
        )
    })?;
    let permit = Arc::clone(&shared.settles).try_acquire_owned().map_err(|_| {
        ApiError::new(
            StatusCode::TOO_MANY_REQUESTS,
            format!("{MAX_SETTLES} settle requests are under way already"),
            "wait for one of them to be answered",
        )
    })?;
    let report = shared
        .blocking(move |control| {
            // Held by the work and not by the request: a client that leaves frees no thread.
            let _permit = permit;
            control.settle(limit)
        })
        .await?;
    if report.settled { Ok(Json(report)) } else { Err(ApiError::unsettled(report)) }
}

async fn prometheus(State(shared): State<Shared>, _: NoBody) -> Result<Response, ApiError> {
    let (stats, vms) = shared.blocking(|control| Ok((control.dedup()?, control.vms()))).await?;
    let text = metrics::text(&stats, &vms);
    Ok(([(CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response())
}

async fn unknown_path(uri: Uri) -> ApiError {
    ApiError::new(
        StatusCode::NOT_FOUND,
        format!("there is nothing at {}", uri.path()),
        "there are /v1/vms, /v1/vms/{id}, /v1/vms/{id}/pause, …/resume, …/stop, /v1/dedup, \
         /v1/dedup/settle and /metrics",
    )
}

async fn wrong_method(method: Method, uri: Uri) -> ApiError {
    ApiError::new(
        StatusCode::METHOD_NOT_ALLOWED,
        format!("{} does not take {method}", uri.path()),
        "GET reads, PUT pauses, resumes and stops a VM, POST settles",
    )
}
