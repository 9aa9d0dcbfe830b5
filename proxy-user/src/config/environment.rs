//! Flags of `ferrule run` from the environment: `FERRULE_MAX_FLOWS` for `--max-flows`.

use super::empty::without_empty_variable;
use clap::{Arg, Command};
use std::ffi::OsStr;

/// Lets every flag of `run` come from the environment, but those that are only there for kube-proxy's sake.
///
/// A Service called `ferrule-metrics` makes the kubelet set `FERRULE_METRICS_PORT` in pods, so hidden flags with
/// such names are left out.
pub fn with_environment(command: Command) -> Command {
    command.mut_subcommand("run", |run| {
        let environment = |name: &OsStr| std::env::var_os(name);
        run.mut_args(|it| without_empty_variable(from_environment(it), environment))
    })
}

fn from_environment(argument: Arg) -> Arg {
    let known = argument.get_env().is_some() || argument.is_hide_set();
    match argument.get_long() {
        Some(long)
            if !known && long.len() > 1 && !["help", "check-config", "output"].contains(&long) =>
        {
            let name = format!("FERRULE_{}", long.replace('-', "_").to_uppercase());
            argument.env(name).hide_env(true)
        }
        _ => argument,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Run;
    use clap::Args as _;

    #[test]
    fn flags_have_names_in_the_environment() {
        let run = Run::augment_args(Command::new("run"));
        let command = with_environment(Command::new("ferrule").subcommand(run));
        let run = command.find_subcommand("run").unwrap();
        let name = |long: &str| {
            let mut arguments = run.get_arguments();
            let argument = arguments.find(|it| it.get_long() == Some(long)).unwrap();
            let name = argument
                .get_env()
                .map(|name| name.to_string_lossy().into_owned());
            name.unwrap_or_default()
        };
        assert_eq!(name("config"), "FERRULE_CONFIG");
        assert_eq!(name("healthz-bind-address"), "FERRULE_HEALTHZ_BIND_ADDRESS");
        assert_eq!(name("log"), "FERRULE_LOG");
        assert_eq!(name("hostname-override"), "NODE_NAME");
        for none in ["metrics-port", "oom-score-adj", "v"] {
            assert_eq!(name(none), "", "{none}");
        }
    }
}
