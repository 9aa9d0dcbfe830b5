//! The configuration file while the agent runs: what can be taken from it at once, and what has to wait.

use super::logging::SetFilter;
use super::watched::{Content, Watched};
use crate::config::{File, Loaded, Run};
use crate::metrics::{Part, ProblemMetrics};
use crate::sync::Followed;
use anyhow::{Result, anyhow};
use tokio::sync::watch;
use tracing::{info, warn};

/// Follows the file.
pub(super) struct Reload {
    flags: Run,
    /// As it was at the start; `None` if there is no file.
    start: Option<File>,
    set_filter: SetFilter,
    problems: ProblemMetrics,
    followed: watch::Sender<Followed>,
    warnings: watch::Sender<Vec<String>>,
    /// What has been logged of the settings in force.
    said: Vec<String>,
    /// What waits for a restart.
    waiting: Option<String>,
}

/// What changes with the file.
pub(super) struct Reloaded {
    pub(super) followed: watch::Receiver<Followed>,
    /// What the operator should put right.
    pub(super) warnings: watch::Receiver<Vec<String>>,
}

impl Reload {
    /// With the flags as they were given, and what came of them; says what is to be said of that.
    pub(super) fn new(
        flags: &Run,
        loaded: &Loaded,
        set_filter: SetFilter,
        problems: ProblemMetrics,
    ) -> Result<(Self, Reloaded)> {
        let (followed, followed_out) = watch::channel(loaded.run.followed()?);
        let (warnings, warnings_out) = watch::channel(Vec::new());
        let mut reload = Self {
            flags: flags.clone(),
            start: loaded.file.clone(),
            set_filter,
            problems,
            followed,
            warnings,
            said: Vec::new(),
            waiting: None,
        };
        reload.say(loaded);
        let reloaded = Reloaded {
            followed: followed_out,
            warnings: warnings_out,
        };
        Ok((reload, reloaded))
    }

    /// Runs for ever.
    pub(super) async fn run(mut self) {
        let Some(start) = &self.start else {
            return std::future::pending().await;
        };
        let mut watched = Watched::new(&start.path, start.bytes.clone());
        loop {
            let content = watched.changed().await;
            if let Err(error) = self.take(content) {
                let problem = format!("{error:#}; the settings from before stay in force");
                warn!("{problem}");
                self.warn(Some(problem));
            }
        }
    }

    /// Takes another content of the file; all of it or nothing.
    fn take(&mut self, content: Content) -> Result<()> {
        let Some(start) = &self.start else {
            return Ok(());
        };
        let path = start.path.display().to_string();
        let content = content.map_err(|error| anyhow!("{path}: can't be read: {error}"))?;
        let loaded = self.flags.clone().reload(&content)?;
        let followed = loaded.run.followed()?;
        (self.set_filter)(loaded.run.log_filter())?;
        let waiting = self.waiting_for_restart(start, &loaded);
        self.waiting = (!waiting.is_empty()).then(|| {
            let fields = waiting.join(", ");
            format!("{path}: {fields}: changed, which takes a restart of the agent")
        });
        self.followed.send_if_modified(|known| {
            let is_new = *known != followed;
            *known = followed;
            is_new
        });
        info!("{path}: changed, and read again");
        self.say(&loaded);
        if let Some(waiting) = &self.waiting {
            warn!("{waiting}");
        }
        self.warn(None);
        Ok(())
    }

    /// The fields that have changed since the start and count only after another.
    fn waiting_for_restart(&self, start: &File, loaded: &Loaded) -> Vec<&'static str> {
        let file = loaded.file.iter();
        let mut fields: Vec<_> = file.flat_map(|file| start.restart_for(file)).collect();
        // The flag wins.
        let is_named = self.flags.hostname_override.is_some();
        fields.retain(|field| !is_named || *field != "hostnameOverride");
        let before = self.flags.clone().with_file(start).sync_period();
        let is_said = fields.iter().any(|field| field.ends_with(".syncPeriod"));
        if before != loaded.run.sync_period() && !is_said {
            // Another mode has another period.
            fields.push("mode");
        }
        fields
    }

    /// Logs what has not been said before.
    fn say(&mut self, loaded: &Loaded) {
        let (warnings, hint) = (loaded.warnings(), loaded.hint());
        for warning in warnings.iter().filter(|it| !self.said.contains(it)) {
            warn!("{warning}");
        }
        for hint in hint.iter().filter(|it| !self.said.contains(it)) {
            info!("{hint}");
        }
        self.said = warnings.into_iter().chain(hint).collect();
    }

    /// For `ferrule status`.
    fn warn(&self, problem: Option<String>) {
        self.problems.set(Part::Configuration, problem.is_some());
        let warnings = problem.into_iter().chain(self.waiting.clone());
        self.warnings.send_replace(warnings.collect());
    }
}
