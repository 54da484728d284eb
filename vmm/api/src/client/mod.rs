//! The other end of the socket, for the commands that query and control a run, and tests.

mod error;
mod exchange;

use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use axum::body::Bytes;
use hyper::{Method, StatusCode};
use pagefold_api_types::request::{CompactRequest, KnobChanges, SettleRequest, VmChange};
use pagefold_api_types::{ErrorKind, GuestPhys, VmStatus};
use pagefold_dedup::stats::DedupStats;
use pagefold_dedup::{CompactReport, Explanation, Knobs, SettleReport, VmId};
use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::runtime::Builder;

use super::socket;
pub use error::ClientError;

/// How long an answer may take.
const ANSWER_LIMIT: Duration = Duration::from_secs(15);

/// How long a compaction may take: every page that is shared may have to be mapped anew.
const COMPACT_LIMIT: Duration = Duration::from_mins(10);

/// The answer of a settle request whose time was over first.
#[derive(Deserialize)]
struct Unsettled {
    report: SettleReport,
}

/// The answer of a request about one VM. What it has beside the status would be among what the guest has reported.
#[derive(Deserialize)]
struct OneVm {
    #[serde(flatten)]
    status: VmStatus,
    #[serde(default, rename = "unmerging_pages")]
    _unmerging_pages: IgnoredAny,
}

/// Asks a control socket; every request is a connection of its own.
///
/// Every request blocks until it is answered, on a thread of its own, so that an async program of
/// whatever runtime may make it, too; one that has other tasks on the same thread makes it where it
/// may block (tokio's `spawn_blocking`).
#[derive(Debug, Clone)]
pub struct ApiClient {
    path: PathBuf,
}

impl ApiClient {
    /// A client of the socket at `path`; nothing is connected yet.
    ///
    /// # Errors
    ///
    /// [`ClientError::Path`].
    pub fn new(path: &Path) -> Result<Self, ClientError> {
        socket::check_path(path).map_err(ClientError::Path)?;
        Ok(Self { path: path.to_owned() })
    }

    /// The counters of folding.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub fn dedup(&self) -> Result<DedupStats, ClientError> {
        self.get("/v1/dedup")
    }

    /// Sets knobs, all of them or none, and returns what all are then.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub fn set_knobs(&self, changes: &[(String, String)]) -> Result<Knobs, ClientError> {
        self.send(Method::PATCH, "/v1/dedup", &KnobChanges(changes.to_vec()), ANSWER_LIMIT)
    }

    /// Every VM, those that have ended included.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub fn vms(&self) -> Result<Vec<VmStatus>, ClientError> {
        self.get("/v1/vms")
    }

    /// Holds a VM until it is resumed, and returns its status.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub fn pause(&self, vm: VmId) -> Result<VmStatus, ClientError> {
        self.put(vm, "pause")
    }

    /// Resumes a VM, and returns its status.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub fn resume(&self, vm: VmId) -> Result<VmStatus, ClientError> {
        self.put(vm, "resume")
    }

    /// Ends a VM, and returns its status.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub fn stop(&self, vm: VmId) -> Result<VmStatus, ClientError> {
        self.put(vm, "stop")
    }

    /// Waits until everything is folded that is unchanged since the request, for `limit` at most;
    /// the report has whether it is.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub fn settle(&self, limit: Duration) -> Result<SettleReport, ClientError> {
        let timeout_ms = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
        let body = json(&SettleRequest { timeout_ms });
        let limit = limit.saturating_add(ANSWER_LIMIT);
        let (status, bytes) =
            self.request_within(Method::POST, "/v1/dedup/settle", &body, limit)?;
        // The report of what did not settle is in the error.
        let report = if status == StatusCode::GATEWAY_TIMEOUT {
            serde_json::from_slice(&bytes).map(|Unsettled { report }| report)
        } else if status.is_success() {
            serde_json::from_slice(&bytes)
        } else {
            return Err(self.refused(status, &bytes));
        };
        report.map_err(|source| ClientError::Form { path: self.path.clone(), source })
    }

    /// Changes what of a VM is folded, and returns its status.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub fn set_dedup(&self, vm: VmId, change: &VmChange) -> Result<VmStatus, ClientError> {
        let answer = self.send(Method::PATCH, &format!("/v1/vms/{vm}"), change, ANSWER_LIMIT);
        answer.map(|OneVm { status, .. }| status)
    }

    /// The explanation of a page.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub fn explain(&self, vm: VmId, gpa: GuestPhys) -> Result<Explanation, ClientError> {
        self.get(&format!("/v1/dedup/rmap?vm={vm}&gpa={gpa}"))
    }

    /// Compacts the stores: what is worth it, or all.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub fn compact(&self, all: bool) -> Result<CompactReport, ClientError> {
        self.send(Method::POST, "/v1/dedup/compact", &CompactRequest { all }, COMPACT_LIMIT)
    }

    fn put(&self, vm: VmId, verb: &str) -> Result<VmStatus, ClientError> {
        let answer = self.ask(Method::PUT, &format!("/v1/vms/{vm}/{verb}"), &[], ANSWER_LIMIT);
        answer.map(|OneVm { status, .. }| status)
    }

    fn get<T: DeserializeOwned>(&self, target: &str) -> Result<T, ClientError> {
        self.ask(Method::GET, target, &[], ANSWER_LIMIT)
    }

    /// One request with a body, and the answer that grants it.
    fn send<T: DeserializeOwned>(
        &self,
        method: Method,
        target: &str,
        body: &impl Serialize,
        limit: Duration,
    ) -> Result<T, ClientError> {
        self.ask(method, target, &json(body), limit)
    }

    /// One request, and the answer that grants it.
    fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        target: &str,
        body: &[u8],
        limit: Duration,
    ) -> Result<T, ClientError> {
        let (status, bytes) = self.request_within(method, target, body, limit)?;
        if !status.is_success() {
            return Err(self.refused(status, &bytes));
        }
        serde_json::from_slice(&bytes)
            .map_err(|source| ClientError::Form { path: self.path.clone(), source })
    }

    fn refused(&self, status: StatusCode, bytes: &[u8]) -> ClientError {
        let answer: Option<Value> = serde_json::from_slice(bytes).ok();
        let words = |field: &str| Some(answer.as_ref()?.get(field)?.as_str()?.to_owned());
        ClientError::Refused {
            path: self.path.clone(),
            status,
            kind: answer
                .as_ref()
                .and_then(|answer| ErrorKind::deserialize(answer.get("kind")?).ok()),
            // Whatever else answers so is quoted as it is.
            error: words("error").unwrap_or_else(|| String::from_utf8_lossy(bytes).into_owned()),
            hint: words("hint")
                .unwrap_or_else(|| "see the log of the process that runs the VMs".to_owned()),
        }
    }

    /// One request and its answer, whatever its status.
    ///
    /// # Errors
    ///
    /// [`ClientError`], and never [`ClientError::Refused`].
    pub fn request(
        &self,
        method: Method,
        target: &str,
        body: &[u8],
    ) -> Result<(StatusCode, Bytes), ClientError> {
        self.request_within(method, target, body, ANSWER_LIMIT)
    }

    fn request_within(
        &self,
        method: Method,
        target: &str,
        body: &[u8],
        limit: Duration,
    ) -> Result<(StatusCode, Bytes), ClientError> {
        let exchange = || {
            let runtime = Builder::new_current_thread().enable_all().build();
            runtime.map_err(ClientError::Runtime)?.block_on(async {
                let exchange = self.exchange(method, target, body);
                tokio::time::timeout(limit, exchange).await.unwrap_or_else(|_| {
                    Err(ClientError::TimedOut { path: self.path.clone(), limit })
                })
            })
        };
        // A runtime cannot be entered, nor dropped, on a thread that is in one.
        thread::scope(|scope| {
            thread::Builder::new()
                .name("pagefold-client".to_owned())
                .spawn_scoped(scope, exchange)
                .map_err(ClientError::Runtime)?
                .join()
                .unwrap_or_else(|panic| resume_unwind(panic))
        })
    }
}

/// The body of a request.
fn json(request: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(request)
        .unwrap_or_else(|error| unreachable!("requests are of numbers, switches and text: {error}"))
}
