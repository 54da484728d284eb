//! Requests about folding.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use pagefold_api_types::request::{CompactRequest, KnobChanges, MAX_SETTLE_LIMIT, SettleRequest};
use pagefold_dedup::stats::DedupStats;
use pagefold_dedup::{CompactReport, CompactScope, Explanation, Knobs, SettleReport};

use super::extract::PageQuery;
use super::{MAX_COMPACTIONS, MAX_SETTLES, Shared};
use crate::body::{NoBody, Object, OptionalObject};
use crate::control::Control;
use crate::error::ApiError;
use crate::metrics;

pub(super) async fn stats(
    State(shared): State<Shared>,
    _: NoBody,
) -> Result<Json<DedupStats>, ApiError> {
    shared.blocking(Control::dedup).await.map(Json)
}

pub(super) async fn set_knobs(
    State(shared): State<Shared>,
    Object(KnobChanges(changes)): Object<KnobChanges>,
) -> Result<Json<Knobs>, ApiError> {
    shared.blocking(move |control| control.set_knobs(changes)).await.map(Json)
}

pub(super) async fn rmap(
    State(shared): State<Shared>,
    PageQuery { vm, gpa }: PageQuery,
    _: NoBody,
) -> Result<Json<Explanation>, ApiError> {
    shared.blocking(move |control| control.explain(vm, gpa)).await.map(Json)
}

pub(super) async fn compact(
    State(shared): State<Shared>,
    OptionalObject(request): OptionalObject<CompactRequest>,
) -> Result<Json<CompactReport>, ApiError> {
    let permit = Arc::clone(&shared.compactions).try_acquire_owned().map_err(|_| {
        too_many(&format!("{MAX_COMPACTIONS} compact requests are under way already"))
    })?;
    let scope = if request.all { CompactScope::All } else { CompactScope::Gainful };
    shared
        .blocking(move |control| {
            let _permit = permit;
            control.compact(scope)
        })
        .await
        .map(Json)
}

pub(super) async fn settle(
    State(shared): State<Shared>,
    OptionalObject(request): OptionalObject<SettleRequest>,
) -> Result<Json<SettleReport>, ApiError> {
    let limit = request.limit().ok_or_else(|| {
        ApiError::bad_request(
            "timeout_ms is too long",
            format!("at most {} are taken", MAX_SETTLE_LIMIT.as_millis()),
        )
    })?;
    let permit = Arc::clone(&shared.settles)
        .try_acquire_owned()
        .map_err(|_| too_many(&format!("{MAX_SETTLES} settle requests are under way already")))?;
    let report = shared
        .blocking(move |control| {
            // Held by the work and not by the request: a client that leaves frees no thread.
            let _permit = permit;
            control.settle(limit)
        })
        .await?;
    if report.settled { Ok(Json(report)) } else { Err(ApiError::unsettled(report)) }
}

pub(super) async fn prometheus(
    State(shared): State<Shared>,
    _: NoBody,
) -> Result<Response, ApiError> {
    let (stats, vms) = shared.blocking(|control| Ok((control.dedup()?, control.vms()))).await?;
    let text = metrics::text(&stats, &vms);
    Ok(([(CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response())
}

fn too_many(error: &str) -> ApiError {
    ApiError::new(StatusCode::TOO_MANY_REQUESTS, error, "wait for one of them to be answered")
}
