//! Services and their criteria: what is built in, and what the file says merged into it.

use std::collections::BTreeMap;
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::Path;
use std::time::Duration;

use super::super::file::{self, Blessed, Criteria, Introducers, Latency, Servers};
use super::super::units::{OrOff, Size, Span, Whole};
use super::super::{FILE_LIMIT, Service, read};
use super::{Base, DAY, NOT_A_WORD, Resolver, is_word, show_damping};
use crate::health::{Criterion, Else, Floor, Rule, Rules, Weight};
use crate::tahoe::DEFAULT_SHARES;

/// The services that exist without being named.
pub(super) const READ: &str = "read";
pub(super) const WRITE: &str = "write";

impl Resolver<'_> {
    pub(super) fn services(
        &mut self,
        file: &BTreeMap<String, OrOff<file::Service>>,
        base: &Base,
    ) -> Vec<Service> {
        let mut named = file.clone();
        for builtin in [READ, WRITE] {
            named.entry(builtin.to_owned()).or_insert_with(|| OrOff::On(file::Service::default()));
        }
        let mut services = Vec::new();
        for (name, service) in named {
            if !is_word(&name) {
                self.problems.add(&format!("services.{name}"), NOT_A_WORD);
                continue;
            }
            match service {
                OrOff::Off => {
                    self.effective.services.insert(name, OrOff::Off);
                }
                OrOff::On(service) => services.push(self.service(&name, &service, base)),
            }
        }
        services
    }

    fn service(&mut self, name: &str, file: &file::Service, base: &Base) -> Service {
        let key = format!("services.{name}");
        let mut shown = file.clone();
        let criteria = self.criteria(name, &file.criteria, base, &mut shown.criteria);
        let degraded =
            self.whole(&format!("{key}.degraded_weight"), file.degraded_weight, 50, 1..=100);
        let maxconn = file.maxconn.and_then(|maxconn| {
            let maxconn = self.whole(&format!("{key}.maxconn"), Some(maxconn), 1, 1..=10_000_000);
            NonZeroU32::new(u32::try_from(maxconn).ok()?)
        });
        let damping = match &file.damping {
            Some(damping) => self.damping(&format!("{key}.damping"), damping, base.damping),
            None => base.damping,
        };
        let ramp =
            self.span(&format!("{key}.ramp"), file.ramp, Span(base.ramp), Duration::ZERO..=DAY);
        let counted =
            criteria.iter().any(|criterion| matches!(criterion.rule, Rule::Servers { .. }));
        let (weighing, shown_weight) = self.weighing(&key, file.weight.as_ref(), counted);
        shown.weight = shown_weight;
        shown.degraded_weight = Some(Whole(degraded));
        shown.damping = file.damping.as_ref().map(|_| show_damping(damping));
        shown.ramp = file.ramp.map(|_| Span(ramp));
        self.effective.services.insert(name.to_owned(), OrOff::On(shown));
        Service {
            name: name.into(),
            rules: Rules {
                criteria,
                damping,
                ramp,
                weighing,
                degraded_weight: Weight::clamped(degraded),
                freshness: base.freshness,
            },
            maxconn,
        }
    }

    fn criteria(
        &mut self,
        name: &str,
        file: &Criteria,
        base: &Base,
        shown: &mut Criteria,
    ) -> Vec<Criterion> {
        let key = format!("services.{name}.criteria");
        let builtin = matches!(name, READ | WRITE);
        let mut criteria = Vec::new();
        if let Some(servers) = section(file.servers.as_ref(), builtin) {
            let (criterion, filled) = self.servers(&key, name, &servers, base);
            criteria.push(criterion);
            shown.servers = Some(OrOff::On(filled));
        }
        if let Some(introducers) = section(file.introducers.as_ref(), builtin) {
            let (criterion, filled) = self.introducers(&key, &introducers);
            criteria.push(criterion);
            shown.introducers = Some(OrOff::On(filled));
        }
        if let Some(blessed) = section(file.blessed.as_ref(), false) {
            let found = self.blessed(&key, &blessed);
            if let Some(Criterion { rule: Rule::Blessed { min, .. }, otherwise }) = &found {
                let (min, otherwise) = (Some(Whole(min.get() as u64)), Some(*otherwise));
                shown.blessed = Some(OrOff::On(Blessed { min, otherwise, ..blessed }));
            }
            criteria.extend(found);
        }
        if let Some(latency) = section(file.latency.as_ref(), false) {
            let found = self.latency(&key, &latency);
            let otherwise = found.as_ref().map(|found| found.otherwise);
            shown.latency = Some(OrOff::On(Latency { otherwise, ..latency }));
            criteria.extend(found);
        }
        criteria
    }

    fn servers(
        &mut self,
        key: &str,
        name: &str,
        file: &Servers,
        base: &Base,
    ) -> (Criterion, Servers) {
        let min_key = format!("{key}.servers.min");
        let shares = base.shares.unwrap_or(DEFAULT_SHARES);
        let default = if name == READ { shares.needed } else { shares.happy };
        let min = self.whole(&min_key, file.min, default.get().into(), 1..=1_000_000);
        let guessed = (file.min.is_none() && base.shares.is_none()).then(|| min_key.clone());
        if guessed.is_some() {
            self.warnings.push(format!(
                "{min_key}: {min} is a guess, Tahoe-LAFS's own default; set it, or node.dir"
            ));
        }
        let min_space = file.min_space.unwrap_or_else(|| Size(u64::from(name == WRITE)));
        let silence = file.last_heard_max.map(|silence| {
            let bounds = Duration::from_secs(1)..=DAY;
            self.span(&format!("{key}.servers.last_heard_max"), Some(silence), silence, bounds)
        });
        let otherwise = file.otherwise.unwrap_or(Else::Down);
        let count =
            usize::try_from(min).ok().and_then(NonZeroUsize::new).unwrap_or(NonZeroUsize::MIN);
        let shown = Servers {
            min: Some(Whole(min)),
            min_space: Some(min_space),
            last_heard_max: file.last_heard_max,
            otherwise: Some(otherwise),
        };
        let rule = Rule::Servers { min: Floor { count, guessed }, min_space: min_space.0, silence };
        (Criterion { rule, otherwise }, shown)
    }

    fn introducers(&mut self, key: &str, file: &Introducers) -> (Criterion, Introducers) {
        if file.min.is_some() && file.all.is_some() {
            let message = "expected either `min` or `all`, not both";
            self.problems.add(&format!("{key}.introducers"), message);
        }
        let min = self.whole(&format!("{key}.introducers.min"), file.min, 1, 1..=1000);
        let min = usize::try_from(min).ok().and_then(NonZeroUsize::new);
        let all = file.all == Some(true);
        let otherwise = file.otherwise.unwrap_or(Else::Warn);
        let shown = Introducers {
            min: min.filter(|_| !all).map(|min| Whole(min.get() as u64)),
            all: all.then_some(true),
            otherwise: Some(otherwise),
        };
        let rule = Rule::Introducers { min: min.filter(|_| !all) };
        (Criterion { rule, otherwise }, shown)
    }

    fn blessed(&mut self, key: &str, file: &Blessed) -> Option<Criterion> {
        let key = format!("{key}.blessed");
        let (mut ids, source) = match (&file.ids, &file.file) {
            (Some(ids), None) => (ids.clone(), format!("{key}.ids")),
            (None, Some(path)) => {
                let source = format!("{key}.file");
                match read_ids(path) {
                    Ok(ids) => (ids, source),
                    Err(why) => {
                        self.problems.add(&source, why);
                        return None;
                    }
                }
            }
            _ => {
                self.problems.add(&key, "expected either `ids` or `file`");
                return None;
            }
        };
        for (n, id) in ids.iter().enumerate() {
            if id.is_empty() || id.contains(|c: char| !c.is_ascii_graphic()) {
                let message = "a server's id is one word, such as `v0-…` of the status page";
                let at = if file.ids.is_some() { format!("{source}[{n}]") } else { source.clone() };
                self.problems.add(&at, message);
            }
        }
        ids.sort_unstable();
        ids.dedup();
        if ids.is_empty() {
            self.problems.add(&source, "no id; expected at least one");
            return None;
        }
        let all = ids.len() as u64;
        let min = self.whole(&format!("{key}.min"), file.min, all, 1..=all);
        let min = usize::try_from(min).ok().and_then(NonZeroUsize::new)?;
        let ids = ids.into_iter().map(String::into_boxed_str).collect();
        let otherwise = file.otherwise.unwrap_or(Else::Down);
        Some(Criterion { rule: Rule::Blessed { ids, min }, otherwise })
    }

    fn latency(&mut self, key: &str, file: &Latency) -> Option<Criterion> {
        let key = format!("{key}.latency");
        let Some(max) = file.max else {
            self.problems.add(&key, "expected `max`, such as `{max: 1s}`");
            return None;
        };
        let bounds = Duration::from_millis(1)..=Duration::from_mins(5);
        let max = self.span(&format!("{key}.max"), Some(max), max, bounds);
        let otherwise = file.otherwise.unwrap_or(Else::Down);
        Some(Criterion { rule: Rule::Latency { max }, otherwise })
    }
}

/// The section of a criterion: what the file says, or an empty one for a criterion that is built in.
fn section<T: Clone + Default>(file: Option<&OrOff<T>>, builtin: bool) -> Option<T> {
    match file {
        Some(OrOff::On(section)) => Some(section.clone()),
        Some(OrOff::Off) => None,
        None => builtin.then(T::default),
    }
}

/// One id a line; `#` starts a comment.
fn read_ids(path: &Path) -> Result<Vec<String>, String> {
    let bytes = read(path).map_err(|why| format!("{}: {why}", path.display()))?;
    if bytes.len() as u64 > FILE_LIMIT {
        return Err(format!("{} is larger than 1 MiB", path.display()));
    }
    let text = String::from_utf8(bytes).map_err(|_| format!("{} is not UTF-8", path.display()))?;
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
    Ok(lines.filter(|line| !line.is_empty()).map(str::to_owned).collect())
}
