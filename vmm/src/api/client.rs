//! The other end of the socket, for `pagefold stats` and tests.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::body::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use pagefold_dedup::stats::DedupStats;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio::runtime::{Builder, Runtime};

/// How long an answer may take.
const ANSWER_LIMIT: Duration = Duration::from_secs(15);

/// The largest answer that is read: tens of thousands of VMs.
const MAX_ANSWER_BYTES: usize = 64 * 1024 * 1024;

/// Asks a control socket; every request is a connection of its own.
#[derive(Debug)]
pub struct ApiClient {
    path: PathBuf,
    runtime: Runtime,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The system gave no event queue.
    #[error("cannot start a client")]
    Runtime(#[source] io::Error),
    /// Nobody listens, or not for this user.
    #[error("cannot connect to {path}")]
    Connect {
        /// The socket.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The connection ended or was not HTTP.
    #[error("{path} did not answer as a control socket does")]
    Http {
        /// The socket.
        path: PathBuf,
        /// What happened.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// No answer in time.
    #[error("{path} did not answer within {} s", ANSWER_LIMIT.as_secs())]
    TimedOut {
        /// The socket.
        path: PathBuf,
    },
    /// An answer that says no.
    #[error("{path} answered {status}: {answer}")]
    Refused {
        /// The socket.
        path: PathBuf,
        /// The status.
        status: StatusCode,
        /// The body.
        answer: String,
    },
    /// An answer that is not understood: perhaps of another version.
    #[error("the answer of {path} is of another form than expected")]
    Form {
        /// The socket.
        path: PathBuf,
        /// Where it differs.
        source: serde_json::Error,
    },
}

impl ApiClient {
    /// A client of the socket at `path`; nothing is connected yet.
    ///
    /// # Errors
    ///
    /// [`ClientError::Runtime`].
    pub fn new(path: &Path) -> Result<Self, ClientError> {
        let runtime =
            Builder::new_current_thread().enable_all().build().map_err(ClientError::Runtime)?;
        Ok(Self { path: path.to_owned(), runtime })
    }

    /// The counters of folding.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub fn dedup(&self) -> Result<DedupStats, ClientError> {
        self.get("/v1/dedup")
    }

    fn get<T: DeserializeOwned>(&self, target: &str) -> Result<T, ClientError> {
        let (status, bytes) = self.request(Method::GET, target, &[])?;
        if !status.is_success() {
            return Err(ClientError::Refused {
                path: self.path.clone(),
                status,
                answer: String::from_utf8_lossy(&bytes).into_owned(),
            });
        }
        serde_json::from_slice(&bytes)
            .map_err(|source| ClientError::Form { path: self.path.clone(), source })
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
        self.runtime.block_on(async {
            tokio::time::timeout(ANSWER_LIMIT, self.exchange(method, target, body))
                .await
                .unwrap_or_else(|_| Err(ClientError::TimedOut { path: self.path.clone() }))
        })
    }

    async fn exchange(
        &self,
        method: Method,
        target: &str,
        body: &[u8],
    ) -> Result<(StatusCode, Bytes), ClientError> {
        let stream = UnixStream::connect(&self.path)
            .await
            .map_err(|source| ClientError::Connect { path: self.path.clone(), source })?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| self.http(error))?;
        let driver = tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(target)
            .header(hyper::header::HOST, "localhost")
            .body(Full::new(Bytes::copy_from_slice(body)))
            .map_err(|error| self.http(error))?;
        let answer = sender.send_request(request).await.map_err(|error| self.http(error))?;
        let status = answer.status();
        let bytes = Limited::new(answer.into_body(), MAX_ANSWER_BYTES)
            .collect()
            .await
            .map_err(|error| self.http(error))?
            .to_bytes();
        driver.abort();
        Ok((status, bytes))
    }

    fn http(&self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> ClientError {
        ClientError::Http { path: self.path.clone(), source: source.into() }
    }
}
