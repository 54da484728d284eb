//! The control socket: HTTP/1.1 with JSON over a Unix socket.
//!
//! | request | answer |
//! |---|---|
//! | `GET /v1/vms` | 200, an array of [`VmStatus`](pagefold_api_types::VmStatus) |
//! | `GET /v1/vms/{id}` | 200, one [`VmStatus`](pagefold_api_types::VmStatus) |
//! | `PUT /v1/vms/{id}/pause`, `…/resume`, `…/stop` | 200, the [`VmStatus`](pagefold_api_types::VmStatus) after it |
//! | `PATCH /v1/vms/{id}` | 200, the [`VmStatus`](pagefold_api_types::VmStatus) after it |
//! | `GET /v1/dedup` | 200, [`pagefold_dedup::stats::DedupStats`], `knobs` among them |
//! | `PATCH /v1/dedup` | 200, all [`Knobs`](pagefold_dedup::Knobs) after it |
//! | `GET /v1/dedup/rmap?vm=ID&gpa=ADDRESS` | 200, an [`Explanation`](pagefold_dedup::Explanation): where else the page is mapped, or why nowhere |
//! | `POST /v1/dedup/compact` | 200 with a [`CompactReport`](pagefold_dedup::CompactReport) when it is done |
//! | `POST /v1/dedup/settle` | 200 with a [`SettleReport`](pagefold_dedup::SettleReport) once a pass finds nothing more to do; 504 when the time limit is over first |
//! | `GET /metrics` | 200, Prometheus text |
//!
//! Bodies are JSON objects:
//!
//! | request | body |
//! |---|---|
//! | `PATCH /v1/vms/{id}` | `{"dedup": "off"}`, `"zero"` or `"on"`; or about a range of the VM's memory `{"dedup": "off", "gpa": ADDRESS, "bytes": N}`, or `"on"` |
//! | `PATCH /v1/dedup` | any of the [`Knobs`](pagefold_dedup::Knobs), as numbers (0 and 1, or `false` and `true`, for switches) or text: all are set, or none |
//! | `POST /v1/dedup/compact` | none, or `{"all": true}`: every slot, and not only those whose move saves mappings |
//! | `POST /v1/dedup/settle` | none, or `{"timeout_ms": N}` |
//! | the others | none |
//!
//! An ADDRESS is guest-physical: a number, or text as [`parse_number`](pagefold_dedup::parse_number)
//! reads it, such as `"0x100000"`. What is not to be folded
//! any more is made private step by step after the answer, which counters show, and not while
//! `run` is 0.
//!
//! Whatever is not understood is answered with a 4xx status, and every error has a body
//! `{"error": "what was wrong", "hint": "what to do"}`, and most a [`kind`](pagefold_api_types::ErrorKind) for programs:
//!
//! | status | when |
//! |---|---|
//! | 400 | not HTTP, not JSON, an unknown field or knob, a value or limit out of range, an id that is no number |
//! | 404, 405 | no such path, VM or memory; no such method for the path |
//! | 408, 413, 431 | a body that does not arrive; a body or a head that is too large |
//! | 409 | not now: pausing a VM that has stopped, asking about a page of one that has stopped, changing `max_page_sharing` while pages are shared, settling while `run` is not 1 |
//! | 429 | too many settle or compact requests at once |
//! | 503 | folding has ended in this process, the process is ending, or it is carrying out too many requests |
//! | 504 | the time limit was over before all was settled; the body has the `report` (504 and not 408, which tells a client to send the same again) |
//!
//! One thread serves all connections; whatever may block has a thread of its own, so a slow client or a long
//! settle holds up nobody else. Where there are too many clients, the one goes that has been waited for
//! longest, and a second at least: to begin a request, to send the rest of it, or to read its answer; and after four
//! seconds the one that came first, between two of its requests. One
//! that is waited for in vain for 40 seconds goes anyhow. The socket is for the user who started the process (mode 0600).

mod body;
mod client;
mod connection;
mod control;
mod error;
mod exposition;
mod host;
mod limits;
mod metrics;
mod refusal;
mod routes;
mod server;
mod socket;

pub use client::{ApiClient, ClientError};
pub use control::{Control, ControlError};
pub use pagefold_api_types as types;
pub use server::{ApiServer, BindError};
pub use socket::{SocketError, remove_sockets};

#[cfg(test)]
mod tests;
