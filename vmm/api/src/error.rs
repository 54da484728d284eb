//! Errors as answers.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use pagefold_api_types::{ErrorBody, ErrorKind};
use pagefold_dedup::{KnobError, SettleReport};

use super::control::ControlError;

/// An error as a client sees it: what was wrong, and what to do.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ApiError {
    pub(super) status: StatusCode,
    pub(super) body: ErrorBody,
}

impl ApiError {
    pub(super) fn new(
        status: StatusCode,
        error: impl Into<String>,
        hint: impl Into<String>,
    ) -> Self {
        Self {
            status,
            body: ErrorBody { kind: None, error: error.into(), hint: hint.into(), report: None },
        }
    }

    pub(super) fn bad_request(error: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, error, hint)
    }

    /// Nobody is there any more who would carry it out.
    pub(super) fn gone(error: impl Into<String>, hint: impl Into<String>) -> Self {
        let mut answer = Self::new(StatusCode::SERVICE_UNAVAILABLE, error, hint);
        answer.body.kind = Some(ErrorKind::Gone);
        answer
    }

    /// The time limit was over first.
    pub(super) fn unsettled(report: SettleReport) -> Self {
        let mut answer = Self::new(
            StatusCode::GATEWAY_TIMEOUT,
            "the time limit was over before a pass found nothing more to do",
            "ask again with a longer timeout_ms; guests that keep writing may never settle",
        );
        answer.body.kind = Some(ErrorKind::Unsettled);
        answer.body.report = Some(report);
        answer
    }
}

fn kind(error: &ControlError) -> ErrorKind {
    match error {
        ControlError::NoSuchVm(_) => ErrorKind::NoSuchVm,
        ControlError::Conflict(_) => ErrorKind::Conflict,
        ControlError::Knob(KnobError::Advised) => ErrorKind::Advised,
        ControlError::Knob(KnobError::Busy { .. }) => ErrorKind::Busy,
        ControlError::Knob(_) => ErrorKind::BadKnob,
        ControlError::NotFolding(_) => ErrorKind::NotFolding,
        ControlError::NotPages(_) => ErrorKind::NotPages,
        ControlError::NoMemory { .. } => ErrorKind::NoMemory,
        ControlError::Gone(_) => ErrorKind::Gone,
    }
}

impl From<ControlError> for ApiError {
    fn from(error: ControlError) -> Self {
        let (status, hint) = match &error {
            ControlError::NoSuchVm(_) => (StatusCode::NOT_FOUND, "GET /v1/vms lists the VMs"),
            ControlError::Conflict(_) => (
                StatusCode::CONFLICT,
                "GET /v1/vms/{id} says which state and dedup mode the VM is in",
            ),
            ControlError::Knob(error) => knob(error),
            ControlError::NotFolding(_) => {
                (StatusCode::CONFLICT, "fold again with PATCH /v1/dedup {\"run\": 1}, then settle")
            }
            ControlError::NotPages(_) => {
                (StatusCode::BAD_REQUEST, "give gpa and bytes as multiples of 4096, bytes above 0")
            }
            ControlError::NoMemory { .. } => (
                StatusCode::NOT_FOUND,
                "a VM's memory begins at 0; GET /v1/vms/{id} says how many memory_bytes it has",
            ),
            ControlError::Gone(_) => (
                StatusCode::SERVICE_UNAVAILABLE,
                "the process is ending or has failed: see its log",
            ),
        };
        let mut answer = Self::new(status, error.to_string(), hint);
        answer.body.kind = Some(kind(&error));
        answer
    }
}

/// The status, and what to do, for a knob that cannot be set so.
fn knob(error: &KnobError) -> (StatusCode, &'static str) {
    match error {
        KnobError::Unknown { .. } | KnobError::BadValue { .. } | KnobError::AdvisorRange { .. } => {
            (
                StatusCode::BAD_REQUEST,
                "GET /v1/dedup shows all knobs and their values in \"knobs\"; none was changed",
            )
        }
        KnobError::Advised => (
            StatusCode::CONFLICT,
            "PATCH /v1/dedup {\"advisor_mode\": \"none\"}, which may be in the same request",
        ),
        // Pages that wait for a twin were placed by the rule that it changes.
        KnobError::Busy { key: "merge_across_nodes", .. } => (
            StatusCode::CONFLICT,
            "PATCH /v1/dedup {\"run\": 2}, wait until GET /v1/dedup has \"pages_shared\": 0 and \
             \"pages_unshared\": 0, set it, then {\"run\": 1}; none was changed",
        ),
        KnobError::Busy { .. } => (
            StatusCode::CONFLICT,
            "PATCH /v1/dedup {\"run\": 2}, wait until GET /v1/dedup has \"pages_shared\": 0, set \
             it, then {\"run\": 1}; none was changed",
        ),
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        (self.status, Json(self.body)).into_response()
    }
}
