//! The API servers, of which one is asked until it fails.

use super::pulse::Pulse;
use http::header::RETRY_AFTER;
use http::{Request, Response, Uri};
use http_body_util::BodyExt as _;
use http_body_util::combinators::UnsyncBoxBody;
use kube::Client;
use kube::client::Body;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep_until};

/// Watches of one kind begin this far apart at least, should a server end them at once.
const BETWEEN_WATCHES: Duration = Duration::from_secs(1);
/// No server is left alone for longer than this, whatever it asks for.
const LONGEST_DELAY: Duration = Duration::from_secs(60);

/// What comes of a request.
pub(super) type Heard =
    UnsyncBoxBody<<Body as http_body::Body>::Data, <Body as http_body::Body>::Error>;

/// The servers, of which one is asked until it fails.
pub(super) struct Servers {
    clients: Vec<Client>,
    current: Arc<AtomicUsize>,
    pulse: Arc<Pulse>,
    next_watch: Mutex<Instant>,
}

impl Servers {
    pub(super) fn new(clients: Vec<Client>, current: Arc<AtomicUsize>, pulse: Arc<Pulse>) -> Self {
        Self {
            clients,
            current,
            pulse,
            next_watch: Mutex::new(Instant::now()),
        }
    }

    pub(super) async fn send(&self, request: Request<Body>) -> kube::Result<Response<Heard>> {
        if is_watch(request.uri()) {
            self.pace().await;
        }
        let current = self.current.load(Ordering::Relaxed);
        let client = &self.clients[current % self.clients.len()];
        let response = client.send(consistent(request)).await;
        let response = response.inspect_err(|_| self.leave(current))?;
        if response.status().is_success() {
            self.pulse.answered();
            let pulse = Arc::clone(&self.pulse);
            return Ok(response.map(|body| heard(body, pulse)));
        }
        if response.status().is_server_error() {
            self.leave(current);
        }
        self.note_delay(&response);
        Ok(response.map(http_body_util::BodyExt::boxed_unsync))
    }

    /// The next request goes to the next server, unless another has seen to that.
    fn leave(&self, current: usize) {
        let next = current.wrapping_add(1);
        let ordering = Ordering::Relaxed;
        let _ = self
            .current
            .compare_exchange(current, next, ordering, ordering);
    }

    /// RFC 9110, section 10.2.3; API servers give seconds.
    fn note_delay(&self, response: &Response<Body>) {
        let delay = response.headers().get(RETRY_AFTER);
        let seconds = delay.and_then(|delay| delay.to_str().ok()?.trim().parse().ok());
        if let Some(seconds) = seconds {
            let delay = Duration::from_secs(seconds).min(LONGEST_DELAY);
            self.pulse.retry_after(delay);
        }
    }

    async fn pace(&self) {
        let mut next = self.next_watch.lock().await;
        sleep_until(*next).await;
        *next = Instant::now() + BETWEEN_WATCHES;
    }
}

/// A list that is streamed has to be as new as any other. kube's watcher asks for version 0 there: whatever the server
/// has in memory, be it older than what another one has told.
fn consistent(mut request: Request<Body>) -> Request<Body> {
    let text = request.uri().to_string();
    let Some((path, query)) = text.split_once('?') else {
        return request;
    };
    if !query.contains("sendInitialEvents=true") {
        return request;
    }
    let pairs = query.split('&').filter(|pair| *pair != "resourceVersion=0");
    let query: Vec<&str> = pairs.collect();
    // What was a URI is one without that.
    if let Ok(uri) = format!("{path}?{}", query.join("&")).parse() {
        *request.uri_mut() = uri;
    }
    request
}

fn is_watch(uri: &Uri) -> bool {
    let query = uri.query().unwrap_or_default();
    query.split('&').any(|pair| pair == "watch=true")
}

/// Notes when something comes.
fn heard(body: Body, pulse: Arc<Pulse>) -> Heard {
    let body = body.map_frame(move |frame| {
        pulse.beat();
        frame
    });
    body.boxed_unsync()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn watches_are_told_from_lists() {
        let is_watch = |uri: &str| is_watch(&uri.parse().unwrap());
        assert!(is_watch("/api/v1/pods?limit=5&watch=true"));
        assert!(!is_watch("/api/v1/pods?labelSelector=watch%3Dtrue"));
        assert!(!is_watch("/api/v1/pods"));
    }

    #[test]
    fn streamed_lists_are_no_older_than_others() {
        let asked = |uri: &str| {
            let request = Request::get(uri).body(Body::empty()).unwrap();
            consistent(request).uri().to_string()
        };
        let streamed = "/api/v1/pods?watch=true&resourceVersion=0&sendInitialEvents=true";
        assert_eq!(
            asked(streamed),
            "/api/v1/pods?watch=true&sendInitialEvents=true"
        );
        let resumed = "/api/v1/pods?watch=true&resourceVersion=0";
        assert_eq!(asked(resumed), resumed);
    }
}
