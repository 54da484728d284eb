//! The thread that serves the socket.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use axum::Router;
use log::Level;
use pagefold::block_signals_in_this_thread;
use tokio::net::UnixListener;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{oneshot, watch};
use tokio::task::yield_now;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::connection::{Seats, Service};
use super::control::Control;
use super::limits::Limits;
use super::routes;
use super::socket::{self, OwnFile, SocketError, printable};

/// How long to wait before accepting again when the kernel is short of something else than descriptors.
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
    /// others make one at the same path; so does dropping the server, for a second at most.
    ///
    /// # Errors
    ///
    /// [`BindError`]; nothing is left behind, except that a stale socket may be gone.
    pub fn bind(path: &Path, control: Arc<dyn Control>) -> Result<Self, BindError> {
        Self::bind_with(path, control, Limits::default())
    }

    pub(super) fn bind_with(
        path: &Path,
        control: Arc<dyn Control>,
        limits: Limits,
    ) -> Result<Self, BindError> {
        let (stop, stopped) = oneshot::channel();
        let (bound_sender, bound) = mpsc::sync_channel(1);
        let place = path.to_owned();
        let thread = thread::Builder::new()
            .name("pagefold-api".to_owned())
            .spawn(move || {
                // The requests' threads inherit the mask.
                if let Err(error) = block_signals_in_this_thread() {
                    // Only where a handler of the program around us runs depends on it.
                    log::warn!("cannot block signals in the control socket's thread: {error}");
                }
                match listen(&place) {
                    Ok((runtime, listener, file)) => {
                        let _ = bound_sender.send(Ok(file));
                        run(
                            &runtime,
                            listener,
                            routes::router(control, limits.request),
                            limits,
                            stopped,
                        );
                    }
                    Err(error) => {
                        let _ = bound_sender.send(Err(error));
                    }
                }
            })
            .map_err(BindError::Thread)?;
        // A thread that panics reports nothing.
        let panicked = || Err(BindError::Thread(io::Error::other("it panicked")));
        let file = bound.recv().unwrap_or_else(|_| panicked())?;
        log::info!("control socket at {}", printable(path));
        Ok(Self { path: path.to_owned(), stop: Some(stop), thread: Some(thread), _file: file })
    }

    /// Where the socket is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Stops serving and removes the socket: the same as dropping it.
    ///
    /// Requests under way are answered at once, by a 503; what they asked for may still be carried
    /// out. Clients that do not read that are cut off after a second.
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
    let runtime = Builder::new_current_thread().enable_all().build().map_err(BindError::Thread)?;
    let (listener, file) = runtime.block_on(socket::listen(path)).map_err(BindError::Socket)?;
    Ok((runtime, listener, file))
}

fn run(
    runtime: &Runtime,
    listener: UnixListener,
    router: Router,
    limits: Limits,
    stopped: oneshot::Receiver<()>,
) {
    runtime.block_on(async move {
        let (stopping, is_stopping) = watch::channel(false);
        let seats = Seats::new(limits);
        let all_left = seats.all_free();
        let service = Service::new(router, is_stopping, limits);
        let accepting = tokio::spawn(accept(listener, seats, service));
        // Either way of ending is the server's end: `stop`, or its sender is gone.
        let _ = stopped.await;
        accepting.abort();
        // Failing to send means that nobody is connected.
        let _ = stopping.send(true);
        if timeout(limits.stop, all_left).await.is_err() {
            log::debug!("clients that do not read their last answers are cut off");
        }
    });
}

async fn accept(listener: UnixListener, mut seats: Seats, service: Service) {
    let mut refusals = Refusals::default();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                refusals.since = None;
                let taken = seats.take().await;
                tokio::spawn(service.clone().serve(stream, taken));
            }
            Err(error) => {
                let wanted_since = refusals.add(&error);
                if !is_for_want_of_descriptors(&error) {
                    sleep(ACCEPT_PAUSE).await;
                } else if let Some(look_again) = seats.free_descriptor(wanted_since) {
                    sleep_until(look_again).await;
                } else {
                    // The connection's own task closes it.
                    yield_now().await;
                }
            }
        }
    }
}

fn is_for_want_of_descriptors(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE))
}

/// Connections that the kernel did not hand out.
#[derive(Debug, Default)]
struct Refusals {
    count: u64,
    /// When the first was that no connection has come after.
    since: Option<Instant>,
}

impl Refusals {
    /// Counts and logs another, and returns since when there have been nothing but these.
    fn add(&mut self, error: &io::Error) -> Instant {
        self.count += 1;
        // As often as connections come, which is as often as anybody likes.
        let level = if self.count.is_power_of_two() { Level::Warn } else { Level::Debug };
        log::log!(level, "{} connections could not be accepted so far: {error}", self.count);
        *self.since.get_or_insert_with(Instant::now)
    }
}
