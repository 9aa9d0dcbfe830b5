//! What Services are called.

use crate::source::{Kind, ObjectKey};
use std::fmt;

/// Namespace and name of a Service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceName {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl ServiceName {
    /// From namespace and name.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }

    /// The key of the Service's object.
    pub fn key(&self) -> ObjectKey {
        ObjectKey {
            kind: Kind::Service,
            namespace: self.namespace.clone(),
            name: self.name.clone(),
        }
    }

    pub(super) fn of(key: &ObjectKey) -> Self {
        Self::new(&key.namespace, &key.name)
    }

    /// Whether it is the Service behind which the API servers are.
    pub(super) fn is_of_api_servers(&self) -> bool {
        self.namespace == "default" && self.name == "kubernetes"
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}
