//! A loopback HTTP server whose answers can be spoiled on purpose: for the stand-in services.
//!
//! Each fault names the requests that it hits and how often, so that a test says exactly which answer is lost.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::connect_info::Connected;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::serve::{IncomingStream, Listener};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

/// What happens to an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FaultKind {
    /// The request is not looked at; this status is answered.
    Status(u16),
    /// The request is not looked at; 429 with `Retry-After` in seconds.
    Busy(u32),
    /// The request is not looked at, and nothing is ever answered.
    Hang,
    /// The request is not looked at, and the connection is reset.
    Reset,
    /// The request takes effect, and the connection is reset before the answer.
    LoseReply,
    /// The request takes effect, and nothing is ever answered.
    HangAfter,
    /// The connection is reset, and the request takes effect so many milliseconds later.
    Late(u32),
    /// The request takes effect, and only the first half of the answer's body arrives.
    Truncate,
    /// The request takes effect, and this is answered in place of the answer's body.
    Garble(&'static str),
}

/// Which answers are spoiled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The request's method; any when `None`.
    pub method: Option<&'static str>,
    /// A part of the request's path.
    pub path: String,
    /// How many such requests are left alone first.
    pub skip: u32,
    /// How many are hit after that.
    pub times: u32,
    /// What happens to them.
    pub kind: FaultKind,
}

impl Fault {
    /// Spoils the next answer to such a request.
    #[must_use]
    pub fn once(method: &'static str, path: &str, kind: FaultKind) -> Self {
        Self { method: Some(method), path: path.to_owned(), skip: 0, times: 1, kind }
    }

    /// Spoils this many answers.
    #[must_use]
    pub fn times(self, times: u32) -> Self {
        Self { times, ..self }
    }

    /// Leaves this many alone first.
    #[must_use]
    pub fn after(self, skip: u32) -> Self {
        Self { skip, ..self }
    }
}

/// The faults that are still to come, and the requests that came.
#[derive(Debug, Default)]
pub struct Switchboard {
    faults: Mutex<Vec<Fault>>,
    requests: Mutex<Vec<String>>,
    late: Arc<AtomicUsize>,
    stop: CancellationToken,
}

impl Switchboard {
    /// Adds a fault.
    pub fn add(&self, fault: Fault) {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner).push(fault);
    }

    /// Takes all faults back that are still to come.
    pub fn clear(&self) {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// How many requests are still to take effect, after their connection has gone.
    #[must_use]
    pub fn late(&self) -> usize {
        self.late.load(Ordering::SeqCst)
    }

    /// The requests so far, each as `METHOD PATH?QUERY`.
    #[must_use]
    pub fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn take(&self, method: &str, path: &str) -> Option<FaultKind> {
        let mut faults = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
        for fault in faults.iter_mut() {
            let hit = fault.method.is_none_or(|wanted| wanted == method) && path.contains(&fault.path);
            if !hit || fault.times == 0 {
                continue;
            }
            if fault.skip > 0 {
                fault.skip -= 1;
                continue;
            }
            fault.times -= 1;
            return Some(fault.kind.clone());
        }
        None
    }
}

/// A running server; it ends when this is dropped.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    switchboard: Arc<Switchboard>,
}

impl Server {
    /// Serves on a free port of the loopback address.
    ///
    /// # Errors
    /// When no port can be had.
    pub async fn start(router: Router, switchboard: Arc<Switchboard>) -> io::Result<Self> {
        let listener = TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let app = router.layer(middleware::from_fn_with_state(Arc::clone(&switchboard), spoil));
        let service = app.into_make_service_with_connect_info::<Wire>();
        let stop = switchboard.stop.clone();
        let serving = axum::serve(Cuttable(listener), service);
        tokio::spawn(async move {
            tokio::select! {
                _ = serving => {}
                () = stop.cancelled() => {}
            }
        });
        Ok(Self { address, switchboard })
    }

    /// The base address.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The faults and the requests.
    #[must_use]
    pub fn switchboard(&self) -> &Arc<Switchboard> {
        &self.switchboard
    }

    /// Ends when the server does.
    #[must_use]
    pub fn stopped(&self) -> CancellationToken {
        self.switchboard.stop.clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.switchboard.stop.cancel();
    }
}

async fn spoil(
    State(board): State<Arc<Switchboard>>,
    ConnectInfo(wire): ConnectInfo<Wire>,
    request: Request,
    next: Next,
) -> Response {
    let method = request.method().as_str().to_owned();
    let target = request.uri().path_and_query().map_or("/", |target| target.as_str());
    board.requests.lock().unwrap_or_else(PoisonError::into_inner).push(format!("{method} {target}"));
    let kind = board.take(&method, request.uri().path());
    let Some(kind) = kind else { return next.run(request).await };
    match kind {
        FaultKind::Status(code) => {
            StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR).into_response()
        }
        FaultKind::Busy(seconds) => {
            let wish = [(header::RETRY_AFTER, HeaderValue::from(seconds))];
            (StatusCode::TOO_MANY_REQUESTS, wish).into_response()
        }
        FaultKind::Hang => hang(&board).await,
        FaultKind::Reset => wire.cut(),
        FaultKind::LoseReply => {
            drop(next.run(request).await);
            wire.cut()
        }
        FaultKind::Late(ms) => {
            let (parts, body) = request.into_parts();
            // All of it has arrived before the connection goes.
            let whole = axum::body::to_bytes(body, 1 << 20).await.unwrap_or_default();
            let late = Arc::clone(&board.late);
            late.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(ms.into())).await;
                drop(next.run(Request::from_parts(parts, Body::from(whole))).await);
                late.fetch_sub(1, Ordering::SeqCst);
            });
            wire.cut()
        }
        FaultKind::HangAfter => {
            drop(next.run(request).await);
            hang(&board).await
        }
        FaultKind::Truncate => truncated(next.run(request).await).await,
        FaultKind::Garble(text) => {
            let (mut parts, _) = next.run(request).await.into_parts();
            parts.headers.remove(header::CONTENT_LENGTH);
            Response::from_parts(parts, Body::from(text))
        }
    }
}

async fn hang(board: &Switchboard) -> Response {
    board.stop.cancelled().await;
    StatusCode::SERVICE_UNAVAILABLE.into_response()
}

/// The whole answer is announced; half of it is sent, then the connection ends.
async fn truncated(response: Response) -> Response {
    let (mut parts, body) = response.into_parts();
    let whole = axum::body::to_bytes(body, 1 << 20).await.unwrap_or_default();
    parts.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(whole.len()));
    let half = whole.slice(..whole.len() / 2);
    let pieces = futures_util::stream::unfold(Some(Ok(half)), |next| async move {
        match next {
            Some(Ok(half)) => Some((Ok::<Bytes, io::Error>(half), Some(Err(())))),
            Some(Err(())) => {
                // So that the first half is on its way before the connection goes.
                tokio::time::sleep(Duration::from_millis(5)).await;
                Some((Err(io::Error::from(io::ErrorKind::BrokenPipe)), None))
            }
            None => None,
        }
    });
    Response::from_parts(parts, Body::from_stream(pieces))
}

/// The far end of one connection, which can be cut.
#[derive(Debug, Clone, Default)]
struct Wire(Arc<AtomicBool>);

impl Wire {
    /// From now on every read and write fails, so the server lets go of the connection without an answer.
    fn cut(&self) -> Response {
        self.0.store(true, Ordering::SeqCst);
        StatusCode::SERVICE_UNAVAILABLE.into_response()
    }

    fn check(&self) -> io::Result<()> {
        if self.0.load(Ordering::SeqCst) { Err(io::ErrorKind::ConnectionReset.into()) } else { Ok(()) }
    }
}

struct Cuttable(TcpListener);

struct CuttableStream {
    stream: TcpStream,
    wire: Wire,
}

impl Listener for Cuttable {
    type Io = CuttableStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        let (stream, address) = Listener::accept(&mut self.0).await;
        // Dropping the stream then resets the connection; a plain close is a later, milder fault.
        let _ = stream.set_zero_linger();
        (CuttableStream { stream, wire: Wire::default() }, address)
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.0.local_addr()
    }
}

impl Connected<IncomingStream<'_, Cuttable>> for Wire {
    fn connect_info(stream: IncomingStream<'_, Cuttable>) -> Self {
        stream.io().wire.clone()
    }
}

impl AsyncRead for CuttableStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.wire.check()?;
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for CuttableStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        self.wire.check()?;
        Pin::new(&mut self.stream).poll_write(cx, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.wire.check()?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
