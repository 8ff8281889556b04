//! A function for each thing that is read and that others write: any bytes may come in, and what does not hold panics.
//!
//! They hold a parser to more than that it ends: what it must keep, must not show, and how much it may take. `fuzz/`
//! searches for bytes that break them, and what it has kept in `fuzz/corpus` is fed to them by each run of the tests.
//! They stand beside what they try, so that nothing of it is shown for their sake.

use crate::{config, daemon, fleet, history, overrides, serve, tahoe};

/// Takes any bytes.
pub type Target = fn(&[u8]);

/// All of them, by name.
pub const TARGETS: &[(&str, Target)] = &[
    ("admin_request", overrides::fuzz::admin_request),
    ("agent_question", serve::fuzz::agent_question),
    ("caps", tahoe::fuzz::caps),
    ("config", config::fuzz::config),
    ("fleet", fleet::fuzz::fleet),
    ("fleet_events", fleet::fuzz::fleet_events),
    ("gate_answer", serve::gate::fuzz::gate_answer),
    ("gate_path", serve::gate::fuzz::gate_path),
    ("gate_request", serve::gate::fuzz::gate_request),
    ("grid_manager", tahoe::fuzz::grid_manager),
    ("grpc_message", serve::grpc::fuzz::grpc_message),
    ("history_lines", history::fuzz::history_lines),
    ("http_request", serve::fuzz::http_request),
    ("order_file", overrides::fuzz::order_file),
    ("order_store", overrides::fuzz::order_store),
    ("proxy_protocol", serve::gate::fuzz::proxy_protocol),
    ("status_page", tahoe::fuzz::status_page),
    ("tahoe_cfg", tahoe::fuzz::tahoe_cfg),
    ("verdict_memory", daemon::fuzz::verdict_memory),
    ("welcome_page", tahoe::fuzz::welcome_page),
];

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    #[test]
    fn every_target_takes_what_is_kept_for_it() {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
        let kept = fs::read_dir(&corpus).unwrap().count();
        assert_eq!(kept, TARGETS.len(), "a folder for each target, and no other one");
        for (name, target) in TARGETS {
            let files: Vec<_> = fs::read_dir(corpus.join(name)).unwrap().collect();
            assert!(!files.is_empty(), "{name}");
            for file in files {
                let path = file.unwrap().path();
                // Shown where one fails.
                println!("{}", path.display());
                target(&fs::read(path).unwrap());
            }
        }
    }
}
