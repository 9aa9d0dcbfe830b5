//! A Kubernetes API server for tests, demo and benchmarks: real HTTP lists and watches over objects
//! in memory, and faults on demand.
//!
//! It behaves as kube-apiserver 1.36 with etcd does wherever a client that lists and watches can see
//! it, errors included, and is no kinder: versions are of one counter for all kinds, history can be
//! compacted, items of lists have no kind, tokens expire. It checks no object against its schema.
//!
//! ```no_run
//! use xtask::api::{ApiServer, Effect, Fault, Options};
//! # fn main() -> anyhow::Result<()> {
//! let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
//! let server = ApiServer::start(listener, Options::default())?;
//! server.write_kubeconfig("/tmp/kubeconfig".as_ref())?;
//! server.apply(serde_json::json!({
//!     "apiVersion": "v1", "kind": "Node", "metadata": {"name": "node1"},
//! }))?;
//! server.fault(Fault::new(Effect::Cut).on("services").watches().times(1));
//! # Ok(())
//! # }
//! ```

mod access;
pub mod command;
mod discovery;
mod dispatch;
mod event;
mod fault;
mod list;
mod metadata;
mod object;
mod options;
mod patch;
mod query;
mod resource;
mod selector;
mod serve;
mod shared;
mod status;
mod store;
mod stream;
mod tls;
mod watch;
mod write;

pub use fault::{Effect, Fault};
pub use options::Options;

use anyhow::{Context, Result, bail};
use resource::{Resource, key};
use serde_json::Value;
use shared::Shared;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Instant;
use tls::Identity;
use tokio::runtime;

/// Who the server takes the bearer of its token for.
pub const USER: &str = "system:serviceaccount:kube-system:ferrule";

/// A request that came in, whatever became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The HTTP method.
    pub method: String,
    /// The path.
    pub path: String,
    /// The query, as it was sent; empty if there was none.
    pub query: String,
    /// The header `User-Agent`; empty if there was none.
    pub user_agent: String,
    /// When it came.
    pub at: Instant,
}

impl Request {
    /// Whether it asks for a watch.
    #[must_use]
    pub fn is_watch(&self) -> bool {
        let mut parameters = self.query.split('&');
        parameters.any(|it| matches!(it, "watch=1" | "watch=true"))
    }
}

/// A running server; dropping it stops it and closes all connections.
#[derive(Debug)]
pub struct ApiServer {
    shared: Arc<Shared>,
    address: SocketAddr,
    ca_pem: Option<String>,
    thread: Option<JoinHandle<()>>,
}

impl ApiServer {
    /// Serves on a listener, in whatever network namespace that is.
    ///
    /// # Errors
    /// When the certificate or the server's thread can't be made.
    pub fn start(listener: TcpListener, options: Options) -> Result<Self> {
        let address = listener.local_addr()?;
        let mut addresses = options.addresses.clone();
        addresses.extend([address.ip(), [127, 0, 0, 1].into(), [10, 96, 0, 1].into()]);
        let identity = options.tls.then(|| tls::identity(&addresses)).transpose()?;
        let (acceptor, ca_pem) = match identity {
            Some(Identity { acceptor, ca_pem }) => (Some(acceptor), Some(ca_pem)),
            None => (None, None),
        };
        let shared = Arc::new(Shared::new(options));
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let serve = serve::serve(Arc::clone(&shared), listener, acceptor);
        let work = move || {
            if let Err(error) = runtime.block_on(serve) {
                eprintln!("test API server: {error:#}");
            }
        };
        let thread = thread::Builder::new()
            .name("api-server".to_owned())
            .spawn(work)?;
        Ok(Self {
            shared,
            address,
            ca_pem,
            thread: Some(thread),
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where clients find it.
    #[must_use]
    pub fn url(&self) -> String {
        self.url_at(self.host())
    }

    /// Where clients find it that reach it by this address.
    #[must_use]
    pub fn url_at(&self, host: IpAddr) -> String {
        let scheme = if self.ca_pem.is_some() {
            "https"
        } else {
            "http"
        };
        format!("{scheme}://{}", SocketAddr::new(host, self.address.port()))
    }

    fn host(&self) -> IpAddr {
        let own = match self.address.ip() {
            ip if ip.is_unspecified() => [127, 0, 0, 1].into(),
            ip => ip,
        };
        self.shared
            .options
            .addresses
            .first()
            .copied()
            .unwrap_or(own)
    }

    /// Writes a kubeconfig with the server's URL, its authority and the token it wants.
    ///
    /// # Errors
    /// When the file can't be written.
    pub fn write_kubeconfig(&self, path: &Path) -> Result<()> {
        let token = self.shared.state().token.clone();
        access::write_kubeconfig(path, &self.url(), self.ca_pem.as_deref(), token.as_deref())
    }

    /// Writes what a pod finds of its service account into a folder, which it makes.
    ///
    /// # Errors
    /// When a file can't be written.
    pub fn write_service_account(&self, folder: &Path) -> Result<()> {
        let token = self.shared.state().token.clone();
        access::write_service_account(folder, self.ca_pem.as_deref(), token.as_deref())
    }

    /// Creates or updates an object. One that is stored already like this stays as it is.
    ///
    /// # Errors
    /// When the object has no name, or a kind that the server does not know.
    pub fn apply(&self, object: Value) -> Result<()> {
        self.apply_all([object])
    }

    /// As [`ApiServer::apply`] for many objects; watches hear of them after the last.
    ///
    /// # Errors
    /// As [`ApiServer::apply`]; the objects before are stored then.
    pub fn apply_all(&self, objects: impl IntoIterator<Item = Value>) -> Result<()> {
        let managed = self.shared.options.managed_fields;
        self.shared.change(|store| {
            for object in objects {
                let (resource, object) = known(object)?;
                write::put(store, resource, object, managed);
            }
            Ok(())
        })
    }

    /// Deletes an object; `namespace` is empty for kinds without. Returns whether it was there.
    ///
    /// # Errors
    /// When the server does not know the kind.
    pub fn delete(&self, kind: &str, namespace: &str, name: &str) -> Result<bool> {
        let resource = Resource::named(kind).with_context(|| format!("no kind {kind}"))?;
        let namespace = Some(namespace).filter(|_| resource.is_namespaced);
        let key = key(namespace, name);
        let removed = self.shared.change(|store| store.remove(resource, &key));
        Ok(removed.is_some())
    }

    /// Deletes all objects, one by one.
    pub fn clear(&self) {
        self.shared.change(|store| {
            for resource in Resource::all() {
                for key in store.keys(resource) {
                    store.remove(resource, &key);
                }
            }
        });
    }

    /// The newest version of anything.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.shared.state().store.revision()
    }

    /// Everything of a kind, as it is now.
    ///
    /// # Errors
    /// When the server does not know the kind.
    pub fn objects(&self, kind: &str) -> Result<Vec<Value>> {
        let resource = Resource::named(kind).with_context(|| format!("no kind {kind}"))?;
        Ok(self.all(resource))
    }

    /// The Events that clients have posted, of both groups.
    #[must_use]
    pub fn events(&self) -> Vec<Value> {
        let both = Resource::all().filter(|resource| resource.plural == "events");
        both.flat_map(|resource| self.all(resource)).collect()
    }

    fn all(&self, resource: Resource) -> Vec<Value> {
        let state = self.shared.state();
        let (target, selector) = watch::everything(resource);
        let page = (state.store.revision(), "", usize::MAX);
        let page = state.store.page(&target, &selector, page);
        page.objects.iter().map(|it| it.to_map().into()).collect()
    }

    /// All requests so far.
    #[must_use]
    pub fn requests(&self) -> Vec<Request> {
        self.shared.state().requests.clone()
    }

    /// How many watches of a kind are open, by its plural.
    #[must_use]
    pub fn open_watches(&self, plural: &str) -> usize {
        let state = self.shared.state();
        state.watches.get(plural).copied().unwrap_or(0)
    }

    /// Switches a fault on; of several that concern a request the first one counts.
    pub fn fault(&self, fault: Fault) {
        self.shared.state().faults.add(fault);
    }

    /// Refuses connections and resets those that are open, until healed.
    pub fn outage(&self) {
        self.shared.outage.send_replace(true);
    }

    /// Ends the outage and all faults. What was stalled or silenced stays so: such a connection is
    /// lost, and its client has to find out.
    pub fn heal(&self) {
        self.shared.state().faults.clear();
        self.shared.outage.send_replace(false);
    }

    /// Ends all open watches in order.
    pub fn close_watches(&self) {
        self.shared.closings.send_modify(|count| *count += 1);
    }

    /// Forgets all history: who resumes a watch or a list from a version before this gets 410. Open
    /// watches go on.
    pub fn compact(&self) {
        self.shared.state().store.compact();
    }

    /// Wants another token from now on; whoever comes with the old one gets 401.
    pub fn set_token(&self, token: &str) {
        self.shared.state().token = Some(token.to_owned());
    }

    /// Refuses these kinds, by their plurals, as when a role lacks them; none refuses nothing.
    pub fn forbid(&self, plurals: &[&str]) {
        let plurals = plurals.iter().map(|&plural| plural.to_owned());
        self.shared.state().forbidden = plurals.collect();
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        self.shared.stop.send_replace(true);
        if let Some(thread) = self.thread.take() {
            // A panic in there has been printed; dropping must not add another.
            let _ = thread.join();
        }
    }
}

/// An object's kind, and the object with what it needs to be found.
fn known(object: Value) -> Result<(Resource, serde_json::Map<String, Value>)> {
    let text = |field: &str| object[field].as_str().unwrap_or_default();
    let (version, kind) = (text("apiVersion"), text("kind"));
    let resource = Resource::of_object(version, kind);
    let resource = resource.with_context(|| format!("no kind {version} {kind}"))?;
    let Value::Object(mut object) = object else {
        bail!("an object is expected");
    };
    let metadata = object.get_mut("metadata").and_then(Value::as_object_mut);
    let kind = resource.kind;
    let metadata = metadata.with_context(|| format!("{kind} without metadata"))?;
    if !metadata.get("name").is_some_and(Value::is_string) {
        bail!("{kind} without metadata.name");
    }
    if resource.is_namespaced {
        metadata.entry("namespace").or_insert("default".into());
    }
    Ok((resource, object))
}

#[cfg(test)]
mod tests;
