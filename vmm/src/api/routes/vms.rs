//! Requests about VMs.

use axum::Json;
use axum::extract::State;
use pagefold_dedup::VmId;

use super::Shared;
use super::extract::Id;
use crate::api::body::{NoBody, Object, RequestBody, VmChange, VmFolding};
use crate::api::control::{Control, ControlError};
use crate::api::error::ApiError;
use crate::status::VmStatus;

pub(super) async fn all(
    State(shared): State<Shared>,
    _: NoBody,
) -> Result<Json<Vec<VmStatus>>, ApiError> {
    shared.blocking(|control| Ok(control.vms())).await.map(Json)
}

pub(super) async fn one(
    State(shared): State<Shared>,
    Id(id): Id,
    _: NoBody,
) -> Result<Json<VmStatus>, ApiError> {
    shared.blocking(move |control| control.vm(id)).await.map(Json)
}

pub(super) async fn pause(
    State(shared): State<Shared>,
    Id(id): Id,
    _: NoBody,
) -> Result<Json<VmStatus>, ApiError> {
    change(shared, id, move |control| control.pause(id)).await
}

pub(super) async fn resume(
    State(shared): State<Shared>,
    Id(id): Id,
    _: NoBody,
) -> Result<Json<VmStatus>, ApiError> {
    change(shared, id, move |control| control.resume(id)).await
}

pub(super) async fn stop(
    State(shared): State<Shared>,
    Id(id): Id,
    _: NoBody,
) -> Result<Json<VmStatus>, ApiError> {
    change(shared, id, move |control| control.stop(id)).await
}

pub(super) async fn fold(
    State(shared): State<Shared>,
    Id(id): Id,
    Object(request): Object<VmChange>,
) -> Result<Json<VmStatus>, ApiError> {
    let folding = request.folding().ok_or_else(|| {
        ApiError::bad_request(
            "a range has a gpa and a number of bytes, and is folded (on) or not (off)",
            VmChange::HINT,
        )
    })?;
    change(shared, id, move |control| match folding {
        VmFolding::Mode(mode) => control.set_dedup(id, mode),
        VmFolding::Range { gpa, len_bytes, mergeable } => {
            control.set_mergeable(id, gpa, len_bytes, mergeable)
        }
    })
    .await
}

/// Does something with a VM, and says what it is like then.
async fn change(
    shared: Shared,
    id: VmId,
    step: impl FnOnce(&dyn Control) -> Result<(), ControlError> + Send + 'static,
) -> Result<Json<VmStatus>, ApiError> {
    shared
        .blocking(move |control| {
            step(control)?;
            control.vm(id)
        })
        .await
        .map(Json)
}
