//! Flags with an empty value, as templates of kube-proxy's command line have them: they are not given.

use clap::builder::Resettable;
use clap::{Arg, Command};
use std::ffi::{OsStr, OsString};

/// Subcommands that take flags of kube-proxy.
const SUBCOMMANDS: [&str; 2] = ["run", "explain"];
/// Here empty means something: nowhere.
const MEANT: [&str; 2] = ["healthz-bind-address", "metrics-bind-address"];

/// The words of a command line without flags of kube-proxy that have an empty value. Others stay, so that they are
/// refused if nobody knows them.
pub fn without_empty(
    command: &Command,
    words: impl IntoIterator<Item = OsString>,
) -> Vec<OsString> {
    let words: Vec<OsString> = words.into_iter().collect();
    let mut names = SUBCOMMANDS.into_iter();
    let name = names.find(|name| words.get(1).is_some_and(|it| it == name));
    let Some(subcommand) = name.and_then(|name| command.find_subcommand(name)) else {
        return words;
    };
    let mut kept: Vec<OsString> = Vec::new();
    for word in words {
        let is_value = word.is_empty() && kept.last().is_some_and(|it| is_flag(subcommand, it, ""));
        if is_value {
            kept.pop();
        } else if !is_flag(subcommand, &word, "=") {
            kept.push(word);
        }
    }
    kept
}

/// Without its variable, if the environment has it, but empty.
pub(super) fn without_empty_variable(
    argument: Arg,
    environment: impl Fn(&OsStr) -> Option<OsString>,
) -> Arg {
    let value = argument.get_env().and_then(environment);
    let is_empty = value.is_some_and(|value| value.is_empty());
    let is_meant = argument.get_long().is_some_and(|it| MEANT.contains(&it));
    match is_empty && !is_meant {
        true => argument.env(Resettable::Reset),
        false => argument,
    }
}

/// Whether this is the name of a flag with a value that can't be meant to be empty, and this behind it.
fn is_flag(subcommand: &Command, word: &OsStr, behind: &str) -> bool {
    let name = word.to_str().and_then(|it| it.strip_prefix("--"));
    let name = name.and_then(|it| it.strip_suffix(behind));
    let is_known = |name| subcommand.get_arguments().any(|it| has_name(it, name));
    name.is_some_and(|name| !MEANT.contains(&name) && is_known(name))
}

fn has_name(argument: &Arg, name: &str) -> bool {
    let names = argument.get_long_and_visible_aliases();
    argument.get_action().takes_values() && names.is_some_and(|names| names.contains(&name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Run;
    use clap::{Args as _, FromArgMatches as _};

    fn parse(words: &[&str]) -> Result<Run, String> {
        let command = Command::new("ferrule").subcommand(Run::augment_args(Command::new("run")));
        let words = ["ferrule", "run"].iter().chain(words);
        let words = without_empty(&command, words.map(OsString::from));
        let matches = command.try_get_matches_from(words);
        let matches = matches.map_err(|error| error.to_string())?;
        let run = matches.subcommand_matches("run").unwrap();
        Ok(Run::from_arg_matches(run).unwrap())
    }

    #[test]
    fn flags_with_an_empty_value_are_not_given() {
        let names = [
            "cluster-cidr",
            "bind-address",
            "master",
            "kubeconfig",
            "config",
            "hostname-override",
            "node-name",
            "oom-score-adj",
        ];
        let one = names.map(|name| vec![format!("--{name}=")]);
        let two = names.map(|name| vec![format!("--{name}"), String::new()]);
        for words in [one, two] {
            let words = words.concat();
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            assert_is_empty(&parse(&words).unwrap(), &names);
        }
    }

    fn assert_is_empty(run: &Run, names: &[&str]) {
        assert!(run.cluster_cidr.is_empty());
        assert!(run.bind_address.is_none() && run.hostname_override.is_none());
        assert!(run.source.master.is_none() && run.source.kubeconfig.is_none());
        assert!(run.config.is_none());
        let given = names.iter().copied().filter(|name| run.given.has(name));
        assert_eq!(given.collect::<Vec<_>>(), [""; 0]);
    }

    #[test]
    fn variables_that_are_empty_are_not_set() {
        let has_variable = |name: &'static str, value: &str| {
            let argument = Arg::new(name).long(name).env("SOME");
            let argument = without_empty_variable(argument, |_| Some(value.into()));
            argument.get_env().is_some()
        };
        assert!(!has_variable("cluster-cidr", ""));
        assert!(has_variable("cluster-cidr", "x"));
        assert!(has_variable("metrics-bind-address", ""), "off");
    }

    #[test]
    fn empty_addresses_to_listen_at_are_off() {
        let run = parse(&["--healthz-bind-address=", "--metrics-bind-address="]).unwrap();
        assert_eq!(run.healthz_bind_address(), None);
        assert_eq!(run.metrics_bind_address(), None);
    }

    #[test]
    fn what_is_not_a_flag_that_takes_a_value_is_refused_empty_or_not() {
        for word in ["--nonsense=", "--close-tcp="] {
            assert!(
                parse(&[word])
                    .unwrap_err()
                    .contains(&word[..word.len() - 1])
            );
        }
    }

    #[test]
    fn other_commands_get_their_words_as_they_are() {
        let command = Command::new("ferrule").subcommand(Run::augment_args(Command::new("run")));
        let words = ["ferrule", "status", "--config="].map(OsString::from);
        assert_eq!(without_empty(&command, words.clone()), words);
    }
}
