//! Bodies that are sent piece by piece.

use axum::body::{Body, Bytes};
use futures_util::StreamExt;
use futures_util::stream::{self, Stream};
use std::io;
use std::time::Duration;
use tokio::sync::mpsc::Receiver;

/// A piece, or the end of the connection in disorder.
pub(super) type Piece = Result<Bytes, io::Error>;

/// The pieces one after the other; with a pause, byte by byte.
pub(super) fn body(pieces: Vec<Bytes>, pause: Option<Duration>) -> Body {
    paced(stream::iter(pieces.into_iter().map(Ok)), pause)
}

/// What comes out of a channel, until its other end has gone.
pub(super) fn channel(receiver: Receiver<Piece>, pause: Option<Duration>) -> Body {
    let pieces = stream::unfold(receiver, |mut receiver| async {
        let piece = receiver.recv().await?;
        Some((piece, receiver))
    });
    paced(pieces, pause)
}

/// These bytes, then the connection breaks.
pub(super) fn cut(bytes: Bytes) -> Body {
    paced(stream::iter([Ok(bytes), Err(broken())]), None)
}

/// The error that makes the connection break.
pub(super) fn broken() -> io::Error {
    io::ErrorKind::ConnectionAborted.into()
}

fn paced(pieces: impl Stream<Item = Piece> + Send + 'static, pause: Option<Duration>) -> Body {
    let pieces = pieces.then(|piece| async {
        if piece.is_err() {
            // What is before has to leave the connection's buffer.
            tokio::task::yield_now().await;
        }
        piece
    });
    let Some(pause) = pause else {
        return Body::from_stream(pieces);
    };
    let bytes = pieces.flat_map(|piece| {
        let bytes: Vec<Piece> = match piece {
            Ok(piece) => (0..piece.len())
                .map(|at| Ok(piece.slice(at..=at)))
                .collect(),
            Err(error) => vec![Err(error)],
        };
        stream::iter(bytes)
    });
    Body::from_stream(bytes.then(move |byte| async move {
        tokio::time::sleep(pause).await;
        byte
    }))
}
