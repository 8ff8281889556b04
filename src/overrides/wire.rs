//! The body of `PUT /v1/overrides/SERVICE`: `{"state": "drain", "reason": "disk swap", "for": "30m"}`.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::Deserialize;

use super::request::{Lasting, Request, check_owner, check_reason};
use super::{spoken, time};
use crate::health::Word;

/// The owner of whoever names none.
const OWNER: &str = "operator";
/// A century is long enough, and keeps sums within bounds.
const LONGEST: Duration = Duration::from_hours(100 * 366 * 24);

/// What a body asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Put {
    owner: Arc<str>,
    word: Word,
    reason: Arc<str>,
    expiry: Lasting,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    state: Option<String>,
    weight: Option<u64>,
    reason: Option<String>,
    owner: Option<String>,
    #[serde(rename = "for")]
    length: Option<String>,
    until: Option<String>,
}

impl Put {
    /// Reads a body, at `now` by the wall clock.
    ///
    /// # Errors
    ///
    /// A sentence that says what is wrong and what was expected.
    pub fn parse(body: &[u8], now: SystemTime) -> Result<Self, String> {
        let body: Body = serde_json::from_slice(body)
            .map_err(|e| format!("the body is not the JSON that was expected: {e}"))?;
        let word = match (body.state, body.weight) {
            (Some(state), None) => spoken::state(&state)?,
            (None, Some(weight)) => spoken::weight(weight)?,
            (Some(_), Some(_)) => return Err("give `state` or `weight`, not both".to_owned()),
            (None, None) => return Err("`state` or `weight` is missing".to_owned()),
        };
        let reason = body.reason.unwrap_or_default();
        check_reason(&reason)?;
        let owner = body.owner.unwrap_or_else(|| OWNER.to_owned());
        check_owner(&owner)?;
        let expiry = match (body.length, body.until) {
            (None, None) => Lasting::Never,
            (Some(_), Some(_)) => return Err("give `for` or `until`, not both".to_owned()),
            (Some(text), None) => Lasting::For(length(&text).ok_or_else(|| {
                format!("`for` is `{text}`; expected a duration such as `30m` or `2h`")
            })?),
            (None, Some(text)) => {
                let until = time::parse_rfc3339(&text).ok_or_else(|| {
                    format!("`until` is `{text}`; expected a time such as `2026-11-24T14:03:00Z`")
                })?;
                if until <= now {
                    let now = time::rfc3339(now);
                    return Err(format!("`until` is `{text}`, which is past; it is {now} now"));
                }
                Lasting::Until(until)
            }
        };
        Ok(Self { owner: owner.into(), word, reason: reason.trim().into(), expiry })
    }

    /// The request for some services, and who asks.
    #[must_use]
    pub fn request(self, services: Vec<Arc<str>>, by: Arc<str>) -> Request {
        let Self { owner, word, reason, expiry } = self;
        Request { services, owner, word, reason, by, expiry }
    }
}

/// Reads a length of time that an override can have.
pub(super) fn length(text: &str) -> Option<Duration> {
    let length = humantime::parse_duration(text).ok()?;
    (length > Duration::ZERO && length <= LONGEST).then_some(length)
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use proptest::prelude::*;

    use super::*;
    use crate::health::Weight;

    fn now() -> SystemTime {
        UNIX_EPOCH + Duration::from_mins(29_925_463)
    }

    #[test]
    fn bodies_are_read() {
        let put = Put::parse(br#"{"state":"drain","reason":" disk swap ","for":"30m"}"#, now());
        let put = put.unwrap();
        assert_eq!((put.word, &*put.owner, &*put.reason), (Word::Drain, "operator", "disk swap"));
        assert_eq!(put.expiry, Lasting::For(Duration::from_mins(30)));
        let put = Put::parse(
            br#"{"weight":30,"reason":"busy","owner":"cron","until":"2026-11-24T15:44:00+02:00"}"#,
            now(),
        );
        let put = put.unwrap();
        assert_eq!((put.word, &*put.owner), (Word::Weight(Weight::clamped(30)), "cron"));
        assert_eq!(put.expiry, Lasting::Until(now() + Duration::from_mins(1)));
        let put = Put::parse(br#"{"state":"up","reason":"well"}"#, now()).unwrap();
        assert_eq!(put.expiry, Lasting::Never);
    }

    #[test]
    fn each_mistake_is_a_sentence() {
        for (body, text) in [
            ("", "the body is not the JSON that was expected: EOF"),
            (
                r#"{"state":"drain","reason":"x","fro":"1m"}"#,
                "unknown field `fro`, expected one of",
            ),
            (r#"{"reason":"x"}"#, "`state` or `weight` is missing"),
            (r#"{"state":"up","weight":1,"reason":"x"}"#, "give `state` or `weight`, not both"),
            (
                r#"{"state":"stale","reason":"x"}"#,
                "`stale` cannot be ordered; expected drain, maint",
            ),
            (r#"{"weight":0,"reason":"x"}"#, "a weight of 0 is out of range; expected 1 to 100"),
            (r#"{"weight":101,"reason":"x"}"#, "a weight of 101 is out of range"),
            (r#"{"weight":-1,"reason":"x"}"#, "invalid value: integer `-1`"),
            (r#"{"state":"up"}"#, "a reason is required"),
            (r#"{"state":"up","reason":" "}"#, "a reason is required"),
            (r#"{"state":"up","reason":"a\u0007"}"#, "the reason holds U+0007"),
            (r#"{"state":"up","reason":"x","owner":""}"#, "the owner `` is no name"),
            (r#"{"state":"up","reason":"x","owner":"file"}"#, "stands for files"),
            (r#"{"state":"up","reason":"x","for":"soon"}"#, "`for` is `soon`; expected a duration"),
            (r#"{"state":"up","reason":"x","for":"0s"}"#, "`for` is `0s`; expected a duration"),
            (r#"{"state":"up","reason":"x","for":"1000years"}"#, "`for` is `1000years`"),
            (
                r#"{"state":"up","reason":"x","until":"14:00"}"#,
                "`until` is `14:00`; expected a time",
            ),
            (
                r#"{"state":"up","reason":"x","until":"2026-11-24T13:43:00Z"}"#,
                "which is past; it is 2026-11-24T13:43:00.000Z now",
            ),
            (
                r#"{"state":"up","reason":"x","for":"1m","until":"2027-11-24T13:43:00Z"}"#,
                "not both",
            ),
        ] {
            let error = Put::parse(body.as_bytes(), now()).unwrap_err();
            assert!(error.contains(text), "{body}: {error}");
        }
    }

    proptest! {
        #[test]
        fn no_body_is_too_strange(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Put::parse(&body, now());
        }
    }
}
