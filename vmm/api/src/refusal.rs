//! A body for the refusals that hyper sends by itself.
//!
//! What is not HTTP never reaches a route: hyper answers it with a bare head (`400`, `431`, …) and
//! closes. This wrapper of a connection puts a JSON error into such an answer.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A connection whose bare refusals are sent with a body that names what was wrong.
#[derive(Debug)]
pub(super) struct WithReasons<S> {
    stream: S,
    /// What goes out instead of the bytes that are being written, and how much of it is out.
    instead: Option<(Vec<u8>, usize)>,
}

impl<S> WithReasons<S> {
    pub(super) fn new(stream: S) -> Self {
        Self { stream, instead: None }
    }
}

/// The answer to send instead of `head`, if that is a 4xx without a body.
///
/// Every answer of a route has a body, so only hyper's own have a length of zero.
fn with_reason(head: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(head).ok()?;
    let status = text.strip_prefix("HTTP/1.1 4").or_else(|| text.strip_prefix("HTTP/1.0 4"))?;
    let (start, rest) = text.split_once("content-length: 0\r\n")?;
    let error = match status.get(..2)? {
        "31" => "the request's head is too large",
        "14" => "the request's target is too long",
        "08" => "the request's head did not arrive in time",
        _ => "this is not a request that HTTP/1.1 allows",
    };
    let body = format!(
        "{{\"error\":\"{error}\",\"hint\":\"try: curl --unix-socket PATH http://localhost/v1/vms\"}}"
    );
    let fields = format!("content-type: application/json\r\ncontent-length: {}\r\n", body.len());
    Some([start, &fields, rest, &body].concat().into_bytes())
}

impl<S: AsyncWrite + Unpin> AsyncWrite for WithReasons<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.instead.is_none() {
            this.instead = with_reason(bytes).map(|answer| (answer, 0));
        }
        let Some((answer, sent)) = &mut this.instead else {
            return Pin::new(&mut this.stream).poll_write(context, bytes);
        };
        while *sent < answer.len() {
            match ready!(Pin::new(&mut this.stream).poll_write(context, &answer[*sent..]))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => *sent += count,
            }
        }
        this.instead = None;
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for WithReasons<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(context, buffer)
    }
}

#[cfg(test)]
mod tests {
    use super::with_reason;

    #[test]
    fn a_bare_refusal_gets_a_body_of_the_length_it_says() {
        let answer = with_reason(
            b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\r\n",
        )
        .expect("a bare refusal");
        let text = String::from_utf8(answer).expect("text");
        let (head, body) = text.split_once("\r\n\r\n").expect("a head");
        assert!(head.ends_with(&format!("content-length: {}", body.len())), "{head}");
        assert!(body.starts_with("{\"error\":"), "{body}");
    }

    #[test]
    fn other_answers_go_out_as_they_are() {
        assert_eq!(with_reason(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"), None);
        assert_eq!(with_reason(b"HTTP/1.1 404 Not Found\r\ncontent-length: 2\r\n\r\n{}"), None);
        assert_eq!(with_reason(b"\xff\xfe"), None);
    }
}
