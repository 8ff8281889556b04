//! Criteria: rules over the facts of a good look, and what they find.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::num::NonZeroUsize;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, de};

use super::{Canary, Code, Facts, Level, Link, Server};

/// What a failing criterion does to its service; the worst one wins.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Else {
    /// It is shown, and changes nothing.
    Warn,
    /// The service stays up, marked as degraded, with a capped weight.
    Degrade,
    /// The service takes no new work.
    Drain,
    /// The service is down.
    Down,
}

impl Else {
    /// The level to which a failing criterion takes the service.
    #[must_use]
    pub const fn level(self) -> Level {
        match self {
            Self::Warn => Level::Full,
            Self::Degrade => Level::Degraded,
            Self::Drain => Level::Drain,
            Self::Down => Level::Down,
        }
    }
}

/// A rule, and what happens to the service when it does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Criterion {
    /// What must hold.
    pub rule: Rule,
    /// What happens when it does not.
    pub otherwise: Else,
}

/// What must hold for a criterion to pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Enough introducers are connected; `None` asks for every configured one.
    Introducers {
        /// How many are enough.
        min: Option<NonZeroUsize>,
    },
    /// Enough storage servers are usable.
    Servers {
        /// How many are enough.
        min: Floor,
        /// The free space, in bytes, without which a server does not count; zero asks for none.
        min_space: u64,
        /// The silence beyond which a server does not count; `None` leaves it to its protocol.
        silence: Option<Duration>,
    },
    /// The blessed storage servers are usable.
    Blessed {
        /// Which ones.
        who: Chosen,
        /// How many of them are enough.
        min: NonZeroUsize,
    },
    /// The moving average of the status page's answer time stays under a limit.
    Latency {
        /// The limit.
        max: Duration,
    },
    /// The node's temporary directory has room.
    Spool {
        /// How many free bytes are enough.
        min_free: u64,
    },
    /// A canary ended well, and not long ago.
    Canary(Canary),
}

/// Which storage servers are blessed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Chosen {
    /// Those with these ids.
    Ids(Vec<Box<str>>),
    /// Those that a grid manager of the node's certifies.
    Certified,
}

/// A number of servers, and whether somebody meant it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Floor {
    /// The number.
    pub count: NonZeroUsize,
    /// For a number that nobody set: the key under which to set it.
    pub guessed: Option<String>,
}

/// What a criterion found in one good look.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Finding {
    /// The criterion's name, as in the configuration.
    #[serde(deserialize_with = "name")]
    pub criterion: Name,
    /// Whether it passed.
    pub pass: bool,
    /// The code of the reason that it gives when it fails.
    pub code: Code,
    /// What its failure does to the service.
    #[serde(rename = "else")]
    pub otherwise: Else,
    /// The number that was held against the threshold: servers, introducers or seconds.
    pub observed: f64,
    /// The threshold, in the same unit.
    pub threshold: f64,
    /// A sentence with the numbers.
    pub text: String,
}

/// A criterion's name, as in the configuration.
type Name = &'static str;

const NAMES: [Name; 7] =
    ["servers", "introducers", "blessed", "latency", "spool", "canary_read", "canary_write"];

fn name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Name, D::Error> {
    let name = String::deserialize(deserializer)?;
    let known = NAMES.into_iter().find(|known| *known == name);
    known.ok_or_else(|| de::Error::custom(format!("no such criterion: {name}")))
}

impl Criterion {
    /// Holds the rule against the facts; `latency` is the moving average of the answer time.
    #[must_use]
    pub fn judge(&self, facts: &Facts, latency: Duration) -> Finding {
        match &self.rule {
            Rule::Introducers { min } => self.introducers(facts, *min),
            Rule::Servers { min, min_space, silence } => {
                self.servers(facts, min, *min_space, *silence)
            }
            Rule::Blessed { who: Chosen::Ids(ids), min } => self.blessed(facts, ids, *min),
            Rule::Blessed { who: Chosen::Certified, min } => self.certified(facts, *min),
            Rule::Latency { max } => self.latency(latency, *max),
            Rule::Spool { min_free } => self.spool(facts.spool, *min_free),
            Rule::Canary(canary) => self.canary(facts, canary),
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "counts of servers are far below 2^52")]
    fn counted(
        &self,
        criterion: &'static str,
        code: Code,
        observed: usize,
        needed: usize,
        text: String,
    ) -> Finding {
        Finding {
            criterion,
            pass: observed >= needed,
            code,
            otherwise: self.otherwise,
            observed: observed as f64,
            threshold: needed as f64,
            text,
        }
    }

    fn introducers(&self, facts: &Facts, min: Option<NonZeroUsize>) -> Finding {
        let seen = facts.introducers;
        if seen.configured == 0 {
            let needed = min.map_or(1, NonZeroUsize::get);
            let text = "the node has no introducer configured".to_owned();
            return self.counted("introducers", Code::NoIntroducers, 0, needed, text);
        }
        let needed = min.map_or(seen.configured, NonZeroUsize::get);
        let text = format!(
            "{} of {} introducers connected, {needed} needed",
            seen.connected, seen.configured
        );
        self.counted("introducers", Code::IntroducersFew, seen.connected, needed, text)
    }

    fn servers(
        &self,
        facts: &Facts,
        min: &Floor,
        min_space: u64,
        silence: Option<Duration>,
    ) -> Finding {
        let mut lacking = BTreeMap::new();
        let mut usable = 0;
        for server in &facts.servers {
            match server.lack(min_space, silence) {
                None => usable += 1,
                Some(lack) => *lacking.entry(lack).or_insert(0_usize) += 1,
            }
        }
        let needed = min.count.get();
        let mut text = match (&min.guessed, usable >= needed) {
            (None, true) => format!("{usable} storage servers usable, {needed} needed"),
            (None, false) => format!("{usable} of {needed} storage servers usable"),
            (Some(key), true) => {
                format!("{usable} usable, {needed} needed (default; set node.dir or {key})")
            }
            (Some(key), false) => {
                format!("{usable} of {needed} usable (default; set node.dir or {key})")
            }
        };
        for (lack, count) in lacking {
            let _ = write!(text, ", {count} {}", lack.as_str());
        }
        self.counted("servers", Code::ServersFew, usable, needed, text)
    }

    fn blessed(&self, facts: &Facts, ids: &[Box<str>], min: NonZeroUsize) -> Finding {
        let missing: Vec<&str> =
            ids.iter().map(|id| &**id).filter(|id| !facts.can_use(id)).collect();
        let found = ids.len() - missing.len();
        let mut text = format!("{found} of {} blessed servers usable, {min} needed", ids.len());
        for (n, id) in missing.iter().take(3).enumerate() {
            let short = id.get(..11).unwrap_or(id);
            let _ = write!(text, "{} {short}", if n == 0 { "; missing" } else { "," });
        }
        if missing.len() > 3 {
            let _ = write!(text, " and {} more", missing.len() - 3);
        }
        self.counted("blessed", Code::BlessedMissing, found, min.get(), text)
    }

    fn certified(&self, facts: &Facts, min: NonZeroUsize) -> Finding {
        let Some(ids) = &facts.certified else {
            let text = "the announcements that the node keeps cannot be read".to_owned();
            return self.counted("blessed", Code::BlessedUnknown, 0, min.get(), text);
        };
        let found = ids.iter().filter(|id| facts.can_use(id)).count();
        let text =
            format!("{found} usable servers with a grid manager's certificate, {min} needed");
        self.counted("blessed", Code::BlessedMissing, found, min.get(), text)
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "free space is shown, and held as a whole number"
    )]
    fn spool(&self, free: Option<u64>, min_free: u64) -> Finding {
        // No figure for what is free: it moves with every look, and a reason should stand still.
        let (pass, code, text) = match free {
            Some(free) if free >= min_free => (true, Code::SpoolFull, "has room"),
            Some(_) => (false, Code::SpoolFull, "has too little room for uploads"),
            None => (false, Code::SpoolUnknown, "cannot be asked how much room it has"),
        };
        Finding {
            criterion: "spool",
            pass,
            code,
            otherwise: self.otherwise,
            observed: free.unwrap_or(0) as f64,
            threshold: min_free as f64,
            text: format!("the node's temporary directory {text}"),
        }
    }

    fn canary(&self, facts: &Facts, canary: &Canary) -> Finding {
        let limit = canary.freshness();
        let (failed, unknown) = canary.codes();
        let tried =
            facts.canaries.iter().find(|(known, _)| known == canary).map(|(_, tried)| tried);
        let (pass, code, text) = match tried {
            None => (false, unknown, "no canary has ended yet".to_owned()),
            Some(tried) => match &tried.outcome {
                // It stays what it is until another one ends.
                Err(mishap) => (false, failed, mishap.to_string()),
                Ok(()) if tried.age > limit => {
                    let limit = humantime::format_duration(limit);
                    (false, unknown, format!("no canary has ended for {limit}"))
                }
                Ok(()) => (true, failed, "the last canary ended well".to_owned()),
            },
        };
        Finding {
            criterion: canary.name(),
            pass,
            code,
            otherwise: self.otherwise,
            observed: tried.map_or(0.0, |tried| tried.age.as_secs_f64()),
            threshold: limit.as_secs_f64(),
            text,
        }
    }

    fn latency(&self, average: Duration, max: Duration) -> Finding {
        let pass = average <= max;
        let said = if pass { "within" } else { "over" };
        Finding {
            criterion: "latency",
            pass,
            code: Code::Slow,
            otherwise: self.otherwise,
            observed: average.as_secs_f64(),
            threshold: max.as_secs_f64(),
            // No figure for the average: it moves with every look, and a reason should stand still.
            text: format!(
                "the status page's average answer time is {said} {}",
                humantime::format_duration(max)
            ),
        }
    }
}

/// Why a server does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Lack {
    Link(Link),
    Version,
    Silent,
    Space,
}

impl Lack {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Link(link) => link.as_str(),
            Self::Version => "without a version",
            Self::Silent => "silent",
            Self::Space => "without space",
        }
    }
}

impl Facts {
    /// Whether the server of this id is usable.
    fn can_use(&self, id: &str) -> bool {
        let found = self.servers.binary_search_by(|server| (*server.id).cmp(id));
        found.ok().and_then(|at| self.servers.get(at)).is_some_and(|s| s.is_usable(0, None))
    }
}

impl Server {
    /// What this server lacks to be usable; `None` when it is.
    fn lack(&self, min_space: u64, silence: Option<Duration>) -> Option<Lack> {
        let limit = silence.unwrap_or(self.silence_limit);
        if self.link != Link::Connected {
            Some(Lack::Link(self.link))
        } else if !self.versioned {
            Some(Lack::Version)
        } else if self.silent.is_none_or(|silent| silent > limit) {
            Some(Lack::Silent)
        } else if self.space.is_some_and(|space| space < min_space) {
            Some(Lack::Space)
        } else {
            None
        }
    }

    /// Why the node cannot use this server, in a few words; `None` when it can. As [`Server::is_usable`].
    #[must_use]
    pub fn trouble(&self, min_space: u64, silence: Option<Duration>) -> Option<&'static str> {
        self.lack(min_space, silence).map(Lack::as_str)
    }

    /// Whether the node can use this server; `min_space` in bytes, `silence` as in [`Rule::Servers`].
    #[must_use]
    pub fn is_usable(&self, min_space: u64, silence: Option<Duration>) -> bool {
        self.lack(min_space, silence).is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::super::Introducers;
    use super::*;

    fn server(id: &str) -> Server {
        Server {
            id: id.into(),
            nickname: "".into(),
            link: Link::Connected,
            versioned: true,
            space: Some(1000),
            silent: Some(Duration::from_secs(1)),
            silence_limit: Duration::from_secs(10),
        }
    }

    fn find(rule: Rule, facts: &Facts) -> Finding {
        Criterion { rule, otherwise: Else::Down }.judge(facts, Duration::from_millis(3))
    }

    fn floor(count: usize) -> Floor {
        Floor { count: NonZeroUsize::new(count).unwrap(), guessed: None }
    }

    #[test]
    fn a_server_counts_only_when_nothing_is_lacking() {
        let facts = Facts {
            servers: vec![
                server("a"),
                Server { link: Link::Refused, ..server("b") },
                Server { versioned: false, ..server("c") },
                Server { silent: Some(Duration::from_secs(11)), ..server("d") },
                Server { silent: None, ..server("e") },
                Server { space: Some(0), ..server("f") },
                Server { space: None, ..server("g") },
            ],
            ..Facts::default()
        };
        let finding = find(Rule::Servers { min: floor(3), min_space: 1, silence: None }, &facts);
        assert!(!finding.pass);
        assert_eq!(
            finding.text,
            "2 of 3 storage servers usable, 1 refused, 1 without a version, 2 silent, 1 without space"
        );
        let rule = Rule::Servers { min: floor(3), min_space: 0, silence: None };
        assert!(find(rule, &facts).pass, "without a floor for space, a full server counts");
        let patient = Some(Duration::from_secs(12));
        let rule = Rule::Servers { min: floor(4), min_space: 0, silence: patient };
        assert!(find(rule, &facts).pass, "silence may be allowed for longer");
    }

    #[test]
    fn a_guessed_number_says_where_to_set_it() {
        let min = Floor { guessed: Some("services.write.criteria.servers.min".into()), ..floor(7) };
        let finding = find(Rule::Servers { min, min_space: 1, silence: None }, &Facts::default());
        assert_eq!(
            finding.text,
            "0 of 7 usable (default; set node.dir or services.write.criteria.servers.min)"
        );
    }

    #[test]
    fn introducers_are_counted_and_none_at_all_is_a_failure_of_its_own() {
        let one = NonZeroUsize::new(1);
        let facts = |connected, configured| Facts {
            introducers: Introducers { connected, configured },
            ..Facts::default()
        };
        assert!(find(Rule::Introducers { min: one }, &facts(1, 2)).pass);
        assert!(!find(Rule::Introducers { min: None }, &facts(1, 2)).pass);
        assert!(find(Rule::Introducers { min: None }, &facts(2, 2)).pass);
        for min in [one, None] {
            let finding = find(Rule::Introducers { min }, &facts(0, 0));
            assert!(!finding.pass);
            assert_eq!(finding.code, Code::NoIntroducers);
        }
    }

    #[test]
    fn blessed_servers_are_looked_up_by_id() {
        let facts = Facts { servers: vec![server("a"), server("c")], ..Facts::default() };
        let ids: Vec<Box<str>> = vec!["a".into(), "b".into(), "c".into()];
        let rule = |min| Rule::Blessed {
            who: Chosen::Ids(ids.clone()),
            min: NonZeroUsize::new(min).unwrap(),
        };
        assert!(find(rule(2), &facts).pass);
        let finding = find(rule(3), &facts);
        assert!(!finding.pass);
        assert_eq!(finding.text, "2 of 3 blessed servers usable, 3 needed; missing b");
    }

    #[test]
    fn latency_is_held_against_its_limit() {
        assert!(find(Rule::Latency { max: Duration::from_millis(3) }, &Facts::default()).pass);
        let finding = find(Rule::Latency { max: Duration::from_millis(2) }, &Facts::default());
        assert!(!finding.pass);
        assert_eq!(finding.text, "the status page's average answer time is over 2ms");
    }

    #[test]
    fn certified_servers_count_while_they_are_usable() {
        let rule = Rule::Blessed { who: Chosen::Certified, min: NonZeroUsize::new(2).unwrap() };
        let servers = vec![server("a"), Server { link: Link::Refused, ..server("b") }, server("c")];
        let facts = |certified: Option<&[&str]>| Facts {
            servers: servers.clone(),
            certified: certified.map(|ids| ids.iter().map(|id| (*id).into()).collect()),
            ..Facts::default()
        };
        assert!(find(rule.clone(), &facts(Some(&["a", "c"]))).pass);
        let finding = find(rule.clone(), &facts(Some(&["a", "b", "gone"])));
        assert!(!finding.pass);
        assert_eq!(finding.text, "1 usable servers with a grid manager's certificate, 2 needed");
        let finding = find(rule, &facts(None));
        assert_eq!((finding.pass, finding.code), (false, Code::BlessedUnknown));
    }

    #[test]
    fn a_temporary_directory_without_room_or_word_fails() {
        let spool = |spool| {
            let facts = Facts { spool, ..Facts::default() };
            let finding = find(Rule::Spool { min_free: 10 }, &facts);
            (finding.pass, finding.code)
        };
        assert_eq!(spool(Some(10)), (true, Code::SpoolFull));
        assert_eq!(spool(Some(9)), (false, Code::SpoolFull));
        assert_eq!(spool(None), (false, Code::SpoolUnknown));
    }

    #[test]
    fn a_canary_passes_while_its_last_good_end_is_fresh() {
        use super::super::{Mishap, Proof, Tried};
        let canary = |cap_file: &str| Canary {
            kind: Proof::Write,
            cap_file: cap_file.into(),
            every: Duration::from_mins(1),
            timeout: Duration::from_secs(20),
        };
        let tried = |age, outcome| {
            let tried = Tried { age: Duration::from_secs(age), outcome };
            let facts = Facts { canaries: vec![(canary("/a"), tried)], ..Facts::default() };
            let finding = find(Rule::Canary(canary("/a")), &facts);
            (finding.pass, finding.code, find(Rule::Canary(canary("/b")), &facts).code)
        };
        let unknown = Code::CanaryWriteUnknown;
        assert_eq!(tried(200, Ok(())), (true, Code::CanaryWrite, unknown));
        assert_eq!(tried(201, Ok(())), (false, unknown, unknown));
        let hung = Err(Mishap::Hung(Duration::from_secs(20)));
        assert_eq!(tried(0, hung.clone()), (false, Code::CanaryWrite, unknown));
        assert_eq!(tried(9999, hung), (false, Code::CanaryWrite, unknown), "it hangs still");
    }
}
