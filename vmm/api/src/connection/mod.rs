//! One connection: what is read from it, answered, and waited for.

mod body;
mod seat;
mod seats;
mod stream;

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;

use axum::Router;
use axum::http::Request;
use axum::response::{IntoResponse, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::UnixStream;
use tokio::sync::watch;

use super::error::ApiError;
use super::limits::Limits;
use super::refusal::WithReasons;
use body::FromClient;
use seat::Seat;
pub(super) use seats::{Seats, Taken};
use stream::Watched;

/// What all connections have in common.
#[derive(Debug, Clone)]
pub(super) struct Service {
    router: Router,
    /// True once the server stops.
    stopping: watch::Receiver<bool>,
    limits: Limits,
}

impl Service {
    pub(super) fn new(router: Router, stopping: watch::Receiver<bool>, limits: Limits) -> Self {
        Self { router, stopping, limits }
    }

    /// Answers the requests of one client until it leaves, has to leave, or the server stops.
    pub(super) async fn serve(self, stream: UnixStream, taken: Taken) {
        let seat = taken.seat();
        let (limits, mut stopping) = (self.limits, self.stopping.clone());
        let served = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(limits.head)
            // A client that has sent all it has to send waits for its answer all the same. One that
            // has gone looks no different: it is found out when it is answered, which every request
            // is.
            .half_close(true)
            .serve_connection(
                TokioIo::new(WithReasons::new(Watched::new(stream, Arc::clone(seat)))),
                service_fn(|request| self.clone().answer(request, Arc::clone(seat))),
            );
        let mut served = pin!(served);
        let mut is_stopping = false;
        loop {
            tokio::select! {
                result = served.as_mut() => {
                    if let Err(error) = result {
                        log::debug!("a connection ended early: {error}");
                    }
                    return;
                }
                () = seat.is_to_be_left(limits.stall) => {
                    log::debug!("a connection is closed: its client has let others wait");
                    return;
                }
                // The sender is there for as long as connections are.
                _ = stopping.wait_for(|stopping| *stopping), if !is_stopping => {
                    is_stopping = true;
                    served.as_mut().graceful_shutdown();
                }
            }
        }
    }

    /// Carries a request out, unless the server stops meanwhile.
    async fn answer(
        mut self,
        request: Request<Incoming>,
        seat: Arc<Seat>,
    ) -> Result<Response, Infallible> {
        let _attended = seat.attend();
        let request = request.map(|body| FromClient::new(body, Arc::clone(&seat)));
        tokio::select! {
            answer = TowerToHyperService::new(self.router).call(request) => answer,
            _ = self.stopping.wait_for(|stopping| *stopping) => Ok(ending().into_response()),
        }
    }
}

fn ending() -> ApiError {
    ApiError::gone(
        "the process is ending",
        "what was asked for may have been carried out, or not; the process's own report says how \
         its VMs ended",
    )
}
