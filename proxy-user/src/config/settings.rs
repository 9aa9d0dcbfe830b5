//! What becomes of each of kube-proxy's settings here. docs/operations.md has the same table.

mod process;
mod proxying;

/// A field of kube-proxy's file, a flag of its command line, or both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Setting {
    /// Path in the file; empty if it is a flag only.
    pub(super) field: &'static str,
    /// Names on the command line.
    pub(super) flags: &'static [(&'static str, Takes)],
    pub(super) treatment: Treatment,
    /// What it means here, or why nothing.
    pub(super) why: &'static str,
}

/// What stands behind a flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Takes {
    /// Nothing, or true or false behind a `=`.
    Bool,
    /// A value.
    Value,
}

/// What becomes of a setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Treatment {
    /// Counts, and a change of the file counts at once.
    Followed,
    /// Counts; a change of the file takes a restart of the agent.
    Honoured,
    /// Is accepted and changes nothing.
    NoMeaning,
    /// Is an error where it asks for something.
    Refused,
}

impl Treatment {
    /// As the documentation calls it.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Followed => "honoured, at once",
            Self::Honoured => "honoured",
            Self::NoMeaning => "no meaning",
            Self::Refused => "refused",
        }
    }
}

const fn both(
    field: &'static str,
    flags: &'static [(&'static str, Takes)],
    treatment: Treatment,
    why: &'static str,
) -> Setting {
    Setting {
        field,
        flags,
        treatment,
        why,
    }
}

const fn field(field: &'static str, treatment: Treatment, why: &'static str) -> Setting {
    both(field, &[], treatment, why)
}

const fn flags(
    flags: &'static [(&'static str, Takes)],
    treatment: Treatment,
    why: &'static str,
) -> Setting {
    both("", flags, treatment, why)
}

/// All of them.
pub(super) fn settings() -> impl Iterator<Item = &'static Setting> {
    process::SETTINGS.iter().chain(proxying::SETTINGS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    const TABLE: &str = include_str!("../../../docs/operations.md");

    fn row(setting: &Setting) -> String {
        let flags = setting.flags.iter().map(|(name, _)| match *name {
            "v" => "`-v`".to_owned(),
            name => format!("`--{name}`"),
        });
        let flags = flags.collect::<Vec<_>>().join(", ");
        let field = match setting.field {
            "" => String::new(),
            field => format!("`{field}`"),
        };
        let Setting { treatment, why, .. } = setting;
        format!("| {field} | {flags} | {} | {why} |", treatment.name())
    }

    #[test]
    fn the_documentation_has_the_same_table() {
        let rows: Vec<String> = settings().map(row).collect();
        let begin = TABLE.find("| field | flags |").expect("the table is there");
        let documented: Vec<&str> = TABLE[begin..]
            .lines()
            .skip(2)
            .take_while(|line| line.starts_with('|'))
            .collect();
        assert!(documented == rows, "it should be:\n{}", rows.join("\n"));
    }

    #[test]
    fn nothing_is_listed_twice() {
        let fields = settings().map(|setting| setting.field);
        let fields: Vec<&str> = fields.filter(|field| !field.is_empty()).collect();
        let flags = settings().flat_map(|setting| setting.flags);
        let flags: Vec<&str> = flags.map(|(name, _)| *name).collect();
        for names in [fields, flags] {
            let once: BTreeSet<&str> = names.iter().copied().collect();
            assert_eq!(once.len(), names.len(), "{names:?}");
        }
    }
}
