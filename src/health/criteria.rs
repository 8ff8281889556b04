//! Criteria: rules over the facts of a good look, and what they find.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::num::NonZeroUsize;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, de};

use super::{Code, Facts, Level, Link, Server};

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
        /// Their ids.
        ids: Vec<Box<str>>,
        /// How many of them are enough.
        min: NonZeroUsize,
    },
    /// The moving average of the status page's answer time stays under a limit.
    Latency {
        /// The limit.
        max: Duration,
    },
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
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
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

const NAMES: [Name; 4] = ["servers", "introducers", "blessed", "latency"];

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
            Rule::Blessed { ids, min } => self.blessed(facts, ids, *min),
            Rule::Latency { max } => self.latency(latency, *max),
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
        let mut text = match &min.guessed {
            _ if usable >= needed && min.guessed.is_none() => {
                format!("{usable} storage servers usable, {needed} needed")
            }
            None => format!("{usable} of {needed} storage servers usable"),
            Some(key) => format!("{usable} of {needed} usable (default; set node.dir or {key})"),
        };
        for (lack, count) in lacking {
            let _ = write!(text, ", {count} {}", lack.as_str());
        }
        self.counted("servers", Code::ServersFew, usable, needed, text)
    }

    fn blessed(&self, facts: &Facts, ids: &[Box<str>], min: NonZeroUsize) -> Finding {
        let usable = |id: &str| {
            let found = facts.servers.binary_search_by(|server| (*server.id).cmp(id));
            found
                .ok()
                .and_then(|at| facts.servers.get(at))
                .is_some_and(|s| s.lack(0, None).is_none())
        };
        let missing: Vec<&str> = ids.iter().map(|id| &**id).filter(|id| !usable(id)).collect();
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
        let rule = |min| Rule::Blessed { ids: ids.clone(), min: NonZeroUsize::new(min).unwrap() };
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
}
