//! The load of all contestants: one client, which waits for each answer and looks whether the right backend has
//! given it. Client, server and all nodes share one CPU, so that time is CPU time.

use crate::clock::{Moment, Spent};
use crate::server::{ECHO, ONCE, SINK};
use crate::services::{FIRST_PORT, Services};
use socket2::SockRef;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

/// What does not come in this time does not come.
const PATIENCE: Duration = Duration::from_secs(5);
/// Open connections, and datagram sockets that are asked in turn.
const OPEN: usize = 64;
const CHUNK: usize = 256 << 10;

/// Something to do.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
pub(crate) enum Kind {
    /// A byte there and back on an open connection.
    Request,
    /// Connect, a byte there and back, close with RST.
    Short,
    /// Bytes in one direction.
    Stream,
    /// A datagram there and back.
    Datagram,
    /// The same, each time by a new socket.
    FirstDatagram,
}

impl Kind {
    pub(crate) const ALL: [Self; 5] = [
        Self::Request,
        Self::Short,
        Self::Stream,
        Self::Datagram,
        Self::FirstDatagram,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Request => "request-response",
            Self::Short => "short connections",
            Self::Stream => "stream",
            Self::Datagram => "UDP round trips",
            Self::FirstDatagram => "UDP first packets",
        }
    }

    pub(crate) fn unit(self) -> &'static str {
        match self {
            Self::Stream => "MB/s",
            Self::Request | Self::Short | Self::Datagram | Self::FirstDatagram => "1/s",
        }
    }
}

/// What is dialled.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    address: SocketAddrV4,
    /// What the right backend says.
    answer: u8,
}

/// All that is dialled, in the order of turns.
#[derive(Clone, Debug)]
pub(crate) struct Targets(Vec<Target>);

/// What was measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    /// In the unit of its kind.
    pub(crate) rate: f64,
    /// Microseconds of CPU time: of one, or of a megabyte.
    pub(crate) cpu: f64,
    pub(crate) spent: Spent,
    /// Microseconds until the first answer, at the median and for 99 of 100: of a connection until it is open.
    pub(crate) times: Option<[f64; 2]>,
}

impl Targets {
    /// The Services at their own addresses or, `directly`, their endpoints.
    pub(crate) fn new(services: Services, directly: bool) -> Self {
        let target = |number: u32| {
            let port = Services::target(number);
            Target {
                address: match directly {
                    true => SocketAddrV4::new(services.server, port),
                    false => SocketAddrV4::new(Services::address(number), crate::services::PORT),
                },
                answer: (port - FIRST_PORT) as u8,
            }
        };
        Self(services.dialled().into_iter().map(target).collect())
    }

    fn turn(&self, number: usize) -> &Target {
        &self.0[number % self.0.len()]
    }

    /// Does so many of a kind.
    pub(crate) fn measure(&self, kind: Kind, count: usize) -> io::Result<Sample> {
        match kind {
            Kind::Request => self.requests(count),
            Kind::Short => self.repeat(count, |number| self.short(number)),
            Kind::Stream => self.stream(count),
            Kind::Datagram => self.datagrams(count),
            Kind::FirstDatagram => self.repeat(count, |number| {
                ask(&self.socket(number)?, self.turn(number))?;
                Ok(Instant::now())
            }),
        }
    }

    /// As many a second as the whole has taken; the first are not counted. The work says when it was answered.
    fn repeat(
        &self,
        count: usize,
        mut work: impl FnMut(usize) -> io::Result<Instant>,
    ) -> io::Result<Sample> {
        let warm = count / 10;
        (0..warm).try_for_each(|number| work(number).map(|_| ()))?;
        let mut times = Vec::with_capacity(count);
        let moment = Moment::now()?;
        let start = Instant::now();
        let mut last = start;
        for number in warm..warm + count {
            let answered = work(number)?;
            times.push((answered - last).as_secs_f64() * 1e6);
            last = Instant::now();
        }
        let whole = (last - start).as_secs_f64();
        let spent = moment.spent()?;
        times.sort_by(f64::total_cmp);
        let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
        Ok(Sample {
            rate: count as f64 / whole,
            cpu: spent.used * 1e6 / count as f64,
            spent,
            times: Some([at(0.5), at(0.99)]),
        })
    }

    fn requests(&self, count: usize) -> io::Result<Sample> {
        let open = (0..OPEN).map(|number| self.open(number, ECHO));
        let mut open = open.collect::<io::Result<Vec<TcpStream>>>()?;
        let sample = self.repeat(count, |number| {
            let index = number % OPEN;
            let stream = &mut open[index];
            stream.write_all(&[0])?;
            expect(stream, self.turn(index))?;
            Ok(Instant::now())
        });
        open.iter().try_for_each(reset)?;
        sample
    }

    fn short(&self, number: usize) -> io::Result<Instant> {
        let mut stream = self.connect(number)?;
        let answered = Instant::now();
        stream.write_all(&[ONCE])?;
        expect(&mut stream, self.turn(number))?;
        reset(&stream)?;
        Ok(answered)
    }

    /// So many chunks.
    fn stream(&self, count: usize) -> io::Result<Sample> {
        let mut stream = self.open(0, SINK)?;
        let chunk = vec![0; CHUNK];
        let moment = Moment::now()?;
        let start = Instant::now();
        for _ in 0..count {
            stream.write_all(&chunk)?;
        }
        stream.shutdown(std::net::Shutdown::Write)?;
        expect(&mut stream, self.turn(0))?;
        let megabytes = (count * CHUNK) as f64 / 1e6;
        let rate = megabytes / start.elapsed().as_secs_f64();
        let spent = moment.spent()?;
        Ok(Sample {
            rate,
            cpu: spent.used * 1e6 / megabytes,
            spent,
            times: None,
        })
    }

    fn datagrams(&self, count: usize) -> io::Result<Sample> {
        let sockets = (0..OPEN).map(|number| self.socket(number));
        let sockets = sockets.collect::<io::Result<Vec<UdpSocket>>>()?;
        self.repeat(count, |number| {
            ask(&sockets[number % OPEN], self.turn(number % OPEN))?;
            Ok(Instant::now())
        })
    }

    fn open(&self, number: usize, what: u8) -> io::Result<TcpStream> {
        let mut stream = self.connect(number)?;
        stream.write_all(&[what])?;
        Ok(stream)
    }

    fn connect(&self, number: usize) -> io::Result<TcpStream> {
        let address = self.turn(number).address.into();
        let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(stream)
    }

    fn socket(&self, number: usize) -> io::Result<UdpSocket> {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.connect(self.turn(number).address)?;
        Ok(socket)
    }
}

fn ask(socket: &UdpSocket, target: &Target) -> io::Result<()> {
    let mut answer = [0];
    socket.send(&[0])?;
    socket.recv(&mut answer)?;
    check(answer[0], target)
}

fn expect(stream: &mut TcpStream, target: &Target) -> io::Result<()> {
    let mut answer = [0];
    stream.read_exact(&mut answer)?;
    check(answer[0], target)
}

fn check(answer: u8, target: &Target) -> io::Result<()> {
    match answer == target.answer {
        true => Ok(()),
        false => Err(io::Error::new(
            ErrorKind::InvalidData,
            format!("{} was answered by another's backend", target.address),
        )),
    }
}

/// Ends a connection without TIME_WAIT.
fn reset(stream: &TcpStream) -> io::Result<()> {
    SockRef::from(stream).set_linger(Some(Duration::ZERO))
}
