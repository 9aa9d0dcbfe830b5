//! The parameters of lists and watches, and which of them contradict each other.

use super::resource::Resource;
use super::selector::Selector;
use super::status::Status;
use std::collections::HashMap;
use std::time::Duration;

/// Which version of the objects is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    /// The newest.
    Newest,
    /// `0`: whatever is at hand.
    Any,
    /// At least this, or exactly this if the match says so.
    At(u64),
}

/// `resourceVersionMatch`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Match {
    NotOlderThan,
    Exact,
}

/// The parameters.
#[derive(Clone, Debug)]
pub(super) struct Query {
    pub(super) watch: bool,
    pub(super) selector: Selector,
    pub(super) limit: usize,
    pub(super) next: Option<String>,
    pub(super) version: Version,
    pub(super) matching: Option<Match>,
    pub(super) timeout: Option<Duration>,
    pub(super) bookmarks: bool,
    pub(super) initial_events: Option<bool>,
}

type Parameters = HashMap<String, String>;

impl Query {
    /// Reads and checks the parameters; `streaming_lists` says whether the server has the feature.
    ///
    /// # Errors
    /// 400 or 422, as the real server has it.
    pub(super) fn parse(
        resource: Resource,
        parameters: &Parameters,
        streaming_lists: bool,
    ) -> Result<Self, Status> {
        let text = |name: &str| parameters.get(name).map_or("", String::as_str);
        let query = Self {
            watch: flag(parameters, "watch")?.unwrap_or(false),
            selector: Selector::parse(resource, text("labelSelector"), text("fieldSelector"))?,
            limit: match number(parameters, "limit")? {
                None | Some(0) => usize::MAX,
                Some(limit) => usize::try_from(limit).unwrap_or(usize::MAX),
            },
            next: Some(text("continue").to_owned()).filter(|token| !token.is_empty()),
            version: match number(parameters, "resourceVersion")? {
                None => Version::Newest,
                Some(0) => Version::Any,
                Some(revision) => Version::At(revision),
            },
            matching: matching(text("resourceVersionMatch"))?,
            timeout: number(parameters, "timeoutSeconds")?
                .filter(|seconds| *seconds > 0)
                .map(Duration::from_secs),
            bookmarks: flag(parameters, "allowWatchBookmarks")?.unwrap_or(false),
            initial_events: flag(parameters, "sendInitialEvents")?,
        };
        match query.watch {
            true => query.check_watch(streaming_lists)?,
            false => query.check_list()?,
        }
        Ok(query)
    }

    fn check_watch(&self, streaming_lists: bool) -> Result<(), Status> {
        let forbidden = |field: &str, text: &str| Err(Status::invalid_option(field, text));
        match (self.initial_events, self.matching) {
            (None, None) => Ok(()),
            (None, Some(_)) => forbidden(
                "resourceVersionMatch",
                "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
            ),
            (Some(_), _) if !streaming_lists => forbidden(
                "sendInitialEvents",
                "sendInitialEvents is forbidden for watch unless the WatchList feature gate is enabled",
            ),
            (Some(_), Some(Match::NotOlderThan)) => Ok(()),
            (Some(_), _) => forbidden(
                "resourceVersionMatch",
                "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
            ),
        }
    }

    fn check_list(&self) -> Result<(), Status> {
        let forbidden = |field: &str, text: &str| Err(Status::invalid_option(field, text));
        if self.initial_events.is_some() {
            return forbidden(
                "sendInitialEvents",
                "sendInitialEvents is forbidden for list",
            );
        }
        let field = "resourceVersionMatch";
        match (self.matching, self.version) {
            (None, _) => Ok(()),
            (Some(_), _) if self.next.is_some() => forbidden(
                field,
                "resourceVersionMatch is forbidden when continue is provided",
            ),
            (Some(_), Version::Newest) => forbidden(
                field,
                "resourceVersionMatch is forbidden unless resourceVersion is provided",
            ),
            (Some(Match::Exact), Version::Any) => forbidden(
                field,
                "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"",
            ),
            (Some(_), _) => Ok(()),
        }
    }
}

fn flag(parameters: &Parameters, name: &str) -> Result<Option<bool>, Status> {
    match parameters.get(name).map(String::as_str) {
        None => Ok(None),
        Some("1" | "t" | "T" | "true" | "True" | "TRUE" | "") => Ok(Some(true)),
        Some("0" | "f" | "F" | "false" | "False" | "FALSE") => Ok(Some(false)),
        Some(other) => Err(Status::bad_request(format!(
            "{name}: {other:?} is no boolean"
        ))),
    }
}

fn number(parameters: &Parameters, name: &str) -> Result<Option<u64>, Status> {
    match parameters.get(name).map_or("", String::as_str) {
        "" => Ok(None),
        text => match text.parse() {
            Ok(number) => Ok(Some(number)),
            Err(_) => Err(Status::bad_request(format!(
                "{name}: {text:?} is no number"
            ))),
        },
    }
}

fn matching(text: &str) -> Result<Option<Match>, Status> {
    match text {
        "" => Ok(None),
        "NotOlderThan" => Ok(Some(Match::NotOlderThan)),
        "Exact" => Ok(Some(Match::Exact)),
        _ => Err(Status::invalid_option(
            "resourceVersionMatch",
            "supported values are Exact, NotOlderThan",
        )),
    }
}
