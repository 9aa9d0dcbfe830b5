//! Label and field selectors.

use super::resource::Resource;
use super::status::Status;

/// What selectors ask of an object.
pub(super) trait Selectable {
    /// The value of a label, if there is such a label.
    fn label(&self, key: &str) -> Option<&str>;
    /// The value of a field that may be selected by; empty if it has none.
    fn field(&self, path: &str) -> &str;
}

/// Both selectors of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Selector {
    labels: Vec<(String, Test)>,
    fields: Vec<(String, Test)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Test {
    In(Vec<String>),
    NotIn(Vec<String>),
    Exists,
    Absent,
}

impl Test {
    fn holds(&self, value: Option<&str>) -> bool {
        let is_in =
            |values: &[String]| value.is_some_and(|value| values.iter().any(|it| it == value));
        match self {
            Self::In(values) => is_in(values),
            // An object without the label is not among them either.
            Self::NotIn(values) => !is_in(values),
            Self::Exists => value.is_some(),
            Self::Absent => value.is_none(),
        }
    }
}

impl Selector {
    /// Reads both parameters.
    ///
    /// # Errors
    /// 400 when one can't be read, or names a field that the kind can't be selected by.
    pub(super) fn parse(resource: Resource, labels: &str, fields: &str) -> Result<Self, Status> {
        let labels_of = requirements(labels).into_iter();
        let labels_of = labels_of.map(|part| label_test(part).ok_or_else(|| unreadable(part)));
        let fields_of = requirements(fields).into_iter();
        let fields_of = fields_of.map(|part| field_test(part).ok_or_else(|| unreadable(part)));
        let selector = Self {
            labels: labels_of.collect::<Result<_, _>>()?,
            fields: fields_of.collect::<Result<_, _>>()?,
        };
        let is_known = |path: &str| resource.fields.iter().any(|(known, _)| *known == path);
        match selector.fields.iter().find(|(path, _)| !is_known(path)) {
            None => Ok(selector),
            Some((path, _)) => Err(Status::bad_request(format!(
                "Unable to find \"{}, Resource={}\" that match label selector \"{labels}\", \
                 field selector \"{fields}\": field label not supported: {path}",
                resource.api_version(),
                resource.plural
            ))),
        }
    }

    /// Whether nothing was asked for.
    pub(super) fn is_everything(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    /// Whether the object is selected.
    pub(super) fn matches(&self, object: &impl Selectable) -> bool {
        let mut labels = self.labels.iter();
        let mut fields = self.fields.iter();
        labels.all(|(key, test)| test.holds(object.label(key)))
            && fields.all(|(path, test)| test.holds(Some(object.field(path))))
    }
}

fn unreadable(part: &str) -> Status {
    Status::bad_request(format!("unable to parse requirement: {part:?}"))
}

/// Splits at commas that are not between parentheses.
fn requirements(text: &str) -> Vec<&str> {
    let mut depth = 0_i32;
    let parts = text.split(|character| {
        match character {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        character == ',' && depth == 0
    });
    match text.trim() {
        "" => Vec::new(),
        _ => parts.map(str::trim).collect(),
    }
}

fn label_test(text: &str) -> Option<(String, Test)> {
    if let Some(key) = text.strip_prefix('!') {
        return Some((label_key(key)?, Test::Absent));
    }
    if let Some((key, test)) = equality(text) {
        return Some((label_key(&key)?, test));
    }
    let Some((left, values)) = text.split_once('(') else {
        return Some((label_key(text)?, Test::Exists));
    };
    let values = values.strip_suffix(')')?.split(',');
    let values = values.map(|value| value.trim().to_owned()).collect();
    let (key, operator) = left.trim().rsplit_once(char::is_whitespace)?;
    match operator {
        "in" => Some((label_key(key)?, Test::In(values))),
        "notin" => Some((label_key(key)?, Test::NotIn(values))),
        _ => None,
    }
}

fn field_test(text: &str) -> Option<(String, Test)> {
    equality(text).filter(|(path, _)| !path.is_empty())
}

/// `a=b`, `a==b`, `a!=b`.
fn equality(text: &str) -> Option<(String, Test)> {
    let (left, right) = text.split_once('=')?;
    let value = right.strip_prefix('=').unwrap_or(right).trim().to_owned();
    Some(match left.strip_suffix('!') {
        Some(key) => (key.trim().to_owned(), Test::NotIn(vec![value])),
        None => (left.trim().to_owned(), Test::In(vec![value])),
    })
}

fn label_key(text: &str) -> Option<String> {
    let key = text.trim();
    let is_key = |character: char| character.is_ascii_alphanumeric() || "-_./".contains(character);
    (!key.is_empty() && key.chars().all(is_key)).then(|| key.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Sample;

    impl Selectable for Sample {
        fn label(&self, key: &str) -> Option<&str> {
            match key {
                "app" => Some("web"),
                "empty" => Some(""),
                _ => None,
            }
        }

        fn field(&self, path: &str) -> &str {
            match path {
                "metadata.name" => "a",
                _ => "",
            }
        }
    }

    fn selects(labels: &str, fields: &str) -> bool {
        let services = Resource::named("services").unwrap();
        let selector = Selector::parse(services, labels, fields);
        selector.unwrap().matches(&Sample)
    }

    #[test]
    fn labels_are_compared_and_looked_up_in_sets() {
        for yes in [
            "",
            "app=web",
            "app==web",
            "app!=db",
            "other!=db",
            "app",
            "empty",
            "empty=",
            "!other",
            "app in (db, web)",
            "app in (web),!other",
            "app notin (db)",
            "other notin (db,web)",
        ] {
            assert!(selects(yes, ""), "{yes}");
        }
        for no in [
            "app=db",
            "app!=web",
            "other=",
            "other",
            "!app",
            "app in (db)",
            "app notin (db,web)",
            "app,other",
        ] {
            assert!(!selects(no, ""), "{no}");
        }
    }

    #[test]
    fn fields_are_compared() {
        for yes in [
            "metadata.name=a",
            "metadata.name==a",
            "metadata.name!=b",
            "spec.clusterIP=",
        ] {
            assert!(selects("", yes), "{yes}");
        }
        for no in [
            "metadata.name=b",
            "spec.clusterIP!=",
            "metadata.name=a,spec.type=x",
        ] {
            assert!(!selects("", no), "{no}");
        }
    }

    #[test]
    fn what_can_t_be_read_or_selected_by_is_a_bad_request() {
        let services = Resource::named("services").unwrap();
        for labels in ["a b", "a in (b", "a foo (b)", "=b", "a,,b", "!"] {
            let error = Selector::parse(services, labels, "").unwrap_err();
            assert_eq!(error.code, 400, "{labels}");
        }
        let error = Selector::parse(services, "", "spec.nodeName=a").unwrap_err();
        assert_eq!(error.code, 400);
        let message = error.to_value()["message"].to_string();
        assert!(
            message.contains("field label not supported: spec.nodeName"),
            "{message}"
        );
    }
}
