//! The file that Envoy watches: a discovery response in JSON, replaced by rename, since Envoy notices
//! nothing else, and only when something in it changed.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::config::Fleet;
use super::rules::Ruling;

/// One version of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Version {
    /// Tells it from others: the same content has the same one.
    pub(super) info: String,
    text: String,
}

impl Version {
    /// What Envoy is to know of these nodes, each with what becomes of it.
    pub(super) fn of(fleet: &Fleet, rulings: &[Ruling]) -> Self {
        let endpoints: Vec<Value> = fleet
            .nodes
            .iter()
            .zip(rulings)
            .map(|(node, ruling)| {
                let (address, port) = (node.address.ip().to_string(), node.address.port());
                json!({
                    "endpoint": {"address": {"socket_address": {"address": address, "port_value": port}}},
                    "health_status": ruling.health,
                    "load_balancing_weight": ruling.weight,
                    "metadata": {"filter_metadata": {"envoy.lb": {"read": ruling.read, "write": ruling.write}}},
                })
            })
            .collect();
        let assignment = json!({
            "@type": "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
            "cluster_name": fleet.cluster,
            "endpoints": [{"lb_endpoints": endpoints}],
        });
        let mut hasher = DefaultHasher::new();
        assignment.to_string().hash(&mut hasher);
        let info = format!("{:016x}", hasher.finish());
        let response = json!({"version_info": info, "resources": [assignment]});
        let text = serde_json::to_string_pretty(&response).unwrap_or_default() + "\n";
        Self { info, text }
    }

    /// Puts it in the place of what stands at `path`. It is not synced: after a power cut the next
    /// start writes it anew, before Envoy is told to start.
    ///
    /// # Errors
    ///
    /// When the folder cannot be written to.
    pub(super) fn write(&self, path: &Path) -> io::Result<()> {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".{}", std::process::id()));
        let new = PathBuf::from(name);
        let placed = std::fs::write(&new, &self.text)
            // Envoy is often another user.
            .and_then(|()| std::fs::set_permissions(&new, PermissionsExt::from_mode(0o644)))
            .and_then(|()| std::fs::rename(&new, path));
        if placed.is_err() {
            let _ = std::fs::remove_file(&new);
        }
        placed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::rules::{Known, rule};

    fn fleet() -> Fleet {
        let text = "cluster: c\noutput: /o\nnodes: {a: {address: '10.0.0.1:1', sidecar: 'http://h:1'}, b: {address: '[::1]:2', sidecar: 'http://h:2'}}\n";
        Fleet::parse("f", text).unwrap()
    }

    #[test]
    fn the_same_content_is_the_same_version() {
        let fleet = fleet();
        let rulings = rule(&[Known::default(), Known::default()], "write", 0);
        let version = Version::of(&fleet, &rulings);
        assert_eq!(version, Version::of(&fleet, &rulings));
        let value: Value = serde_json::from_str(&version.text).unwrap();
        assert_eq!(value["version_info"], version.info);
        let endpoint = &value["resources"][0]["endpoints"][0]["lb_endpoints"][1];
        assert_eq!(endpoint["endpoint"]["address"]["socket_address"]["address"], "::1");
        assert_eq!(
            (&endpoint["health_status"], &endpoint["load_balancing_weight"]),
            (&json!("UNHEALTHY"), &json!(100))
        );
        let other = [Ruling { write: true, ..rulings[0] }, rulings[1]];
        assert_ne!(version.info, Version::of(&fleet, &other).info);
    }

    #[test]
    fn it_is_replaced_as_a_whole_and_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("eds.json");
        let version = Version::of(&fleet(), &[]);
        version.write(&path).unwrap();
        version.write(&path).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), version.text);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o644);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        std::fs::create_dir(dir.path().join("d")).unwrap();
        assert!(version.write(&dir.path().join("d")).is_err());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
    }
}
