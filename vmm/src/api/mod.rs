//! The control socket: HTTP/1.1 with JSON over a Unix socket.
//!
//! | request | answer |
//! |---|---|
//! | `GET /v1/vms` | 200, an array of [`VmStatus`](crate::status::VmStatus) |
//! | `GET /v1/vms/{id}` | 200, one [`VmStatus`](crate::status::VmStatus) |
//! | `PUT /v1/vms/{id}/pause`, `…/resume`, `…/stop` | 200, the [`VmStatus`](crate::status::VmStatus) after it |
//! | `GET /v1/dedup` | 200, [`pagefold_dedup::stats::DedupStats`] |
//! | `POST /v1/dedup/settle` | 200 with a [`SettleReport`](pagefold_dedup::SettleReport) once a pass finds nothing more to do; 504 when the time limit is over first |
//! | `GET /metrics` | 200, Prometheus text |
//!
//! `settle` takes an optional body `{"timeout_ms": N}`. The other requests take none. Whatever is
//! not understood is answered with a 4xx status, and every error has a body
//! `{"error": "what was wrong", "hint": "what to do"}`:
//!
//! | status | when |
//! |---|---|
//! | 400 | not HTTP, not JSON, an unknown field, a limit out of range, an id that is no number |
//! | 404, 405 | no such path or VM; no such method for the path |
//! | 408, 413, 431 | a body that does not arrive; a body or a head that is too large |
//! | 409 | the VM is in a state that does not allow it (pausing one that has stopped) |
//! | 429 | too many settle requests at once |
//! | 503 | folding has ended in this process |
//! | 504 | the time limit was over before all was settled; the body has the `report` (504 and not 408, which tells a client to send the same again) |
//!
//! One thread serves all connections; whatever may block runs beside it, so a slow client or a long
//! settle holds up nobody else. The socket is for the user who started the process (mode 0600).

mod body;
mod client;
mod control;
mod error;
mod exposition;
mod host;
mod metrics;
mod refusal;
mod routes;
mod server;
mod settle;
mod socket;

pub use client::{ApiClient, ClientError};
pub use control::{Control, ControlError};
pub use server::{ApiServer, BindError};
pub use settle::MAX_SETTLE_LIMIT;
pub use socket::SocketError;

#[cfg(test)]
mod tests;
