//! Errors as answers.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use pagefold_dedup::SettleReport;
use serde::Serialize;

use super::control::ControlError;

/// An error as a client sees it: what was wrong, and what to do.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ApiError {
    pub(super) status: StatusCode,
    pub(super) body: ErrorBody,
}

/// The body of every answer that is not a success.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct ErrorBody {
    pub(super) error: String,
    pub(super) hint: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) report: Option<SettleReport>,
}

impl ApiError {
    pub(super) fn new(
        status: StatusCode,
        error: impl Into<String>,
        hint: impl Into<String>,
    ) -> Self {
        Self { status, body: ErrorBody { error: error.into(), hint: hint.into(), report: None } }
    }

    pub(super) fn bad_request(error: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, error, hint)
    }

    /// The time limit was over first.
    pub(super) fn unsettled(report: SettleReport) -> Self {
        let mut answer = Self::new(
            StatusCode::GATEWAY_TIMEOUT,
            "the time limit was over before a pass found nothing more to do",
            "ask again with a longer timeout_ms; guests that keep writing may never settle",
        );
        answer.body.report = Some(report);
        answer
    }
}

impl From<ControlError> for ApiError {
    fn from(error: ControlError) -> Self {
        let (status, hint) = match error {
            ControlError::NoSuchVm(_) => (StatusCode::NOT_FOUND, "GET /v1/vms lists the VMs"),
            ControlError::Conflict(_) => {
                (StatusCode::CONFLICT, "GET /v1/vms/{id} says which state the VM is in")
            }
            ControlError::Gone(_) => (
                StatusCode::SERVICE_UNAVAILABLE,
                "the process is ending or has failed: see its log",
            ),
        };
        Self::new(status, error.to_string(), hint)
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        (self.status, Json(self.body)).into_response()
    }
}
