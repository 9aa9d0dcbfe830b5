//! The text of a file, as objects. Errors know line and field.
//!
//! Documents are read twice: first their kind, then straight into the type of that kind, so that
//! positions are those of the text.

use crate::source::{Kind, Object};
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_path_to_error::Track;
use serde_saphyr::{DuplicateKeyPolicy, Options};
use std::fmt;
use std::marker::PhantomData;

/// What a file holds.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Parsed {
    /// In the order of the file.
    pub(super) objects: Vec<Object>,
    /// How many objects of other kinds there are.
    pub(super) ignored: usize,
}

/// Why a file can't be read, in the form "line: field: what".
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Broken {
    /// From 1 on.
    pub(super) line: u64,
    /// Empty if it is no field in particular.
    pub(super) field: String,
    pub(super) what: String,
}

/// Reads all documents of a file, YAML or JSON.
pub(super) fn parse(bytes: &[u8]) -> Result<Parsed, Broken> {
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let good = &bytes[..error.valid_up_to()];
        let lines = good.iter().filter(|byte| **byte == b'\n').count();
        Broken::new(lines as u64 + 1, "", "not UTF-8")
    })?;
    let mut parsed = Parsed::default();
    for (first_line, document) in documents(text) {
        let done = parse_document(document, &mut parsed);
        done.map_err(|broken| Broken {
            line: broken.line + first_line,
            ..broken
        })?;
    }
    Ok(parsed)
}

/// The documents of a stream, each with the number of lines before it.
///
/// A line that begins with `---` is always a marker: YAML forbids it inside of any scalar.
fn documents(text: &str) -> Vec<(u64, &str)> {
    let mut documents = Vec::new();
    let (mut start, mut first_line) = (0, 0);
    let mut offset = 0;
    for (line, content) in (0..).zip(text.split_inclusive('\n')) {
        if offset > start && is_marker(content) {
            documents.push((first_line, &text[start..offset]));
            (start, first_line) = (offset, line);
        }
        offset += content.len();
    }
    documents.push((first_line, &text[start..]));
    documents
}

fn is_marker(line: &str) -> bool {
    let rest = line.strip_prefix("---");
    rest.is_some_and(|rest| rest.trim_end().is_empty() || rest.starts_with([' ', '\t']))
}

fn parse_document(text: &str, parsed: &mut Parsed) -> Result<(), Broken> {
    let Some(head) = read(text, PhantomData::<Option<Head>>)? else {
        return Ok(());
    };
    match head.shape(text)? {
        Shape::One(kind) => parsed.push("", read(text, OfKind(kind))?),
        Shape::Many(kinds) => {
            let objects = read(text, ListOf(&kinds))?;
            for (index, object) in objects {
                parsed.push(&format!("items[{index}]."), object)?;
            }
            parsed.ignored += kinds.iter().filter(|kind| kind.is_none()).count();
            Ok(())
        }
        Shape::Other => {
            parsed.ignored += 1;
            Ok(())
        }
    }
}

impl Parsed {
    fn push(&mut self, path: &str, object: Object) -> Result<(), Broken> {
        let mut object = object.trimmed();
        if object
            .metadata()
            .name
            .as_deref()
            .unwrap_or_default()
            .is_empty()
        {
            return Err(Broken::new(1, format!("{path}metadata.name"), "missing"));
        }
        let namespaced = object.kind().is_namespaced();
        let namespace = &mut object.metadata_mut().namespace;
        if namespaced && namespace.as_deref().unwrap_or_default().is_empty() {
            *namespace = Some("default".to_owned());
        }
        self.objects.push(object);
        Ok(())
    }
}

impl Broken {
    fn new(line: u64, field: impl Into<String>, what: impl Into<String>) -> Self {
        Self {
            line,
            field: field.into(),
            what: what.into(),
        }
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.line)?;
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        f.write_str(&self.what)
    }
}

/// Reads a document; adds line and field to the error.
fn read<S: for<'de> DeserializeSeed<'de>>(
    text: &str,
    seed: S,
) -> Result<<S as DeserializeSeed<'_>>::Value, Broken> {
    let mut track = Track::new();
    let read = serde_saphyr::with_deserializer_from_str_with_options(text, options(), |yaml| {
        seed.deserialize(serde_path_to_error::Deserializer::new(yaml, &mut track))
    });
    read.map_err(|error| {
        let line = error.location().map_or(1, |location| location.line());
        let path = track.path().to_string();
        // The tracker writes "?" for what it has not got to know.
        let field = path.trim_end_matches(['.', '?']);
        let what = error.without_snippet().to_string();
        // The position is said in front, and counted from the start of the file there.
        let what = what
            .rsplit_once(" at line ")
            .map_or(&*what, |(what, _)| what);
        Broken::new(line, field, format!("{what}{}", quoted(text, line)))
    })
}

/// The line in question, if it is short enough to be of help.
fn quoted(text: &str, line: u64) -> String {
    let index = usize::try_from(line)
        .unwrap_or(usize::MAX)
        .saturating_sub(1);
    let content = text.lines().nth(index).unwrap_or_default().trim();
    match content.len() {
        1..=80 => format!(", in {content:?}"),
        _ => String::new(),
    }
}

/// The library's limits guard against hostile input; a dump of a whole cluster must fit.
fn options() -> Options {
    serde_saphyr::options! {
        with_snippet: false,
        duplicate_keys: DuplicateKeyPolicy::Error,
        budget: serde_saphyr::budget! {
            max_events: usize::MAX,
            max_nodes: usize::MAX,
            max_total_scalar_bytes: usize::MAX,
        },
    }
}

#[derive(Deserialize)]
struct Head {
    #[serde(rename = "apiVersion")]
    api_version: Option<String>,
    kind: Option<String>,
}

#[derive(Deserialize)]
struct Heads {
    #[serde(default)]
    items: Option<Vec<Head>>,
}

/// What to read a document as.
enum Shape {
    One(Kind),
    /// A list, with the kinds of its items.
    Many(Vec<Option<Kind>>),
    Other,
}

impl Head {
    fn shape(&self, text: &str) -> Result<Shape, Broken> {
        let missing = |field| Broken::new(1, field, "missing");
        let api_version = self.api_version.as_deref();
        let api_version = api_version.ok_or_else(|| missing("apiVersion"))?;
        let kind = self.kind.as_deref().ok_or_else(|| missing("kind"))?;
        if let Some(kind) = known(api_version, kind) {
            return Ok(Shape::One(kind));
        }
        let item = kind
            .strip_suffix("List")
            .and_then(|item| known(api_version, item));
        if item.is_none() && (api_version, kind) != ("v1", "List") {
            return Ok(Shape::Other);
        }
        let heads = read(text, PhantomData::<Heads>)?;
        let kinds = heads.items.into_iter().flatten();
        // Items of a typed list need not repeat their kind.
        Ok(Shape::Many(
            kinds.map(|head| item.or(head.known())).collect(),
        ))
    }

    fn known(&self) -> Option<Kind> {
        known(self.api_version.as_deref()?, self.kind.as_deref()?)
    }
}

fn known(api_version: &str, kind: &str) -> Option<Kind> {
    match (api_version, kind) {
        ("v1", "Service") => Some(Kind::Service),
        ("discovery.k8s.io/v1", "EndpointSlice") => Some(Kind::EndpointSlice),
        ("v1", "Node") => Some(Kind::Node),
        ("v1", "Pod") => Some(Kind::Pod),
        ("networking.k8s.io/v1", "ServiceCIDR") => Some(Kind::ServiceCidr),
        _ => None,
    }
}

struct OfKind(Kind);

impl<'de> DeserializeSeed<'de> for OfKind {
    type Value = Object;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Object, D::Error> {
        Ok(match self.0 {
            Kind::Service => Object::Service(Box::deserialize(from)?),
            Kind::EndpointSlice => Object::EndpointSlice(Box::deserialize(from)?),
            Kind::Node => Object::Node(Box::deserialize(from)?),
            Kind::Pod => Object::Pod(Box::deserialize(from)?),
            Kind::ServiceCidr => Object::ServiceCidr(Box::deserialize(from)?),
        })
    }
}

/// The list object; yields its items with their index.
struct ListOf<'a>(&'a [Option<Kind>]);

/// The array inside.
struct Items<'a>(&'a [Option<Kind>]);

impl<'de> DeserializeSeed<'de> for ListOf<'_> {
    type Value = Vec<(usize, Object)>;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        from.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for ListOf<'_> {
    type Value = Vec<(usize, Object)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of objects")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
        let mut objects = Vec::new();
        while let Some(key) = map.next_key::<String>()? {
            // `items: null` has been read as no items.
            if key == "items" && !self.0.is_empty() {
                objects = map.next_value_seed(Items(self.0))?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(objects)
    }
}

impl<'de> DeserializeSeed<'de> for Items<'_> {
    type Value = Vec<(usize, Object)>;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        from.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Items<'_> {
    type Value = Vec<(usize, Object)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of objects")
    }

    fn visit_seq<S: SeqAccess<'de>>(self, mut seq: S) -> Result<Self::Value, S::Error> {
        let mut objects = Vec::new();
        for (index, kind) in self.0.iter().enumerate() {
            match kind {
                Some(kind) => {
                    let object = seq.next_element_seed(OfKind(*kind))?;
                    objects.extend(object.map(|object| (index, object)));
                }
                None => {
                    seq.next_element::<IgnoredAny>()?;
                }
            }
        }
        // Some formats insist on being read to the end.
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(objects)
    }
}

#[cfg(test)]
mod tests;
