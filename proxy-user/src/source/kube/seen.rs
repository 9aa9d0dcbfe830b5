//! Objects as the API server sends them, each read on its own: one that can't be read spoils no list.

use crate::source::{Kind, Object, ObjectKey};
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::ServiceCIDR;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt::Debug;

/// A kind that is watched.
pub(super) trait Watched:
    Resource<DynamicType = ()> + DeserializeOwned + Clone + Debug + Send + 'static
{
    /// Which one.
    const KIND: Kind;

    /// As an object of any kind.
    fn into_object(self) -> Object;
}

macro_rules! watched {
    ($($name:ident => $kind:ident),* $(,)?) => {
        $(impl Watched for $name {
            const KIND: Kind = Kind::$kind;

            fn into_object(self) -> Object {
                Object::$kind(Box::new(self))
            }
        })*
    };
}

watched!(
    Service => Service,
    EndpointSlice => EndpointSlice,
    Node => Node,
    Pod => Pod,
    ServiceCIDR => ServiceCidr,
);

/// An object: its metadata, and either all that matters of it or what is wrong with it.
#[derive(Clone, Debug)]
pub(super) struct Seen<K> {
    metadata: ObjectMeta,
    read: Result<K, String>,
}

impl<K: Watched> Seen<K> {
    pub(super) fn key(&self) -> ObjectKey {
        ObjectKey {
            kind: K::KIND,
            namespace: self.metadata.namespace.clone().unwrap_or_default(),
            name: self.metadata.name.clone().unwrap_or_default(),
        }
    }

    /// When it was changed; later is greater (KEP-5504). 0 if that can't be told.
    pub(super) fn version(&self) -> u64 {
        let version = self.metadata.resource_version.as_deref();
        version
            .and_then(|text| text.parse().ok())
            .unwrap_or_default()
    }

    /// The object without what nothing reads.
    pub(super) fn into_object(self) -> Result<Object, String> {
        self.read.map(|object| object.into_object().trimmed())
    }
}

/// What of an object must be readable: else nobody knows which one it is.
#[derive(Deserialize)]
struct Envelope {
    #[serde(default)]
    metadata: Name,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Name {
    name: Option<String>,
    namespace: Option<String>,
    resource_version: Option<String>,
}

impl<'de, K: Watched> Deserialize<'de> for Seen<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Box::<RawValue>::deserialize(deserializer)?;
        match serde_json::from_str::<K>(text.get()) {
            Ok(object) => Ok(Self {
                metadata: identity(object.meta()),
                read: match object.meta().name {
                    Some(_) => Ok(object),
                    None => Err("metadata.name: missing".to_owned()),
                },
            }),
            Err(_) => unreadable(text.get()).map_err(serde::de::Error::custom),
        }
    }
}

fn unreadable<K: Watched>(text: &str) -> serde_json::Result<Seen<K>> {
    let envelope: Envelope = serde_json::from_str(text)?;
    let Name {
        name,
        namespace,
        resource_version,
    } = envelope.metadata;
    Ok(Seen {
        metadata: ObjectMeta {
            name,
            namespace,
            resource_version,
            ..ObjectMeta::default()
        },
        read: Err(what_is_wrong::<K>(text)),
    })
}

/// Reads it once more, with an eye on the path.
fn what_is_wrong<K: Watched>(text: &str) -> String {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    match serde_path_to_error::deserialize::<_, K>(&mut deserializer) {
        Ok(_) => "not read".to_owned(),
        Err(error) => format!("{}: {}", error.path(), error.inner()),
    }
}

fn identity(metadata: &ObjectMeta) -> ObjectMeta {
    ObjectMeta {
        name: metadata.name.clone(),
        namespace: metadata.namespace.clone(),
        resource_version: metadata.resource_version.clone(),
        ..ObjectMeta::default()
    }
}

impl<K: Watched> Resource for Seen<K> {
    type DynamicType = ();
    type Scope = K::Scope;

    fn kind((): &()) -> Cow<'_, str> {
        K::kind(&())
    }

    fn group((): &()) -> Cow<'_, str> {
        K::group(&())
    }

    fn version((): &()) -> Cow<'_, str> {
        K::version(&())
    }

    fn plural((): &()) -> Cow<'_, str> {
        K::plural(&())
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_that_cannot_be_read_is_named_with_its_field() {
        let text = r#"[{"metadata": {"namespace": "a", "name": "b", "resourceVersion": "7"}, "spec": {"ports": "none"}},
                       {"metadata": {"namespace": "a", "name": "c", "managedFields": []}, "spec": {"clusterIP": "10.96.0.1"}}]"#;
        let mut seen: Vec<Seen<Service>> = serde_json::from_str(text).unwrap();
        let good = seen.pop().unwrap();
        assert_eq!(good.key().to_string(), "Service a/c");
        assert!(
            good.into_object()
                .unwrap()
                .metadata()
                .managed_fields
                .is_none()
        );
        let bad = seen.pop().unwrap();
        assert_eq!(
            (bad.key().to_string(), bad.version()),
            ("Service a/b".to_owned(), 7)
        );
        let wrong = bad.into_object().unwrap_err();
        assert!(
            wrong.starts_with("spec.ports: invalid type: string"),
            "{wrong}"
        );
        for strange in ["[]", "{}", r#"{"metadata": {"namespace": "a"}}"#] {
            let seen: Seen<Service> = serde_json::from_str(strange).unwrap();
            assert!(seen.into_object().is_err(), "{strange}");
        }
    }
}
