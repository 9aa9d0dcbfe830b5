//! The server of all contestants: it listens on all ports and says on which one it was asked.

use crate::services::{FIRST_PORT, PORTS};
use anyhow::Result;
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::thread;
use xtask::cluster::Namespace;

/// What the first byte of a connection asks for: one answer.
pub(crate) const ONCE: u8 = b'o';
/// An answer for each byte.
pub(crate) const ECHO: u8 = b'e';
/// One answer when all has come.
pub(crate) const SINK: u8 = b's';
const CHUNK: usize = 256 << 10;

/// Serves in a namespace, as long as the process lives.
pub(crate) fn serve(namespace: &Namespace) -> Result<()> {
    for index in 0..PORTS {
        let at = (Ipv4Addr::UNSPECIFIED, FIRST_PORT + index);
        let answer = index as u8;
        let bind = || Ok::<_, io::Error>((TcpListener::bind(at)?, UdpSocket::bind(at)?));
        let (listener, socket) = namespace.run(bind)??;
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                accept(stream, answer);
            }
        });
        thread::spawn(move || {
            let mut question = [0; 1];
            while let Ok((_, client)) = socket.recv_from(&mut question) {
                // A client that is gone needs no answer.
                let _ = socket.send_to(&[answer], client);
            }
        });
    }
    Ok(())
}

/// Short connections are served in turn: their client waits. Others have threads of their own.
fn accept(mut stream: TcpStream, answer: u8) {
    let mut what = [0];
    if stream.set_nodelay(true).is_err() || stream.read_exact(&mut what).is_err() {
        return;
    }
    if what[0] == ONCE {
        // The client ends it.
        let _ = stream.write_all(&[answer]);
        let _ = stream.read(&mut what);
        return;
    }
    thread::spawn(move || go_on(stream, what[0], answer));
}

fn go_on(mut stream: TcpStream, what: u8, answer: u8) -> io::Result<()> {
    if what == SINK {
        let mut chunk = vec![0; CHUNK];
        while stream.read(&mut chunk)? > 0 {}
        return stream.write_all(&[answer]);
    }
    let mut byte = [0];
    loop {
        stream.read_exact(&mut byte)?;
        stream.write_all(&[answer])?;
    }
}
