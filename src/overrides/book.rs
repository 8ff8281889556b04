//! The book of overrides: pure, bounded, one entry for each service and owner.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::request::{Clear, Refused, Request};
use super::{Entry, Now};

/// The most services with overrides.
const SERVICES: usize = 64;
/// The most owners with overrides of one service.
const OWNERS: usize = 16;

/// Overrides that were ordered and have neither expired nor been cleared.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Book {
    /// What was kept could not be read.
    lost: bool,
    entries: BTreeMap<Arc<str>, BTreeMap<Arc<str>, Entry>>,
}

impl Book {
    /// The book when what was kept cannot be read.
    #[must_use]
    pub fn lost() -> Self {
        Self { lost: true, entries: BTreeMap::new() }
    }

    /// What was kept, its ends counted on this start of the machine.
    pub(super) fn restored(lost: bool, kept: Vec<Entry>, now: &Now) -> Self {
        let mut book = Self { lost, entries: BTreeMap::new() };
        for mut entry in kept {
            entry.expiry = entry.expiry.settled(now);
            book.insert(entry);
        }
        book
    }

    /// Whether what was kept could not be read, and nobody has cleared everything since.
    #[must_use]
    pub const fn is_lost(&self) -> bool {
        self.lost
    }

    /// Everything in it, by service and owner.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values().flat_map(BTreeMap::values)
    }

    /// Orders something for every service of the request, or for none.
    ///
    /// # Errors
    ///
    /// When the request makes no sense, or there is no room for it.
    pub fn set(&mut self, request: &Request, now: &Now) -> Result<Vec<Entry>, Refused> {
        request.check()?;
        let expiry = request.expiry.expiry(now);
        if expiry.is_over(now) {
            let text = "the override would end before it begins; its end must be in the future";
            return Err(Refused::Senseless(text.to_owned()));
        }
        self.room_for(request)?;
        let mut set = Vec::new();
        for service in &request.services {
            let last = self.entries.get(service).and_then(|owners| owners.get(&request.owner));
            let refreshed = last.filter(|last| last.word == request.word);
            let entry = Entry {
                service: Arc::clone(service),
                owner: Arc::clone(&request.owner),
                word: request.word,
                reason: request.reason.trim().into(),
                by: Arc::clone(&request.by),
                since: refreshed.map_or(now.wall, |last| last.since),
                expiry: expiry.clone(),
            };
            self.insert(entry.clone());
            set.push(entry);
        }
        Ok(set)
    }

    fn room_for(&self, request: &Request) -> Result<(), Refused> {
        let new: BTreeSet<&Arc<str>> = request
            .services
            .iter()
            .filter(|service| !self.entries.contains_key(*service))
            .collect();
        if self.entries.len() + new.len() > SERVICES {
            let text = format!("there are overrides for {SERVICES} services; clear some first");
            return Err(Refused::Full(text));
        }
        let crowded = request.services.iter().find(|service| {
            self.entries.get(*service).is_some_and(|owners| {
                owners.len() >= OWNERS && !owners.contains_key(&request.owner)
            })
        });
        match crowded {
            None => Ok(()),
            Some(service) => {
                let text = format!("{OWNERS} owners override `{service}`; clear some first");
                Err(Refused::Full(text))
            }
        }
    }

    /// Ends what the request names, and gives what has ended.
    pub fn clear(&mut self, clear: &Clear) -> Vec<Entry> {
        if clear.services.is_none() && clear.owner.is_none() {
            self.lost = false;
        }
        let named = |entry: &Entry| {
            clear.services.as_ref().is_none_or(|services| services.contains(&entry.service))
                && clear.owner.as_ref().is_none_or(|owner| *owner == entry.owner)
        };
        self.take(named)
    }

    /// Ends what is over, and gives what has ended.
    pub fn expire(&mut self, now: &Now) -> Vec<Entry> {
        self.take(|entry| entry.expiry.is_over(now))
    }

    fn insert(&mut self, entry: Entry) {
        let owners = self.entries.entry(Arc::clone(&entry.service)).or_default();
        owners.insert(Arc::clone(&entry.owner), entry);
    }

    fn take(&mut self, ends: impl Fn(&Entry) -> bool) -> Vec<Entry> {
        let mut ended = Vec::new();
        for owners in self.entries.values_mut() {
            ended.extend(owners.extract_if(.., |_, entry| ends(entry)).map(|(_, entry)| entry));
        }
        self.entries.retain(|_, owners| !owners.is_empty());
        ended
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use proptest::prelude::*;

    use super::super::{Lasting, Ruling};
    use super::*;
    use crate::health::{Weight, Word};

    fn now(secs: u64) -> Now {
        let wall = UNIX_EPOCH + Duration::from_secs(1_795_527_780 + secs);
        Now { wall, boot: Duration::from_secs(secs), boot_id: "one".into() }
    }

    fn request(service: &str, owner: &str, word: Word) -> Request {
        Request {
            services: vec![service.into()],
            owner: owner.into(),
            word,
            reason: "disk swap".into(),
            by: "root (uid 0)".into(),
            expiry: Lasting::Never,
        }
    }

    fn everything() -> Clear {
        Clear { services: None, owner: None, by: "root".into() }
    }

    #[test]
    fn a_refresh_keeps_the_first_time_and_another_word_does_not() {
        let mut book = Book::default();
        let first = book.set(&request("read", "ann", Word::Drain), &now(0)).unwrap();
        let again = book.set(&request("read", "ann", Word::Drain), &now(5)).unwrap();
        let other = book.set(&request("read", "bob", Word::Drain), &now(6)).unwrap();
        assert_eq!((first[0].since, again[0].since), (now(0).wall, now(0).wall));
        assert_eq!(other[0].since, now(6).wall);
        let maint = book.set(&request("read", "ann", Word::Maint), &now(7)).unwrap();
        assert_eq!(maint[0].since, now(7).wall);
        assert_eq!(book.entries().count(), 2);
    }

    #[test]
    fn each_owner_clears_its_own() {
        let mut book = Book::default();
        book.set(&request("read", "ann", Word::Drain), &now(0)).unwrap();
        book.set(&request("read", "bob", Word::Down), &now(0)).unwrap();
        book.set(&request("write", "bob", Word::Down), &now(0)).unwrap();
        let bobs = Clear { owner: Some("bob".into()), ..everything() };
        assert_eq!(book.clear(&bobs).len(), 2);
        let writes = Clear { services: Some(vec!["write".into()]), ..everything() };
        assert_eq!(book.clear(&writes).len(), 0);
        assert_eq!(book.entries().map(|entry| &*entry.owner).collect::<Vec<_>>(), ["ann"]);
    }

    #[test]
    fn only_clearing_everything_ends_a_loss() {
        let mut book = Book::lost();
        book.set(&request("read", "ann", Word::Up), &now(0)).unwrap();
        book.clear(&Clear { owner: Some("ann".into()), ..everything() });
        book.clear(&Clear { services: Some(vec!["read".into()]), ..everything() });
        assert!(book.is_lost());
        book.clear(&everything());
        assert!(!book.is_lost());
    }

    #[test]
    fn the_book_is_bounded_and_a_request_is_taken_whole_or_not_at_all() {
        let mut book = Book::default();
        for n in 0..63 {
            book.set(&request(&format!("s{n}"), "ann", Word::Drain), &now(0)).unwrap();
        }
        let two = Request {
            services: vec!["s63".into(), "s64".into()],
            ..request("s63", "ann", Word::Drain)
        };
        assert!(matches!(book.set(&two, &now(0)), Err(Refused::Full(_))));
        assert_eq!(book.entries().count(), 63);
        for n in 0..15 {
            book.set(&request("s0", &format!("o{n}"), Word::Drain), &now(0)).unwrap();
        }
        let full = book.set(&request("s0", "zoe", Word::Drain), &now(0));
        assert_eq!(full.unwrap_err().to_string(), "16 owners override `s0`; clear some first");
        book.set(&request("s0", "ann", Word::Maint), &now(0)).unwrap();
    }

    #[test]
    fn senseless_requests_are_refused_with_a_sentence() {
        let good = request("read", "ann", Word::Drain);
        for (request, text) in [
            (Request { services: vec![], ..good.clone() }, "needs a service"),
            (Request { services: vec!["a b".into()], ..good.clone() }, "`a b` is not the name"),
            (Request { owner: "".into(), ..good.clone() }, "the owner `` is no name"),
            (Request { owner: "file".into(), ..good.clone() }, "stands for files"),
            (Request { reason: "  ".into(), ..good.clone() }, "a reason is required"),
            (Request { reason: "a\nb".into(), ..good.clone() }, "U+000A"),
            (Request { reason: "x".repeat(201).into(), ..good.clone() }, "more than 200"),
            (Request { by: "x".repeat(301).into(), ..good.clone() }, "more than 300 bytes"),
            (Request { expiry: Lasting::Until(now(0).wall), ..good.clone() }, "in the future"),
            (Request { expiry: Lasting::For(Duration::ZERO), ..good }, "in the future"),
        ] {
            let refused = Book::default().set(&request, &now(0)).unwrap_err();
            assert!(matches!(refused, Refused::Senseless(_)));
            assert!(refused.to_string().contains(text), "{refused}");
        }
    }

    #[test]
    fn an_entry_says_why_what_who_and_until_when() {
        let mut book = Book::default();
        let mut timed = request("read", "ann", Word::Weight(Weight::clamped(30)));
        timed.expiry = Lasting::For(Duration::from_mins(30));
        book.set(&timed, &now(0)).unwrap();
        book.set(&request("read", "bob", Word::Drain), &now(0)).unwrap();
        let ruling = Ruling::new(1, false, book.entries().cloned().collect(), Vec::new());
        let texts: Vec<&str> = ruling.services["read"].iter().map(|order| &*order.text).collect();
        assert_eq!(
            texts,
            [
                "disk swap (weight 30 by ann until 2026-11-24T14:13Z)",
                "disk swap (drain by bob, no end set)"
            ]
        );
        let shown = serde_json::to_value(&ruling.entries).unwrap();
        assert_eq!(
            shown[0],
            serde_json::json!({"service": "read", "owner": "ann", "weight": 30, "reason": "disk swap",
                "by": "root (uid 0)", "since": "2026-11-24T13:43:00.000Z", "until": "2026-11-24T14:13:00.000Z"})
        );
        assert_eq!((&shown[1]["state"], &shown[1]["until"]), (&"drain".into(), &().into()));
    }

    /// What can be done to a book.
    #[derive(Clone, Debug)]
    enum Deed {
        Set(u8, u8, Word, Option<u64>),
        Clear(Option<u8>, Option<u8>),
        Wait(u64),
    }

    fn deed() -> impl Strategy<Value = Deed> {
        let word = prop_oneof![Just(Word::Maint), Just(Word::Drain), Just(Word::Up)];
        prop_oneof![
            4 => (0u8..80, 0u8..20, word, proptest::option::of(1u64..50))
                .prop_map(|(service, owner, word, secs)| Deed::Set(service, owner, word, secs)),
            1 => (proptest::option::of(0u8..80), proptest::option::of(0u8..20))
                .prop_map(|(service, owner)| Deed::Clear(service, owner)),
            1 => (0u64..30).prop_map(Deed::Wait),
        ]
    }

    proptest! {
        #[test]
        fn whatever_is_done_the_book_is_bounded_and_holds_exactly_what_is_not_over(
            deeds in proptest::collection::vec(deed(), 0..200),
        ) {
            let (mut book, mut secs) = (Book::default(), 0);
            let mut model: BTreeMap<(String, String), Option<u64>> = BTreeMap::new();
            for deed in deeds {
                match deed {
                    Deed::Set(service, owner, word, length) => {
                        let (service, owner) = (format!("s{service}"), format!("o{owner}"));
                        let mut request = request(&service, &owner, word);
                        if let Some(length) = length {
                            request.expiry = Lasting::For(Duration::from_secs(length));
                        }
                        if book.set(&request, &now(secs)).is_ok() {
                            model.insert((service, owner), length.map(|length| secs + length));
                        }
                    }
                    Deed::Clear(service, owner) => {
                        let (service, owner) =
                            (service.map(|n| format!("s{n}")), owner.map(|n| format!("o{n}")));
                        book.clear(&Clear {
                            services: service.clone().map(|service| vec![service.into()]),
                            owner: owner.clone().map(Into::into),
                            by: "x".into(),
                        });
                        model.retain(|(s, o), _| {
                            service.as_ref().is_some_and(|service| service != s)
                                || owner.as_ref().is_some_and(|owner| owner != o)
                        });
                    }
                    Deed::Wait(more) => {
                        secs += more;
                        book.expire(&now(secs));
                        model.retain(|_, end| end.is_none_or(|end| end > secs));
                    }
                }
                let held: Vec<_> = book
                    .entries()
                    .map(|entry| (entry.service.to_string(), entry.owner.to_string()))
                    .collect();
                prop_assert_eq!(held, model.keys().cloned().collect::<Vec<_>>());
                prop_assert!(book.entries.len() <= SERVICES);
                prop_assert!(book.entries.values().all(|owners| owners.len() <= OWNERS));
            }
        }
    }
}
