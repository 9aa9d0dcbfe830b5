//! kube-proxy's configuration file, read and checked.

use super::meaning::Meaning;
use super::schema::Schema;
use super::settings::{Setting, Treatment, settings};
use serde::{Deserialize as _, Serialize};
use serde_json::Value;
use serde_path_to_error::Track;
use serde_saphyr::{DuplicateKeyPolicy, Options};
use std::fmt;
use std::path::{Path, PathBuf};

/// Here 0 and `false` say something else than nothing.
const MEANT: [&str; 5] = [
    "featureGates",
    "conntrack.maxPerCore",
    "conntrack.min",
    "conntrack.tcpEstablishedTimeout",
    "conntrack.tcpCloseWaitTimeout",
];

/// A file in which nothing is wrong.
#[derive(Clone, Debug)]
pub struct File {
    /// Where it was read from.
    pub path: PathBuf,
    /// What was read.
    pub bytes: Vec<u8>,
    /// What is to be said of it, without the file's name: fields that are unknown, or there twice.
    pub warnings: Vec<String>,
    pub(super) meaning: Meaning,
    /// Its fields, for lists and comparisons.
    fields: Value,
}

/// What is wrong with a file, in the form "field: what".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    path: PathBuf,
    /// At least one.
    pub problems: Vec<String>,
}

impl std::error::Error for Wrong {}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path.display(), self.problems.join("; "))
    }
}

/// A field that is set.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FieldReport {
    /// Its path.
    pub field: &'static str,
    /// Its value.
    pub value: Value,
    /// What becomes of it, as docs/operations.md calls it.
    pub treatment: &'static str,
    /// What it means here, or why nothing.
    pub why: &'static str,
}

impl File {
    /// Reads the file; `localhost_nodeports` says whether its flag was given.
    ///
    /// # Errors
    /// It can't be read, or something in it is wrong: all that is.
    pub fn read(path: &Path, localhost_nodeports: bool) -> Result<Self, Wrong> {
        match std::fs::read(path) {
            Ok(bytes) => Self::parse(path, &bytes, localhost_nodeports),
            Err(error) => Err(Wrong::new(path, vec![format!("can't be read: {error}")])),
        }
    }

    /// Takes the content of the file for what it says.
    ///
    /// # Errors
    /// Something is wrong: all that is.
    pub fn parse(path: &Path, bytes: &[u8], localhost_nodeports: bool) -> Result<Self, Wrong> {
        let wrong = |problems| Wrong::new(path, problems);
        let text = std::str::from_utf8(bytes).map_err(|_| wrong(vec!["not UTF-8".to_owned()]))?;
        let (schema, warnings) = decode(text).map_err(|problem| wrong(vec![problem]))?;
        let meaning = Meaning::of(&schema, localhost_nodeports).map_err(wrong)?;
        let fields = serde_json::to_value(&schema);
        Ok(Self {
            path: path.to_owned(),
            bytes: bytes.to_owned(),
            warnings,
            meaning,
            fields: fields.map_err(|error| wrong(vec![error.to_string()]))?,
        })
    }

    /// The fields that are set.
    pub fn report(&self) -> Vec<FieldReport> {
        let report = |setting: &'static Setting| {
            Some(FieldReport {
                field: setting.field,
                value: self.value(setting)?.clone(),
                treatment: setting.treatment.name(),
                why: setting.why,
            })
        };
        settings().filter_map(report).collect()
    }

    /// The fields that are set and change nothing.
    pub(super) fn without_meaning(&self) -> Vec<&'static str> {
        let mut fields = self.report();
        fields.retain(|field| field.treatment == Treatment::NoMeaning.name());
        fields.into_iter().map(|field| field.field).collect()
    }

    /// The fields that count only after a restart and differ from those of another file.
    pub fn restart_for(&self, other: &Self) -> Vec<&'static str> {
        let settings = settings();
        let settings = settings.filter(|it| it.treatment == Treatment::Honoured);
        let changed = settings.filter(|it| self.value(it) != other.value(it));
        changed.map(|setting| setting.field).collect()
    }

    /// A field that says something.
    fn value(&self, setting: &Setting) -> Option<&Value> {
        let mut value = &self.fields;
        for name in setting.field.split('.') {
            value = value.get(name)?;
        }
        let is_silent = match MEANT.contains(&setting.field) {
            true => value.is_null(),
            false => says_nothing(value),
        };
        (!is_silent).then_some(value)
    }
}

impl Wrong {
    pub(super) fn new(path: &Path, problems: Vec<String>) -> Self {
        let path = path.to_owned();
        Self { path, problems }
    }
}

/// Whether a value is one that Go takes for none: files are written with all fields.
fn says_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => ["", "0", "0ns"].contains(&text.as_str()),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.values().all(says_nothing),
    }
}

/// Reads the text, and says which fields are unknown or there twice. As in kube-proxy, these are no errors.
fn decode(text: &str) -> Result<(Schema, Vec<String>), String> {
    let mut warnings = Vec::new();
    // The tracker of unknown fields writes "?" for a step that is none in the text.
    let unknown = |path: String| {
        let path = path.replace(".?", "");
        warnings.push(format!("{path}: there is no such field"));
    };
    let schema = decode_with(text, DuplicateKeyPolicy::LastWins, unknown)?;
    if let Err(twice) = decode_with(text, DuplicateKeyPolicy::Error, |_| {}) {
        warnings.push(format!("{twice}; the last one counts"));
    }
    Ok((schema, warnings))
}

fn decode_with(
    text: &str,
    duplicates: DuplicateKeyPolicy,
    mut unknown: impl FnMut(String),
) -> Result<Schema, String> {
    let mut track = Track::new();
    let options = options(duplicates);
    let decoded = serde_saphyr::with_deserializer_from_str_with_options(text, options, |yaml| {
        let tracked = serde_path_to_error::Deserializer::new(yaml, &mut track);
        let mut ignored = |path: serde_ignored::Path<'_>| unknown(path.to_string());
        Schema::deserialize(serde_ignored::Deserializer::new(tracked, &mut ignored))
    });
    decoded.map_err(|error| {
        let path = track.path().to_string();
        // The tracker writes "?" for what it has not got to know.
        let field = path.trim_end_matches(['.', '?']);
        let what = error.without_snippet().to_string();
        match field {
            "" => what,
            field => format!("{field}: {what}"),
        }
    })
}

fn options(duplicate_keys: DuplicateKeyPolicy) -> Options {
    serde_saphyr::options! {
        with_snippet: false,
        duplicate_keys: duplicate_keys,
    }
}

#[cfg(test)]
mod tests;
