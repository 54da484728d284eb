//! One request over one connection.

use std::error::Error;
use std::io;
use std::time::Duration;

use axum::body::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;

use super::{ApiClient, ClientError};

/// How often it is tried to connect while the socket's queue is full.
const RETRY_INTERVAL: Duration = Duration::from_millis(10);

/// The largest answer that is read: tens of thousands of VMs.
const MAX_ANSWER_BYTES: usize = 64 * 1024 * 1024;

impl ApiClient {
    /// Connects, sends a request and reads the answer.
    pub(super) async fn exchange(
        &self,
        method: Method,
        target: &str,
        body: &[u8],
    ) -> Result<(StatusCode, Bytes), ClientError> {
        let stream = self.connect().await?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| self.broken(error))?;
        let driver = tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(target)
            .header(hyper::header::HOST, "localhost")
            .body(Full::new(Bytes::copy_from_slice(body)))
            .map_err(|error| self.http(error))?;
        let answer = sender.send_request(request).await.map_err(|error| self.broken(error))?;
        let status = answer.status();
        let bytes = Limited::new(answer.into_body(), MAX_ANSWER_BYTES)
            .collect()
            .await
            .map_err(|error| match error.downcast() {
                Ok(error) => self.broken(*error),
                Err(error) => self.http(error),
            })?
            .to_bytes();
        driver.abort();
        Ok((status, bytes))
    }

    /// A connection, as soon as there is room in the socket's queue.
    async fn connect(&self) -> Result<UnixStream, ClientError> {
        loop {
            match UnixStream::connect(&self.path).await {
                Ok(stream) => return Ok(stream),
                // Many have connected at the same time. The kernel lets nobody wait who does not
                // block.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    tokio::time::sleep(RETRY_INTERVAL).await;
                }
                Err(source) => {
                    return Err(ClientError::Connect { path: self.path.clone(), source });
                }
            }
        }
    }

    fn broken(&self, source: hyper::Error) -> ClientError {
        if is_closed(&source) {
            ClientError::Closed { path: self.path.clone(), source }
        } else {
            self.http(source)
        }
    }

    fn http(&self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> ClientError {
        ClientError::Http { path: self.path.clone(), source: source.into() }
    }
}

/// Whether it is the connection that has ended, and not what came over it that is wrong.
fn is_closed(error: &hyper::Error) -> bool {
    let of_cause = |cause: &(dyn Error + 'static)| {
        cause.is::<io::Error>() || cause.downcast_ref().is_some_and(is_closed)
    };
    error.is_incomplete_message() || error.is_closed() || error.source().is_some_and(of_cause)
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixListener;
    use std::pin::pin;
    use std::task::Poll;
    use std::thread;

    use tempfile::TempDir;
    use tokio::net::UnixSocket;
    use tokio::runtime::Builder;

    use super::*;

    fn place() -> (TempDir, ApiClient) {
        let directory = TempDir::new().expect("a directory");
        let client = ApiClient::new(&directory.path().join("api")).expect("a client");
        (directory, client)
    }

    #[test]
    fn a_full_queue_is_waited_for() {
        let (_directory, client) = place();
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let socket = UnixSocket::new_stream().expect("a socket");
            socket.bind(&client.path).expect("bound");
            let listener = socket.listen(1).expect("a listener");
            let mut queue = Vec::new();
            while let Ok(stream) = UnixStream::connect(&client.path).await {
                queue.push(stream);
            }
            let mut connecting = pin!(client.connect());
            let tried = poll_fn(|context| Poll::Ready(connecting.as_mut().poll(context))).await;
            assert!(tried.is_pending(), "{tried:?}");
            let _first = listener.accept().await.expect("the first");
            connecting.await.expect("connected");
        });
    }

    #[test]
    fn a_connection_that_is_closed_and_an_answer_that_is_no_http_are_told_apart() {
        let (_directory, client) = place();
        let listener = UnixListener::bind(&client.path).expect("a listener");
        let answers = [&b""[..], b"220 mail.example.org\r\n"];
        let server = thread::spawn(move || {
            for answer in answers {
                let (mut stream, _) = listener.accept().expect("a client");
                // Its request comes before the answer.
                stream.read_exact(&mut [0; 4]).expect("a request");
                stream.write_all(answer).expect("sent");
                // All of the request is taken, so that closing is no reset.
                stream.shutdown(std::net::Shutdown::Write).expect("half closed");
                let _ = io::copy(&mut stream, &mut io::sink());
            }
        });
        let closed = client.dedup();
        assert!(matches!(closed, Err(ClientError::Closed { .. })), "{closed:?}");
        let no_http = client.dedup();
        assert!(matches!(no_http, Err(ClientError::Http { .. })), "{no_http:?}");
        server.join().expect("no panic");
    }
}
