//! What goes wrong with a watch, in a line, and what follows from it.

use kube::core::Status;
use kube::runtime::watcher;
use std::error::Error;

/// A request that failed, or a watch that broke off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    /// One line.
    pub(super) text: String,
    pub(super) cause: Cause,
}

/// As far as it matters for what comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// The server was not reached, or the connection broke.
    Connection,
    /// It does not know this kind.
    UnknownKind,
    /// It does not take these credentials: perhaps there are newer ones.
    Credentials,
    /// It does not do what was asked for: streaming a list, for one.
    Refused,
    /// The point from which to go on is too old. All is listed again.
    Expired,
    /// What came can't be read: something was missed.
    Garbage,
    /// It has too much to do, or is broken, or does not allow it.
    Server,
    /// The connection stands, but nothing comes.
    Silence,
}

impl Failure {
    pub(super) fn of(error: &watcher::Error) -> Self {
        match error {
            watcher::Error::InitialListFailed(error)
            | watcher::Error::WatchStartFailed(error)
            | watcher::Error::WatchFailed(error) => Self::of_request(error),
            watcher::Error::WatchError(status) => Self::of_status(status),
            watcher::Error::NoResourceVersion => {
                Self::new(Cause::Garbage, "an object without resourceVersion")
            }
        }
    }

    pub(super) fn of_request(error: &kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => Self::of_status(status),
            kube::Error::SerdeError(error) => {
                Self::new(Cause::Garbage, format!("what came can't be read: {error}"))
            }
            kube::Error::FromUtf8(error) => {
                Self::new(Cause::Garbage, format!("what came is not text: {error}"))
            }
            other => match status_within(other) {
                Some(status) => Self::of_status(status),
                None => Self::new(Cause::Connection, root(other)),
            },
        }
    }

    fn of_status(status: &Status) -> Self {
        let text = match (status.reason.as_str(), status.message.as_str()) {
            (reason, "") => format!("{} {reason}", status.code),
            ("", message) => format!("{} {message}", status.code),
            (reason, message) => format!("{} {reason}: {message}", status.code),
        };
        Self::new(cause(status.code), text)
    }

    pub(super) fn new(cause: Cause, text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            cause,
        }
    }
}

fn cause(code: u16) -> Cause {
    match code {
        401 => Cause::Credentials,
        404 => Cause::UnknownKind,
        410 => Cause::Expired,
        400 | 405 | 406 | 415 | 422 => Cause::Refused,
        _ => Cause::Server,
    }
}

/// An answer of the server, wherever on its way it became an error.
fn status_within(error: &kube::Error) -> Option<&Status> {
    let mut next: Option<&(dyn Error + 'static)> = error.source();
    while let Some(error) = next {
        if let Some(kube::Error::Api(status)) = error.downcast_ref::<kube::Error>() {
            return Some(status);
        }
        next = error.source();
    }
    None
}

/// What is at the bottom of it: those above only repeat it.
fn root(error: &dyn Error) -> String {
    let mut last = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        last = error.to_string();
        next = error.source();
    }
    last
}
