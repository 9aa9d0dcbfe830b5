//! Servers: threads of this process whose sockets live in a pod's namespace.

use super::TICK;
use crate::cluster::{Namespace, Pod, Protocol};
use socket2::SockRef;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// How long a client may stay silent, or not read what it is sent.
const PATIENCE: Duration = Duration::from_secs(180);

/// A running server on a pod's two addresses; dropping it stops it.
#[derive(Debug)]
pub struct Server {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Server {
    /// Serves TCP and UDP, IPv4 and IPv6, on one port number of a pod.
    ///
    /// # Errors
    /// When a socket can't be bound.
    pub fn start(pod: &Pod, port: u16) -> io::Result<Self> {
        Self::serve(pod, port, &[Protocol::Tcp, Protocol::Udp])
    }

    /// Serves one protocol only.
    ///
    /// # Errors
    /// When a socket can't be bound.
    pub fn only(pod: &Pod, protocol: Protocol, port: u16) -> io::Result<Self> {
        Self::serve(pod, port, &[protocol])
    }

    /// Stops serving and closes all connections.
    pub fn stop(self) {}

    fn serve(pod: &Pod, port: u16, protocols: &[Protocol]) -> io::Result<Self> {
        let mut server = Self {
            stop: Arc::new(AtomicBool::new(false)),
            threads: Vec::new(),
        };
        let addresses = pod.addresses().into_iter();
        for address in addresses.filter(|address| pod.families().has(*address)) {
            for protocol in protocols {
                server.listen(pod, *protocol, SocketAddr::new(address, port))?;
            }
        }
        Ok(server)
    }

    fn listen(&mut self, pod: &Pod, protocol: Protocol, address: SocketAddr) -> io::Result<()> {
        let (stop, name) = (Arc::clone(&self.stop), pod.name().to_owned());
        let thread = match protocol {
            Protocol::Tcp => {
                let listener = bind_tcp(pod.namespace(), address)?;
                thread::spawn(move || accept(&listener, &name, &stop))
            }
            Protocol::Udp => {
                let socket = pod.namespace().run(|| UdpSocket::bind(address))??;
                socket.set_read_timeout(Some(TICK))?;
                thread::spawn(move || answer_datagrams(&socket, &name, &stop))
            }
        };
        self.threads.push(thread);
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // A panic in there has been printed; dropping must not add another.
            let _ = thread.join();
        }
    }
}

fn bind_tcp(namespace: &Namespace, address: SocketAddr) -> io::Result<TcpListener> {
    let listener = namespace.run(|| TcpListener::bind(address))??;
    // The time limit of reads holds for accept, too.
    SockRef::from(&listener).set_read_timeout(Some(TICK))?;
    Ok(listener)
}

fn accept(listener: &TcpListener, name: &str, stop: &AtomicBool) {
    thread::scope(|scope| {
        while !stop.load(Ordering::Relaxed) {
            if let Ok((stream, source)) = listener.accept() {
                // A client that goes away early is its own problem, seen on its side.
                scope.spawn(move || converse(stream, name, source, stop).ok());
            }
        }
    });
}

fn converse(
    mut stream: TcpStream,
    name: &str,
    source: SocketAddr,
    stop: &AtomicBool,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(TICK))?;
    stream.set_write_timeout(Some(TICK))?;
    send(&mut stream, greeting(name, source).as_bytes(), stop)?;
    let mut buffer = [0; 64 << 10];
    let mut heard = Instant::now();
    while !stop.load(Ordering::Relaxed) && heard.elapsed() < PATIENCE {
        match stream.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(length) => send(&mut stream, &buffer[..length], stop)?,
            Err(error) if is_timeout(&error) => continue,
            Err(error) => return Err(error),
        }
        heard = Instant::now();
    }
    Ok(())
}

fn send(stream: &mut TcpStream, mut bytes: &[u8], stop: &AtomicBool) -> io::Result<()> {
    let start = Instant::now();
    while !bytes.is_empty() {
        match stream.write(bytes) {
            Ok(length) => bytes = &bytes[length..],
            Err(error) if is_timeout(&error) => {}
            Err(error) => return Err(error),
        }
        if stop.load(Ordering::Relaxed) || start.elapsed() > PATIENCE {
            return Err(ErrorKind::TimedOut.into());
        }
    }
    Ok(())
}

fn answer_datagrams(socket: &UdpSocket, name: &str, stop: &AtomicBool) {
    let mut buffer = [0; 64 << 10];
    while !stop.load(Ordering::Relaxed) {
        // Errors are time-outs, or ICMP answers to what was sent to a client that has gone.
        if let Ok((length, source)) = socket.recv_from(&mut buffer) {
            let answer = [greeting(name, source).as_bytes(), &buffer[..length]].concat();
            let _ = socket.send_to(&answer, source);
        }
    }
}

fn greeting(name: &str, source: SocketAddr) -> String {
    format!("{name} {source}\n")
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
    )
}
