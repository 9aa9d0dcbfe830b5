//! Faults on demand: what the server does wrong, to whom, and how often.

use super::resource::Resource;
use std::time::Duration;

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// The request is answered with this status: 410, 429, 500, 503, ...; some servers add when to
    /// come back, in seconds.
    Status {
        /// The HTTP status.
        code: u16,
        /// The header `Retry-After`.
        retry_after: Option<u32>,
    },
    /// The connection ends in the middle of an object: of a list, or of a watch's next event.
    Cut,
    /// The request is accepted and never answered.
    Stall,
    /// A watch stays open and nothing comes any more, no bookmarks either.
    Silence,
    /// A watch ends in order as soon as it is open.
    Close,
    /// A list, or a watch's next event, is no JSON.
    Garbage,
    /// An object of a list, or of a watch's next event, has text where a list belongs.
    WrongShape,
    /// Bodies arrive byte by byte, with this pause between them.
    Trickle(Duration),
    /// A watch's next event arrives twice.
    Duplicate,
    /// After a watch's next MODIFIED, the version before it arrives again as MODIFIED.
    Reorder,
    /// A watch that resumes gets events again that came before the version it names.
    Replay,
}

/// The part of an exchange at which an effect is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Moment {
    /// Any request, before it is answered.
    Request,
    /// The body of a list or of a single object.
    Body,
    /// A watch is about to begin.
    WatchStart,
    /// A watch is about to send something.
    WatchSend,
}

impl Effect {
    /// Whether the effect has its place here; `event` is the type of what a watch sends.
    fn fits(self, moment: Moment, event: &str) -> bool {
        let is_change = matches!(event, "ADDED" | "MODIFIED" | "DELETED");
        match (self, moment) {
            (Self::Status { .. } | Self::Stall, moment) => moment == Moment::Request,
            (Self::Close | Self::Replay, moment) => moment == Moment::WatchStart,
            (Self::Trickle(_), moment) => matches!(moment, Moment::Body | Moment::WatchStart),
            (Self::Silence, moment) => moment == Moment::WatchSend,
            (Self::Cut | Self::Garbage | Self::WrongShape, Moment::Body) => true,
            (Self::Cut | Self::Garbage | Self::WrongShape | Self::Duplicate, moment) => {
                moment == Moment::WatchSend && is_change
            }
            (Self::Reorder, moment) => moment == Moment::WatchSend && event == "MODIFIED",
        }
    }
}

/// An effect, whom it concerns, and how often it happens: by default everybody, until
/// [`ApiServer::heal`](super::ApiServer::heal).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    effect: Effect,
    resource: Option<String>,
    watches: Option<bool>,
    left: Option<usize>,
}

impl Fault {
    /// This effect for everybody, until healed.
    #[must_use]
    pub fn new(effect: Effect) -> Self {
        Self {
            effect,
            resource: None,
            watches: None,
            left: None,
        }
    }

    /// Only for one kind of object, by its plural: `services`.
    #[must_use]
    pub fn on(mut self, resource: &str) -> Self {
        self.resource = Some(resource.to_owned());
        self
    }

    /// Only for watches.
    #[must_use]
    pub fn watches(mut self) -> Self {
        self.watches = Some(true);
        self
    }

    /// Only for what is no watch: lists, single objects, writes.
    #[must_use]
    pub fn lists(mut self) -> Self {
        self.watches = Some(false);
        self
    }

    /// Only so many times. A time is a request, a watch that begins, or something that it sends.
    #[must_use]
    pub fn times(mut self, count: usize) -> Self {
        self.left = Some(count);
        self
    }
}

/// The faults that are on.
#[derive(Debug, Default)]
pub(super) struct Faults(Vec<Fault>);

impl Faults {
    pub(super) fn add(&mut self, fault: Fault) {
        self.0.push(fault);
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// The effect to have now, if any; counts it.
    pub(super) fn take(
        &mut self,
        resource: Option<Resource>,
        is_watch: bool,
        moment: Moment,
        event: &str,
    ) -> Option<Effect> {
        let plural = resource.map(|resource| resource.plural);
        let fault = self.0.iter_mut().find(|fault| {
            fault.left != Some(0)
                && fault.effect.fits(moment, event)
                && fault.watches.is_none_or(|watches| watches == is_watch)
                && fault
                    .resource
                    .as_deref()
                    .is_none_or(|it| Some(it) == plural)
        })?;
        fault.left = fault.left.map(|left| left - 1);
        Some(fault.effect)
    }
}
