//! A client that shows what is on the wire.

use crate::api::ApiServer;
use serde_json::Value;
use std::io::{BufRead, BufReader, Error, ErrorKind, Read, Result, Write};
use std::net::TcpStream;
use std::time::Duration;

/// How long the client waits for bytes that must come.
const PATIENCE: Duration = Duration::from_secs(20);

/// An answer whose body is still being read.
pub(super) struct Answer<S> {
    pub(super) code: u16,
    pub(super) head: String,
    reader: BufReader<S>,
    /// Bytes that are left of the current chunk; `None` if the body is not chunked.
    chunk: Option<usize>,
}

pub(super) fn connect(server: &ApiServer) -> TcpStream {
    let stream = TcpStream::connect(server.address()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Sends a request and reads the head of the answer.
pub(super) fn send<S: Read + Write>(
    mut stream: S,
    start: &str,
    headers: &str,
    body: &str,
) -> Result<Answer<S>> {
    let length = body.len();
    write!(
        stream,
        "{start} HTTP/1.1\r\nHost: test\r\nUser-Agent: test/1\r\nConnection: close\r\n\
         Content-Length: {length}\r\n{headers}\r\n{body}"
    )?;
    stream.flush()?;
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head)? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
    }
    let code = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    let chunk = head.contains("transfer-encoding: chunked").then_some(0);
    Ok(Answer {
        code: code.unwrap(),
        head,
        reader,
        chunk,
    })
}

/// GET on a connection of its own.
pub(super) fn open(server: &ApiServer, path: &str) -> Answer<TcpStream> {
    send(connect(server), &format!("GET {path}"), "", "").unwrap()
}

/// GET, read to its end.
pub(super) fn get(server: &ApiServer, path: &str) -> (u16, Value) {
    let mut answer = open(server, path);
    let code = answer.code;
    (code, answer.json().unwrap())
}

/// A request that writes, read to its end.
pub(super) fn write(server: &ApiServer, start: &str, kind: &str, body: &Value) -> (u16, Value) {
    let headers = format!("Content-Type: {kind}\r\n");
    let mut answer = send(connect(server), start, &headers, &body.to_string()).unwrap();
    (answer.code, answer.json().unwrap())
}

impl<S> Answer<S> {
    /// The connection.
    pub(super) fn stream(&self) -> &S {
        self.reader.get_ref()
    }
}

impl<S: Read> Answer<S> {
    /// The whole body.
    pub(super) fn text(&mut self) -> Result<String> {
        let mut bytes = Vec::new();
        self.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The whole body as JSON.
    pub(super) fn json(&mut self) -> Result<Value> {
        let text = self.text()?;
        serde_json::from_str(&text).map_err(Error::from)
    }

    /// The next line of the body; `None` at its end.
    pub(super) fn line(&mut self) -> Result<Option<String>> {
        let mut line = Vec::new();
        let mut byte = [0];
        while self.read(&mut byte)? == 1 {
            line.push(byte[0]);
            if byte == *b"\n" {
                break;
            }
        }
        let text = String::from_utf8_lossy(&line).into_owned();
        Ok((!line.is_empty()).then_some(text))
    }

    /// The next event as `TYPE name@version`; `END` at the end.
    pub(super) fn event(&mut self) -> String {
        let Some(line) = self.line().unwrap() else {
            return "END".to_owned();
        };
        let event: Value = serde_json::from_str(&line).unwrap();
        let (kind, object) = (event["type"].as_str().unwrap(), &event["object"]);
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        match kind {
            "ERROR" => format!("ERROR {} {}", object["code"], object["reason"]),
            kind => {
                let version = object["metadata"]["resourceVersion"].as_str().unwrap();
                format!("{kind} {name}@{version}")
            }
        }
    }
}

impl<S: Read> Read for Answer<S> {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let Some(left) = self.chunk else {
            return self.reader.read(buffer);
        };
        if left == 0 {
            let mut size = String::new();
            if self.reader.read_line(&mut size)? == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            let size = usize::from_str_radix(size.trim(), 16).map_err(Error::other)?;
            if size == 0 {
                self.chunk = None;
                self.reader.read_line(&mut String::new())?;
                return Ok(0);
            }
            self.chunk = Some(size);
            return self.read(buffer);
        }
        let length = left.min(buffer.len());
        let length = self.reader.read(&mut buffer[..length])?;
        if length == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        self.chunk = match left - length {
            0 => {
                self.reader.read_line(&mut String::new())?;
                Some(0)
            }
            left => Some(left),
        };
        Ok(length)
    }
}
