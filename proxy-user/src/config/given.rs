//! What was said on the command line, and kube-proxy's flags that have no meaning here.

use super::settings::{Setting, Takes, Treatment, settings};
use clap::builder::ValueParser;
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};
use std::collections::BTreeSet;

/// Names of the flags that were given, by hand or in the environment.
///
/// Accepts besides, and hides, those flags of kube-proxy that nobody reads, so that its command line can be
/// kept. It has to be the first of the fields that are flattened: they take their own values away.
#[derive(Clone, Debug, Default)]
pub struct Given(BTreeSet<String>);

impl Given {
    /// Whether the flag of this name was given.
    pub fn has(&self, flag: &str) -> bool {
        self.0.contains(flag)
    }

    /// Those without a meaning here.
    pub(super) fn without_meaning(&self) -> Vec<&'static str> {
        self.of(|setting| setting.treatment == Treatment::NoMeaning)
    }

    /// Those that a file stands in for.
    pub(super) fn in_file(&self) -> Vec<&'static str> {
        let counts = |setting: &Setting| setting.treatment != Treatment::NoMeaning;
        self.of(|setting| !setting.field.is_empty() && counts(setting))
    }

    fn of(&self, is_wanted: impl Fn(&Setting) -> bool) -> Vec<&'static str> {
        let wanted = settings().filter(|setting| is_wanted(setting));
        let flags = wanted.flat_map(|setting| setting.flags);
        let names = flags.map(|(name, _)| *name);
        names.filter(|name| self.has(name)).collect()
    }
}

impl FromArgMatches for Given {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut given = Self::default();
        given.update_from_arg_matches(matches)?;
        Ok(given)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        let is_given = |id: &str| {
            let source = matches.value_source(id);
            source.is_some_and(|source| source != ValueSource::DefaultValue)
        };
        let ids = matches.ids().map(clap::Id::as_str);
        let names = ids.filter(|id| is_given(id)).map(|id| id.replace('_', "-"));
        self.0.extend(names);
        Ok(())
    }
}

impl Args for Given {
    fn augment_args(command: Command) -> Command {
        let unread = settings().filter(|setting| {
            matches!(setting.treatment, Treatment::NoMeaning | Treatment::Refused)
        });
        let flags = unread.flat_map(|setting| setting.flags.iter().map(move |it| (setting, it)));
        command.args(flags.map(|(setting, (name, takes))| argument(setting, name, *takes)))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

fn argument(setting: &Setting, name: &'static str, takes: Takes) -> Arg {
    let argument = Arg::new(name)
        .long(name)
        .hide(true)
        .action(ArgAction::Append);
    let argument = match takes {
        Takes::Bool => argument
            .num_args(0..=1)
            .require_equals(true)
            .default_missing_value("true"),
        Takes::Value => argument.allow_hyphen_values(true),
    };
    match setting.treatment {
        Treatment::Refused => argument.value_parser(refusal(setting.why)),
        Treatment::NoMeaning | Treatment::Honoured | Treatment::Followed => argument,
    }
}

/// Lets nothing pass but `false`.
fn refusal(why: &'static str) -> ValueParser {
    let refuse = move |value: &str| match value {
        "false" => Ok(value.to_owned()),
        _ => Err(why.replace('`', "")),
    };
    ValueParser::new(refuse)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Run;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        run: Run,
    }

    fn parse(words: &[&str]) -> Result<Run, String> {
        let own = ["ferrule"];
        let line = Line::try_parse_from(own.iter().chain(words));
        line.map(|line| line.run).map_err(|error| error.to_string())
    }

    #[test]
    fn every_flag_of_kube_proxy_is_known() {
        for (setting, (name, takes)) in
            settings().flat_map(|setting| setting.flags.iter().map(move |flag| (setting, flag)))
        {
            let value = match (takes, *name) {
                (Takes::Bool, _) => "false",
                (_, "proxy-mode") => "ipvs",
                (_, "feature-gates") => "AllAlpha=true",
                (_, "detect-local-mode") => "ClusterCIDR",
                (_, "cluster-cidr" | "nodeport-addresses") => "10.0.0.0/8",
                (_, "bind-address") => "192.0.2.1",
                (_, name) if name.ends_with("bind-address") => "192.0.2.1:1",
                (_, name) if name.contains("period") || name.contains("timeout") => "1m0s",
                (Takes::Value, _) => "1",
            };
            let parsed = parse(&[&format!("--{name}={value}")]);
            match (setting.treatment, takes) {
                (Treatment::Refused, Takes::Value) => {
                    let error = parsed.unwrap_err();
                    let why = setting.why.replace('`', "");
                    assert!(error.contains(&why) && error.contains(name), "{error}");
                }
                _ => assert!(parsed.unwrap().given.has(name), "--{name}"),
            }
        }
    }

    #[test]
    fn a_command_line_of_kube_proxy_is_taken() {
        let run = parse(&[
            "--config=/var/lib/kube-proxy/config.conf",
            "--hostname-override=node-1",
            "-v=2",
            "--oom-score-adj=-998",
            "--oom-score-adj",
            "-999",
            "--conntrack-max-per-core=131072",
            "--proxy-port-range=1-2",
            "--profiling",
            "--masquerade-all=false",
            "--logtostderr=true",
            "--cluster-cidr=10.244.0.0/16",
        ]);
        let given = run.unwrap().given;
        assert_eq!(
            given.without_meaning(),
            [
                "logtostderr",
                "profiling",
                "oom-score-adj",
                "proxy-port-range"
            ]
        );
        let in_file = [
            "v",
            "hostname-override",
            "masquerade-all",
            "cluster-cidr",
            "conntrack-max-per-core",
        ];
        assert_eq!(given.in_file(), in_file);
        assert!(!given.has("bpffs"), "it has its default");
    }

    #[test]
    fn what_asks_for_something_else_is_refused_by_name() {
        let cases = [
            ("--cleanup", "ferrule cleanup removes"),
            ("--init-only=true", "ferrule init makes"),
            ("--proxy-mode=userspace", "neither"),
        ];
        for (flag, why) in cases {
            let error = parse(&[flag]).unwrap_err();
            let name = flag.split('=').next().unwrap();
            assert!(error.contains(why) && error.contains(name), "{error}");
        }
    }
}
