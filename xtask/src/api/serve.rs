//! Connections: accepted, encrypted, answered, and refused during an outage.

use super::dispatch;
use super::shared::Shared;
use anyhow::{Context, Result};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use socket2::{SockRef, Socket};
use std::io;
use std::net::{Shutdown, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

/// Connections that wait to be accepted.
const BACKLOG: i32 = 128;

/// Serves until it is told to stop.
pub(super) async fn serve(
    shared: Arc<Shared>,
    listener: std::net::TcpListener,
    tls: Option<TlsAcceptor>,
) -> Result<()> {
    let mut stop = shared.stop.subscribe();
    let mut outage = shared.outage.subscribe();
    let address = listener.local_addr()?;
    tokio::select! {
        _ = stop.wait_for(|stop| *stop) => Ok(()),
        result = async {
            loop {
                tokio::select! {
                    result = accept(&shared, &listener, tls.as_ref()) => result?,
                    _ = outage.wait_for(|is_out| *is_out) => {}
                }
                // A socket that is shut down refuses, and keeps its place to listen again.
                SockRef::from(&listener).shutdown(Shutdown::Both)?;
                let _ = outage.wait_for(|is_out| !*is_out).await;
                listen(&listener, address)?;
            }
        } => result,
    }
}

fn listen(listener: &std::net::TcpListener, address: SocketAddr) -> Result<()> {
    let socket = SockRef::from(listener);
    // A port that the kernel chose was given back with the shutdown; one that was asked for was not.
    if let Err(error) = socket.bind(&address.into())
        && error.kind() != io::ErrorKind::InvalidInput
    {
        return Err(error).context("can't have the port back");
    }
    socket.listen(BACKLOG).context("can't listen again")
}

/// Accepts connections; those that it accepted end with it.
async fn accept(
    shared: &Arc<Shared>,
    listener: &std::net::TcpListener,
    tls: Option<&TlsAcceptor>,
) -> Result<()> {
    let listener = listener.try_clone()?;
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(converse(Arc::clone(shared), stream, tls.cloned()));
                }
                // A client that went away early, or no file descriptors for the moment.
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Resets a connection that does not end in order. Declared first, it lets go last.
struct Abort(Option<Socket>);

impl Drop for Abort {
    fn drop(&mut self) {
        if let Some(socket) = &self.0 {
            let _ = socket.set_linger(Some(Duration::ZERO));
        }
    }
}

/// One connection. What goes wrong with it is seen on the other side.
async fn converse(shared: Arc<Shared>, stream: TcpStream, tls: Option<TlsAcceptor>) {
    let mut abort = Abort(SockRef::from(&stream).try_clone().ok());
    // Events are small and must not wait for each other.
    let _ = stream.set_nodelay(true);
    let outcome = match tls {
        None => answer(shared, stream).await,
        Some(tls) => match tls.accept(stream).await {
            Ok(stream) => answer(shared, stream).await,
            // The alert that says why is on its way.
            Err(_) => Ok(()),
        },
    };
    if outcome.is_ok() {
        abort.0 = None;
    }
}

async fn answer(
    shared: Arc<Shared>,
    stream: impl AsyncRead + AsyncWrite + Unpin,
) -> hyper::Result<()> {
    let service = service_fn(move |request| dispatch::respond(Arc::clone(&shared), request));
    let stream = TokioIo::new(stream);
    http1::Builder::new()
        .serve_connection(stream, service)
        .await
}
