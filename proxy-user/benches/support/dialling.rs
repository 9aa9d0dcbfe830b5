//! An application that dials, and the server that answers.

use crate::hooked::frontend;
use crate::stats::Samples;
use anyhow::{Context as _, Result};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};
use xtask::cluster::Namespace;

/// Where the server listens.
pub(crate) const PORT: u16 = 8080;
/// How many of each a round has.
const CONNECTS: u32 = 2_000;
const QUESTIONS: u32 = 2_000;
const SHORT: u32 = 300;
const STREAM: usize = 64 << 20;
const CHUNK: usize = 128 << 10;
const PATIENCE: Duration = Duration::from_secs(10);

/// What the first byte of a connection asks for.
const ECHO: u8 = b'e';
const ONCE: u8 = b'o';
const SINK: u8 = b's';

/// Who dials what.
pub(crate) struct Way {
    namespace: Namespace,
    /// The backend itself; `None`: frontends of so many services, in turn.
    direct: Option<Ipv4Addr>,
    services: u32,
    /// How far the next service is from the one before.
    stride: u32,
}

/// What a round has found.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Measured {
    datagram_connect: f64,
    stream_connect: f64,
    questions: f64,
    datagrams: f64,
    short: f64,
    stream: f64,
}

type Figure = (&'static str, fn(&Measured) -> f64);

impl Measured {
    /// Nanoseconds, at the median.
    pub(crate) const TIMES: [Figure; 2] = [
        ("connect, UDP, ns", |it| it.datagram_connect),
        ("connect, TCP, ns", |it| it.stream_connect),
    ];
    /// More is better.
    pub(crate) const RATES: [Figure; 4] = [
        ("request-response, 1/s", |it| it.questions),
        ("unconnected UDP, 1/s", |it| it.datagrams),
        ("short connections, 1/s", |it| it.short),
        ("stream, MB/s", |it| it.stream),
    ];
}

impl Way {
    pub(crate) fn direct(namespace: Namespace, server: Ipv4Addr) -> Self {
        Self {
            namespace,
            direct: Some(server),
            services: 0,
            stride: 0,
        }
    }

    /// One of so many services, always the same.
    pub(crate) fn through_one(namespace: Namespace, services: u32) -> Self {
        Self {
            namespace,
            direct: None,
            services,
            stride: 0,
        }
    }

    /// All of so many services, each far from the one before.
    pub(crate) fn through_all(namespace: Namespace, services: u32) -> Self {
        Self {
            stride: 7919,
            ..Self::through_one(namespace, services)
        }
    }

    pub(crate) fn measure(&self) -> Result<Measured> {
        let measured = self.namespace.run(|| self.measure_here())?;
        measured.context("dialling")
    }

    fn measure_here(&self) -> io::Result<Measured> {
        Ok(Measured {
            datagram_connect: self.datagram_connect()?,
            stream_connect: self.stream_connect()?,
            questions: self.questions()?,
            datagrams: self.datagrams()?,
            short: self.short()?,
            stream: self.stream()?,
        })
    }

    fn target(&self, number: u32) -> SocketAddrV4 {
        match self.direct {
            Some(server) => SocketAddrV4::new(server, PORT),
            None => frontend(1 + number.wrapping_mul(self.stride) % self.services),
        }
    }

    /// Only the call: there are no packets.
    fn datagram_connect(&self) -> io::Result<f64> {
        let mut times = Samples::default();
        for number in 0..CONNECTS {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
            let target = self.target(number);
            let start = Instant::now();
            socket.connect(target)?;
            times.0.push(start.elapsed().as_nanos() as f64);
        }
        Ok(times.quantile(0.5))
    }

    /// With the handshake.
    fn stream_connect(&self) -> io::Result<f64> {
        let mut times = Samples::default();
        for number in 0..SHORT {
            let target = self.target(number);
            let start = Instant::now();
            let stream = TcpStream::connect(target)?;
            times.0.push(start.elapsed().as_nanos() as f64);
            finish(stream)?;
        }
        Ok(times.quantile(0.5))
    }

    fn questions(&self) -> io::Result<f64> {
        let mut stream = self.open(0, ECHO)?;
        let mut ask = |_| {
            stream.write_all(&[0])?;
            stream.read_exact(&mut [0])
        };
        rate(QUESTIONS, &mut ask)
    }

    /// Of a socket that is not connected: each datagram names where it goes.
    fn datagrams(&self) -> io::Result<f64> {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.set_read_timeout(Some(PATIENCE))?;
        // A socket remembers some services, not thousands.
        let target = self.target(0);
        let mut ask = |_| {
            socket.send_to(&[0], target)?;
            socket.recv_from(&mut [0]).map(drop)
        };
        rate(QUESTIONS, &mut ask)
    }

    fn short(&self) -> io::Result<f64> {
        rate(SHORT, &mut |number| {
            finish(TcpStream::connect(self.target(number))?)
        })
    }

    fn stream(&self) -> io::Result<f64> {
        let mut stream = self.open(1, SINK)?;
        let chunk = vec![0; CHUNK];
        let start = Instant::now();
        for _ in 0..STREAM / CHUNK {
            stream.write_all(&chunk)?;
        }
        stream.shutdown(std::net::Shutdown::Write)?;
        stream.read_exact(&mut [0])?;
        Ok(STREAM as f64 / 1e6 / start.elapsed().as_secs_f64())
    }

    fn open(&self, number: u32, what: u8) -> io::Result<TcpStream> {
        let mut stream = TcpStream::connect(self.target(number))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(&[what])?;
        Ok(stream)
    }
}

/// One question, and the end of the connection.
fn finish(mut stream: TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(&[ONCE])?;
    stream.read_exact(&mut [0])
}

/// How many of these would be done in a second if each took as long as the one at the median: the mean would tell
/// of whoever else has used the CPU.
fn rate(count: u32, work: &mut dyn FnMut(u32) -> io::Result<()>) -> io::Result<f64> {
    let mut times = Samples::default();
    for number in 0..count {
        let start = Instant::now();
        work(number)?;
        times.0.push(start.elapsed().as_secs_f64());
    }
    Ok(1.0 / times.quantile(0.5))
}

/// Answers in a namespace, as long as the process lives.
pub(crate) fn serve(namespace: &Namespace) -> Result<()> {
    let at = (Ipv4Addr::UNSPECIFIED, PORT);
    let (listener, socket) =
        namespace.run(|| Ok::<_, io::Error>((TcpListener::bind(at)?, UdpSocket::bind(at)?)))??;
    thread::spawn(move || {
        stay_on_first_cpu();
        while let Ok((length, client)) = socket.recv_from(&mut [0]) {
            let _ = socket.send_to(&[0][..length], client);
        }
    });
    thread::spawn(move || {
        stay_on_first_cpu();
        for stream in listener.incoming().flatten() {
            // A client that goes away has had its answer.
            let _ = answer(stream);
        }
    });
    Ok(())
}

/// The client is on the last.
fn stay_on_first_cpu() {
    let mut first = CpuSet::new();
    let _ = first.set(0);
    let _ = sched_setaffinity(Pid::from_raw(0), &first);
}

fn answer(mut stream: TcpStream) -> io::Result<()> {
    let mut what = [0];
    stream.set_nodelay(true)?;
    stream.read_exact(&mut what)?;
    match what[0] {
        ONCE => stream.write_all(&what),
        SINK => {
            let mut chunk = vec![0; CHUNK];
            while stream.read(&mut chunk)? > 0 {}
            stream.write_all(&what)
        }
        _ => loop {
            stream.read_exact(&mut what)?;
            stream.write_all(&what)?;
        },
    }
}
