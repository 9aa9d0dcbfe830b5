//! The files that tell clients where the server is and how to get in.

use anyhow::{Context, Result};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::json;
use std::fs;
use std::path::Path;

/// Writes a kubeconfig; its YAML is JSON.
pub(super) fn write_kubeconfig(
    path: &Path,
    url: &str,
    ca_pem: Option<&str>,
    token: Option<&str>,
) -> Result<()> {
    let mut cluster = json!({"server": url});
    if let Some(pem) = ca_pem {
        cluster["certificate-authority-data"] = BASE64_STANDARD.encode(pem).into();
    }
    let user = token.map_or_else(|| json!({}), |token| json!({"token": token}));
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "test", "cluster": cluster}],
        "users": [{"name": "test", "user": user}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        "current-context": "test",
    });
    write(path, &format!("{config:#}\n"))
}

/// Writes `token`, `ca.crt` and `namespace`.
pub(super) fn write_service_account(
    folder: &Path,
    ca_pem: Option<&str>,
    token: Option<&str>,
) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("can't make {}", folder.display()))?;
    write(&folder.join("namespace"), "kube-system")?;
    write(&folder.join("token"), token.unwrap_or_default())?;
    write(&folder.join("ca.crt"), ca_pem.unwrap_or_default())
}

/// Replaces a file in one step: a client may read it at any time.
fn write(path: &Path, text: &str) -> Result<()> {
    let draft = path.with_extension("draft");
    fs::write(&draft, text)
        .and_then(|()| fs::rename(&draft, path))
        .with_context(|| format!("can't write {}", path.display()))
}
