//! What a look adds to the status page, where a criterion asks for it.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use tokio::sync::watch;

use super::files::aside;
use super::gridmanager::Certificates;
use super::spool;
use super::{ManagerKey, NodeDir, Results};
use crate::health::{Canary, Facts, Moment};

/// What is looked at beside the status page.
#[derive(Debug, Default)]
pub struct Extras {
    canaries: Option<watch::Receiver<Results>>,
    awaited: Vec<Canary>,
    spool: Option<PathBuf>,
    certificates: Option<Arc<Mutex<Certificates>>>,
}

impl Extras {
    /// Adds what canaries come to. The first look waits a while for these.
    #[must_use]
    pub fn canaries(self, results: watch::Receiver<Results>, awaited: Vec<Canary>) -> Self {
        Self { canaries: Some(results), awaited, ..self }
    }

    /// Adds the room in the node's temporary directory.
    #[must_use]
    pub fn spool(self, dir: &NodeDir) -> Self {
        Self { spool: Some(dir.tempdir.clone()), ..self }
    }

    /// Adds which servers these grid managers certify.
    #[must_use]
    pub fn certificates(self, dir: &NodeDir, keys: Vec<ManagerKey>) -> Self {
        let certificates = Certificates::new(&dir.path, keys);
        Self { certificates: Some(Arc::new(Mutex::new(certificates))), ..self }
    }

    /// Waits, once, until every awaited canary has ended.
    pub(super) async fn first_results(&mut self) {
        let awaited = std::mem::take(&mut self.awaited);
        if let Some(results) = &mut self.canaries {
            // Without anybody who lets them fly there is nothing to wait for.
            let _ = results.wait_for(|results| results.cover(&awaited)).await;
        }
    }

    pub(super) async fn add_to(&self, facts: &mut Facts, now: Moment) {
        if let Some(results) = &self.canaries {
            facts.canaries = results.borrow().facts(now);
        }
        if self.spool.is_none() && self.certificates.is_none() {
            return;
        }
        let (dir, certificates) = (self.spool.clone(), self.certificates.clone());
        let read = aside(move || {
            let free = dir.and_then(|dir| spool::free(&dir));
            let valid = |c: Arc<Mutex<Certificates>>| c.lock().ok()?.valid(SystemTime::now());
            (free, certificates.and_then(valid))
        });
        (facts.spool, facts.certified) = read.await.unwrap_or_default();
    }
}
