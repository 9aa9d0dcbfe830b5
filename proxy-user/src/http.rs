//! HTTP for probes and Prometheus: short questions, short answers, and clients that nobody can rely on.

use anyhow::{Context as _, Result};
use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use socket2::{Domain, Socket, Type};
use std::collections::VecDeque;
use std::io;
use std::net::{Ipv6Addr, SocketAddr};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{sleep, timeout};
use tracing::{debug, info, warn};

/// Between two tries to get the port.
const RETRY: Duration = Duration::from_secs(5);
/// A client sends its request within this time, or is left.
const HEADERS: Duration = Duration::from_secs(5);
/// It has read its answer within this time.
const CONNECTION: Duration = Duration::from_secs(10);
/// So many at once. One more, and the oldest goes: of those that get their answer none is ever old.
const CONNECTIONS: usize = 128;
/// Connections that wait to be accepted.
const BACKLOG: i32 = 1024;
/// Bytes of a request's line and headers.
const LONGEST_REQUEST: usize = 16 * 1024;
/// After the kernel had no connection to give, for lack of files or memory.
const PAUSE: Duration = Duration::from_millis(100);

/// Where something is served, and what becomes of it if that is not to be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// What is served, for the log.
    pub what: &'static str,
    /// Address and port.
    pub address: SocketAddr,
    /// Whose port it is by default, if somebody else could have it.
    pub usual_owner: Option<&'static str>,
    /// Whether the agent ends if it does not get the port, instead of trying again.
    pub is_required: bool,
}

/// Serves for ever. A port that somebody else has is waited for, and `unbound` says so meanwhile.
///
/// # Errors
/// The port can't be had, and is required.
pub async fn serve(place: Place, router: Router, unbound: impl Fn(Option<String>)) -> Result<()> {
    let listener = bind(&place, &unbound).await?;
    unbound(None);
    answer_all(&listener, router, CONNECTIONS).await
}

/// Answers whoever comes, so many at once; for ever.
pub async fn answer_all(listener: &TcpListener, router: Router, connections: usize) -> ! {
    let mut clients = Clients::of(connections);
    loop {
        match listener.accept().await {
            Ok((client, _)) => clients.answer(client, router.clone()),
            Err(error) => {
                debug!("a connection is not to be had: {error}");
                sleep(PAUSE).await;
            }
        }
    }
}

async fn bind(place: &Place, unbound: &impl Fn(Option<String>)) -> Result<TcpListener> {
    let Place { what, address, .. } = place;
    let mut told = None;
    loop {
        match listen(*address) {
            Ok(listener) => {
                info!("{what} on http://{address}");
                return Ok(listener);
            }
            Err(error) if place.is_required => {
                return Err(error).with_context(|| complaint(place));
            }
            Err(error) if told == Some(error.kind()) => {}
            Err(error) => {
                told = Some(error.kind());
                let complaint = complaint_of(place, &error);
                let complaint = format!("{complaint}; tried again every {} s", RETRY.as_secs());
                warn!("{complaint}");
                unbound(Some(complaint));
            }
        }
        sleep(RETRY).await;
    }
}

/// Both families answer at an address that stands for all of the node's, as at kube-proxy's and everything else
/// in Go; IPv4 alone where there is no IPv6.
fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    if !address.ip().is_unspecified() {
        return listen_in_family(address);
    }
    match open(
        (Ipv6Addr::UNSPECIFIED, address.port()).into(),
        Families::Both,
    ) {
        Err(error) if address.is_ipv4() && lacks_ipv6(&error) => listen_in_family(address),
        outcome => outcome,
    }
}

fn lacks_ipv6(error: &io::Error) -> bool {
    let code = error.raw_os_error();
    [libc::EAFNOSUPPORT, libc::EADDRNOTAVAIL]
        .map(Some)
        .contains(&code)
}

/// Listens at an address of one family; the other one's stays free even where it stands for all.
///
/// # Errors
/// The kernel's.
pub fn listen_in_family(address: SocketAddr) -> io::Result<TcpListener> {
    open(address, Families::One)
}

/// Who may connect to an IPv6 address.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Families {
    One,
    Both,
}

fn open(address: SocketAddr, families: Families) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    if address.is_ipv6() {
        // What net.ipv6.bindv6only says is for others.
        socket.set_only_v6(families == Families::One)?;
    }
    // Connections of an earlier agent that are not quite over don't matter.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

fn complaint(place: &Place) -> String {
    format!("{} can't be served on {}", place.what, place.address)
}

fn complaint_of(place: &Place, error: &io::Error) -> String {
    let owner = place
        .usual_owner
        .filter(|_| error.kind() == io::ErrorKind::AddrInUse);
    let hint = owner.map_or_else(String::new, |owner| {
        format!(": {owner} is probably still running on this node")
    });
    format!("{}: {error}{hint}", complaint(place))
}

/// Connections, the oldest first.
struct Clients {
    most: usize,
    tasks: JoinSet<()>,
    handles: VecDeque<AbortHandle>,
}

impl Clients {
    fn of(most: usize) -> Self {
        Self {
            most,
            tasks: JoinSet::new(),
            handles: VecDeque::new(),
        }
    }

    fn answer(&mut self, client: TcpStream, router: Router) {
        while self.tasks.try_join_next().is_some() {}
        self.handles.retain(|handle| !handle.is_finished());
        if self.handles.len() >= self.most
            && let Some(oldest) = self.handles.pop_front()
        {
            oldest.abort();
        }
        self.handles
            .push_back(self.tasks.spawn(one_request(client, router)));
    }
}

async fn one_request(client: TcpStream, router: Router) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS)
        .max_buf_size(LONGEST_REQUEST)
        .keep_alive(false)
        // As kube-proxy writes them.
        .title_case_headers(true)
        .serve_connection(TokioIo::new(client), TowerToHyperService::new(router));
    match timeout(CONNECTION, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => debug!("a request was not answered: {error}"),
        Err(_) => debug!("a client was left because it was too slow"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::routing::get;
    use std::net::Ipv4Addr;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    fn place(address: SocketAddr, is_required: bool) -> Place {
        Place {
            what: "a test",
            address,
            usual_owner: Some("kube-proxy"),
            is_required,
        }
    }

    fn router() -> Router {
        Router::new().route("/", get(async || "hello"))
    }

    async fn free() -> SocketAddr {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        listener.local_addr().unwrap()
    }

    async fn connect(to: SocketAddr) -> TcpStream {
        loop {
            match TcpStream::connect(to).await {
                Ok(stream) => return stream,
                Err(_) => sleep(Duration::from_millis(1)).await,
            }
        }
    }

    async fn ask(to: SocketAddr) -> String {
        let mut stream = connect(to).await;
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn silent_clients_keep_nobody_waiting_however_many_they_are() {
        let address = free().await;
        let server = tokio::spawn(serve(place(address, true), router(), drop));
        let mut silent = Vec::new();
        for _ in 0..2 * CONNECTIONS {
            silent.push(connect(address).await);
        }
        let answer = timeout(HEADERS / 2, ask(address)).await;
        assert!(answer.expect("at once").ends_with("hello"));
        let ended = timeout(HEADERS / 2, silent[0].read(&mut [0])).await;
        let ended = ended.expect("the oldest has to go");
        assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
        server.abort();
    }

    #[tokio::test]
    async fn a_client_that_sends_too_much_or_nothing_at_all_is_left() {
        let address = free().await;
        let server = tokio::spawn(serve(place(address, true), router(), drop));
        let mut talker = connect(address).await;
        let line = [b"GET / HTTP/1.1\r\nA: ".as_slice(), &[b'x'; 64 * 1024]].concat();
        let _ = talker.write_all(&line).await;
        let mut answer = Vec::new();
        let _ = talker.read_to_end(&mut answer).await;
        assert!(!String::from_utf8_lossy(&answer).contains("hello"));
        let mut silent = connect(address).await;
        let ended = timeout(2 * CONNECTION, silent.read_to_end(&mut answer)).await;
        ended.expect("it is left").unwrap();
        server.abort();
    }

    #[tokio::test]
    async fn a_port_that_is_taken_is_waited_for_or_the_end() {
        let other = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = other.local_addr().unwrap();
        let error = serve(place(address, true), router(), drop)
            .await
            .unwrap_err();
        assert!(
            error.to_string().contains(&address.to_string()),
            "{error:#}"
        );
        let server = tokio::spawn(serve(place(address, false), router(), drop));
        drop(other);
        let answer = timeout(3 * RETRY, ask(address)).await;
        assert!(answer.expect("it is served").ends_with("hello"));
        server.abort();
    }

    #[tokio::test]
    async fn an_address_that_stands_for_all_answers_in_both_families() {
        for any in ["0.0.0.0:0", "[::]:0"] {
            let free = open(any.parse().unwrap(), Families::Both).unwrap();
            let address = free.local_addr().unwrap();
            drop(free);
            let server = tokio::spawn(serve(place(address, true), router(), drop));
            for loopback in ["127.0.0.1", "::1"] {
                let to = SocketAddr::new(loopback.parse().unwrap(), address.port());
                let answer = timeout(HEADERS, ask(to)).await;
                assert!(answer.expect(loopback).ends_with("hello"), "{any}");
            }
            server.abort();
        }
    }

    #[tokio::test]
    async fn the_address_of_one_family_leaves_the_other_ones_free() {
        let v4 = listen_in_family("0.0.0.0:0".parse().unwrap()).unwrap();
        let port = v4.local_addr().unwrap().port();
        let v6 = listen_in_family((Ipv6Addr::UNSPECIFIED, port).into());
        assert!(v6.is_ok(), "{v6:?}");
    }

    #[test]
    fn ipv4_stands_in_only_where_there_is_no_ipv6() {
        let lacks = |code| lacks_ipv6(&io::Error::from_raw_os_error(code));
        assert!(lacks(libc::EAFNOSUPPORT));
        assert!(!lacks(libc::EADDRINUSE));
    }

    #[test]
    fn who_probably_has_the_port_is_named() {
        let place = place("127.0.0.1:10256".parse().unwrap(), false);
        let taken = complaint_of(&place, &io::ErrorKind::AddrInUse.into());
        assert!(taken.contains("127.0.0.1:10256"), "{taken}");
        assert!(taken.contains("kube-proxy is probably"), "{taken}");
        let other = complaint_of(&place, &io::ErrorKind::AddrNotAvailable.into());
        assert!(!other.contains("kube-proxy"), "{other}");
    }
}
