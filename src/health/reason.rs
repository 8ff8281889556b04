//! Why a verdict is what it is: a stable code for machines, a sentence for people.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::Else;

/// Spells each code once, with what an operator does about it.
macro_rules! codes {
    ($($(#[$doc:meta])+ $code:ident = $name:literal: $remedy:literal,)+) => {
        /// The stable name of a reason: metric label, JSON value, and heading of its entry in `docs/reasons.md`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Code {
            $($(#[$doc])+ $code,)+
        }

        impl Code {
            /// Every code.
            pub const ALL: [Self; [$($name),+].len()] = [$(Self::$code),+];

            /// The code as every protocol and document spells it.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$code => $name,)+
                }
            }

            /// What to do, in a sentence.
            #[must_use]
            pub const fn remedy(self) -> &'static str {
                match self {
                    $(Self::$code => $remedy,)+
                }
            }
        }
    };
}

codes! {
    /// No look has finished yet, or too few good ones since the start.
    Starting = "starting": "Wait a few seconds; if it stays so, look at what the last look found.",
    /// The last look finished too long ago.
    Stale = "stale": "Restart hcf; the node itself may be well.",
    /// Nobody listens on the node's port.
    Refused = "refused": "Start the node, and read its twistd.log if it does not stay up.",
    /// Something answers, but it is not the node it should be.
    WrongNode = "wrong-node": "Find out which program has the node's port, stop it, and restart the node.",
    /// What answers speaks JSON, but is no gateway.
    NotTahoe = "not-tahoe": "Compare the node's web.port with node.url: another program answers there.",
    /// No answer in time.
    Timeout = "timeout": "See whether the node is stopped or overloaded; restart it if it stays silent.",
    /// The connection broke.
    Reset = "reset": "Read the sentence for what broke, then the node's twistd.log.",
    /// The status page came with a status other than 200.
    HttpStatus = "http-status": "Read the node's twistd.log; restart the node if it goes on.",
    /// The status page is not JSON.
    BadJson = "bad-json": "Open the node's URL with ?t=json behind it, and see what answers.",
    /// The status page lacks something that is needed.
    BadShape = "bad-shape": "Check that the node's version of Tahoe-LAFS is one that hcf knows.",
    /// The status page is larger than the limit.
    TooLarge = "too-large": "Open the node's URL with ?t=json behind it, and see what it is full of.",
    /// Too few storage servers are usable.
    ServersFew = "servers-few": "Bring back the storage servers that are lost, or this node's way to them.",
    /// Blessed storage servers are missing.
    BlessedMissing = "blessed-missing": "Bring back the blessed storage servers that are named.",
    /// Too few introducers are connected.
    IntroducersFew = "introducers-few": "Bring the introducer back before servers change; what is connected goes on.",
    /// The node has no introducer configured.
    NoIntroducers = "no-introducers": "Give the node an introducer, or drop the criterion if its servers are fixed.",
    /// The status page takes too long to answer.
    Slow = "slow": "See what keeps the node or its machine busy, and take load off it.",
    /// The node's temporary directory has too little room.
    SpoolFull = "spool-full": "Make room on the disk that holds the node's temporary directory.",
    /// The room in the node's temporary directory cannot be told.
    SpoolUnknown = "spool-unknown": "Let hcf's user enter the node's temporary directory.",
    /// The servers that a grid manager certifies cannot be told.
    BlessedUnknown = "blessed-unknown": "Let hcf's user read the announcements that the node keeps.",
    /// A file could not be read.
    CanaryRead = "canary-read": "Read one of your own files through the node; if that fails, too, mend the servers first.",
    /// Nobody has tried to read a file, or not lately.
    CanaryReadUnknown = "canary-read-unknown": "Wait for the first canary; if none comes, see whether the node answers.",
    /// A file could not be written.
    CanaryWrite = "canary-write": "Upload a small file through the node; if that fails, too, mend the servers first.",
    /// Nobody has tried to write a file, or not lately.
    CanaryWriteUnknown = "canary-write-unknown": "Wait for the first canary; if none comes, see whether the node answers.",
    /// An operator has ordered it.
    Override = "override": "Nothing, if it is still meant; else end it by hcf clear.",
    /// What operators had ordered cannot be read any more.
    OverridesLost = "overrides-lost": "Find out what was ordered, order it again, and end this by hcf clear.",
    /// The sidecar is on its way out.
    Shutdown = "shutdown": "Nothing, if hcf is being restarted; else start it again.",
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Code {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl JsonSchema for Code {
    fn schema_name() -> Cow<'static, str> {
        "Code".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let names = Self::ALL.map(Self::as_str).to_vec();
        json_schema!({"type": "string", "enum": names, "description": "The stable name of a reason."})
    }
}

impl<'de> Deserialize<'de> for Code {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        let known = Self::ALL.into_iter().find(|code| code.as_str() == name);
        known.ok_or_else(|| de::Error::custom(format!("no such code: {name}")))
    }
}

/// One reason for a verdict.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Reason {
    /// The stable code.
    pub code: Code,
    /// The criterion that failed; none when no criterion was asked.
    pub criterion: Option<&'static str>,
    /// What the failure does to the service.
    #[serde(rename = "else")]
    pub otherwise: Else,
    /// A sentence with the numbers.
    pub text: String,
}

impl Reason {
    /// The last look finished more than `freshness` ago.
    #[must_use]
    pub fn stale(freshness: Duration) -> Self {
        let limit = humantime::format_duration(freshness);
        let text = format!("no look at the node has finished for {limit}");
        Self { code: Code::Stale, criterion: None, otherwise: Else::Down, text }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.text)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// The entries of the document: each heading with its text.
    fn entries() -> BTreeMap<&'static str, &'static str> {
        let document = include_str!("../../docs/reasons.md");
        let entries = document.split("\n### ").skip(1);
        entries.map(|entry| entry.split_once('\n').unwrap_or((entry, ""))).collect()
    }

    #[test]
    fn every_code_has_an_entry_that_says_what_to_do() {
        let mut entries = entries();
        for code in Code::ALL {
            let heading = format!("`{code}`");
            let text = entries.remove(&*heading);
            let text = text.unwrap_or_else(|| panic!("docs/reasons.md has no entry {heading}"));
            // However its lines are broken.
            let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
            let remedy = format!("**What to do:** {}", code.remedy());
            assert!(text.contains(&remedy), "{code}: docs/reasons.md does not say: {remedy}");
            let meaning = text.split("**What to do:**").next().unwrap_or_default();
            assert!(meaning.len() > 40, "{code}: docs/reasons.md does not say what it means");
        }
        assert!(entries.is_empty(), "docs/reasons.md tells of codes that are none: {entries:?}");
    }

    #[test]
    fn a_remedy_is_one_short_sentence() {
        for code in Code::ALL {
            let said = code.remedy();
            assert!(said.len() <= 90 && said.ends_with('.'), "{code}: {said}");
            assert!(!said.trim_end_matches('.').contains(". "), "{code}: {said}");
        }
    }
}
