//! Reading a request's body: bounded in size and in time.

use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::StatusCode;
use hyper::body::Body as _;
use pagefold_api_types::request::RequestBody;

use super::error::ApiError;

/// The largest body that is read, in bytes.
pub(crate) const MAX_BODY_BYTES: usize = 64 * 1024;

/// As much as is reported of what is wrong with a body.
const MAX_ERROR_CHARS: usize = 300;

/// How long a body may take to arrive.
const BODY_LIMIT: Duration = Duration::from_secs(10);

/// A body: a JSON object of a `T`, whatever the content type is.
///
/// `curl --data` sends its JSON as a form; to refuse it for that would help nobody.
pub(crate) struct Object<T>(pub(crate) T);

/// The same, where it may be left out.
pub(crate) struct OptionalObject<T>(pub(crate) T);

impl<S: Send + Sync, T: RequestBody> FromRequest<S> for Object<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        parse(&read(request, state).await?).map(Self)
    }
}

impl<S: Send + Sync, T: RequestBody + Default> FromRequest<S> for OptionalObject<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let bytes = read(request, state).await?;
        if bytes.trim_ascii().is_empty() { Ok(Self(T::default())) } else { parse(&bytes).map(Self) }
    }
}

fn parse<T: RequestBody>(bytes: &[u8]) -> Result<T, ApiError> {
    let refused = |error: &dyn std::fmt::Display| {
        let error = format!("the body is not what this request takes: {error}");
        // It quotes names of fields, which can be as long as the body.
        let error: String = error.chars().take(MAX_ERROR_CHARS).collect();
        ApiError::bad_request(error, T::HINT)
    };
    // serde would take an array for a struct, too.
    if !bytes.trim_ascii().starts_with(b"{") {
        return Err(refused(&"it is no JSON object"));
    }
    serde_json::from_slice(bytes).map_err(|error| refused(&error))
}

/// No body.
pub(crate) struct NoBody;

impl<S: Send + Sync> FromRequest<S> for NoBody {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        if read(request, state).await?.is_empty() {
            Ok(Self)
        } else {
            Err(ApiError::bad_request("this request takes no body", "send it without one"))
        }
    }
}

async fn read<S: Send + Sync>(request: Request, state: &S) -> Result<Bytes, ApiError> {
    let hint = format!("a body has at most {MAX_BODY_BYTES} bytes");
    // A length that is announced is refused before anything of it has arrived.
    if request.body().size_hint().lower() > MAX_BODY_BYTES as u64 {
        return Err(ApiError::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "the body is longer than is taken",
            hint,
        ));
    }
    match tokio::time::timeout(BODY_LIMIT, Bytes::from_request(request, state)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(rejection)) => {
            let error = format!("the body could not be read: {}", rejection.body_text());
            Err(ApiError::new(rejection.status(), error, hint))
        }
        Err(_) => Err(ApiError::new(
            StatusCode::REQUEST_TIMEOUT,
            format!("the body did not arrive within {} s", BODY_LIMIT.as_secs()),
            "send as many bytes as Content-Length says",
        )),
    }
}
