//! The thread that serves the socket.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{UnixListener, UnixStream};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{Semaphore, oneshot};

use super::control::Control;
use super::refusal::WithReasons;
use super::routes;
use super::socket::{self, OwnFile, SocketError};
use crate::sys::signal::block_in_this_thread;

/// Connections served at once; further ones wait in the socket's queue.
const MAX_CONNECTIONS: usize = 64;

/// Threads for requests that block: each connection may have one under way.
const MAX_BLOCKING_THREADS: usize = 16;

/// How long a request's head may take to arrive, and how long a connection may stay idle.
const HEAD_LIMIT: Duration = Duration::from_secs(30);

/// How long to wait before accepting again when the process is short of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Why there is no server; nothing is left behind.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The socket cannot be had.
    #[error("cannot open the control socket")]
    Socket(#[source] SocketError),
    /// The system gave no thread or no event queue.
    #[error("cannot start the control socket's thread")]
    Thread(#[source] io::Error),
}

/// A control socket that is served until this is dropped.
#[derive(Debug)]
pub struct ApiServer {
    path: PathBuf,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
    // Last, so that the file goes when nobody listens any more.
    _file: OwnFile,
}

impl ApiServer {
    /// Makes the socket and serves `control` on a thread of its own.
    ///
    /// A stale socket at `path` is replaced; one that somebody listens on, or any other file, is not.
    /// A link stays, and the socket is where it leads.
    ///
    /// May be called from an async program of whatever runtime: all that is asynchronous happens on
    /// the server's own thread. It blocks until the socket is there, for some seconds at most while
    /// others make one at the same path; so does dropping the server, until its thread has ended.
    ///
    /// # Errors
    ///
    /// [`BindError`]; nothing is left behind, except that a stale socket may be gone.
    pub fn bind(path: &Path, control: Arc<dyn Control>) -> Result<Self, BindError> {
        let (stop, stopped) = oneshot::channel();
        let (bound_sender, bound) = mpsc::sync_channel(1);
        let place = path.to_owned();
        let thread = thread::Builder::new()
            .name("pagefold-api".to_owned())
            .spawn(move || {
                // The threads of blocking calls inherit the mask.
                if let Err(error) = block_in_this_thread() {
                    // Only where a handler of the program around us runs depends on it.
                    log::warn!("cannot block signals in the control socket's thread: {error}");
                }
                match listen(&place) {
                    Ok((runtime, listener, file)) => {
                        let _ = bound_sender.send(Ok(file));
                        run(runtime, listener, routes::router(control), stopped);
                    }
                    Err(error) => {
                        let _ = bound_sender.send(Err(error));
                    }
                }
            })
            .map_err(BindError::Thread)?;
        // Nothing is said by a thread that panics.
        let panicked = || Err(BindError::Thread(io::Error::other("it panicked")));
        let file = bound.recv().unwrap_or_else(|_| panicked())?;
        log::info!("control socket at {}", path.display());
        Ok(Self { path: path.to_owned(), stop: Some(stop), thread: Some(thread), _file: file })
    }

    /// Where the socket is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Stops serving and removes the socket: the same as dropping it.
    ///
    /// Requests under way are cut off; what they asked for may still be carried out.
    pub fn stop(self) {}
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        // Failing to send means that the thread has ended already.
        let _ = self.stop.take().map(|stop| stop.send(()));
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            log::error!("the control socket's thread had panicked");
        }
    }
}

/// What the server's thread needs to serve.
fn listen(path: &Path) -> Result<(Runtime, UnixListener, OwnFile), BindError> {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(MAX_BLOCKING_THREADS)
        .build()
        .map_err(BindError::Thread)?;
    let (listener, file) = runtime.block_on(socket::listen(path)).map_err(BindError::Socket)?;
    Ok((runtime, listener, file))
}

fn run(runtime: Runtime, listener: UnixListener, router: Router, stopped: oneshot::Receiver<()>) {
    runtime.block_on(async move {
        let accepting = tokio::spawn(accept(listener, router));
        // Either way of ending is the server's end: `stop`, or its sender is gone.
        let _ = stopped.await;
        accepting.abort();
    });
    // Not waiting for blocking calls: a settle may take minutes.
    runtime.shutdown_background();
}

async fn accept(listener: UnixListener, router: Router) {
    let connections = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(permit) = Arc::clone(&connections).acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                let router = router.clone();
                tokio::spawn(async move {
                    serve(stream, router).await;
                    drop(permit);
                });
            }
            Err(error) => {
                log::warn!("cannot accept a connection: {error}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn serve(stream: UnixStream, router: Router) {
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_LIMIT)
        // A client that has said all it has to say waits for its answer all the same. One that has
        // gone looks no different: it is found out when it is answered, which every request is.
        .half_close(true)
        .serve_connection(TokioIo::new(WithReasons::new(stream)), TowerToHyperService::new(router))
        .await;
    if let Err(error) = served {
        log::debug!("a connection ended early: {error}");
    }
}
