//! Requests about VMs.

use axum::Json;
use axum::extract::State;
use pagefold_api_types::VmStatus;
use pagefold_api_types::request::{RequestBody, VmChange, VmFolding};
use pagefold_dedup::VmId;
use serde::Serialize;

use super::Shared;
use super::extract::Id;
use crate::body::{NoBody, Object};
use crate::control::{Control, ControlError};
use crate::error::ApiError;

/// One VM, as it is now.
#[derive(Serialize)]
pub(super) struct OneVm {
    #[serde(flatten)]
    status: VmStatus,
    /// Pages that are still to be given their own memory; `null` if the VM is not folded.
    unmerging_pages: Option<u64>,
}

impl OneVm {
    fn of(control: &dyn Control, id: VmId) -> Result<Self, ControlError> {
        Ok(Self { status: control.vm(id)?, unmerging_pages: control.unmerging_pages(id) })
    }
}

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
) -> Result<Json<OneVm>, ApiError> {
    shared.blocking(move |control| OneVm::of(control, id)).await.map(Json)
}

pub(super) async fn pause(
    State(shared): State<Shared>,
    Id(id): Id,
    _: NoBody,
) -> Result<Json<OneVm>, ApiError> {
    change(shared, id, move |control| control.pause(id)).await
}

pub(super) async fn resume(
    State(shared): State<Shared>,
    Id(id): Id,
    _: NoBody,
) -> Result<Json<OneVm>, ApiError> {
    change(shared, id, move |control| control.resume(id)).await
}

pub(super) async fn stop(
    State(shared): State<Shared>,
    Id(id): Id,
    _: NoBody,
) -> Result<Json<OneVm>, ApiError> {
    change(shared, id, move |control| control.stop(id)).await
}

pub(super) async fn fold(
    State(shared): State<Shared>,
    Id(id): Id,
    Object(request): Object<VmChange>,
) -> Result<Json<OneVm>, ApiError> {
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

/// Does something with a VM, and returns its status then.
async fn change(
    shared: Shared,
    id: VmId,
    step: impl FnOnce(&dyn Control) -> Result<(), ControlError> + Send + 'static,
) -> Result<Json<OneVm>, ApiError> {
    shared
        .blocking(move |control| {
            step(control)?;
            OneVm::of(control, id)
        })
        .await
        .map(Json)
}
