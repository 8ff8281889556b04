//! Following one sidecar's `/v1/watch`: connected again for ever, bounded in bytes and in time.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Method, StatusCode};
use serde::Deserialize;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::rules::Word;
use crate::ask::{Answer, Place};
use crate::events::Frames;

/// How long the head of the answer may take, and then the first event.
const FIRST_TIME: Duration = Duration::from_secs(5);
/// The first and the last pause between two tries.
const LEAST_PAUSE: Duration = Duration::from_millis(100);
const MOST_PAUSE: Duration = Duration::from_secs(2);
/// Heartbeats that may stay away: one is late, two are two too many.
const BEATS: u32 = 3;
/// No word counts for longer, whatever a sidecar says.
const MOST_TIME: Duration = Duration::from_hours(24);

/// What a follower has to say of its sidecar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum News {
    /// It spoke, and all that it said counts for this long.
    Heard {
        /// What it said of each service; of the others its last word holds.
        words: BTreeMap<String, Word>,
        /// Whether these are all of its services.
        all: bool,
        /// How long it counts.
        counts: Duration,
    },
    /// There is no connection, and why.
    Lost(String),
}

/// Follows `sidecar`, which is node number `at`, until nobody wants to hear of it any more.
pub(super) async fn follow(at: usize, sidecar: Place, news: mpsc::Sender<(usize, News)>) {
    let mut pause = LEAST_PAUSE;
    loop {
        let mut heard = false;
        let why = match open(&sidecar).await {
            Ok(answer) => listen(answer, at, &news, &mut heard).await,
            Err(why) => why,
        };
        pause = if heard { LEAST_PAUSE } else { (pause * 2).min(MOST_PAUSE) };
        if news.send((at, News::Lost(why))).await.is_err() {
            return;
        }
        // Followers that lost their sidecars together do not all come back together.
        sleep(pause + LEAST_PAUSE * u32::try_from(at % 10).unwrap_or(0) / 10).await;
    }
}

async fn open(sidecar: &Place) -> Result<Answer, String> {
    let asking = sidecar.ask(Method::GET, "/v1/watch", Bytes::new());
    let answer = match timeout(FIRST_TIME, asking).await {
        Ok(answer) => answer.map_err(|e| e.to_string())?,
        Err(_) => return Err("no answer in time".to_owned()),
    };
    let response = &answer.response;
    let kind = response.headers().get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    match response.status() {
        StatusCode::OK if kind.is_some_and(|kind| kind.starts_with(EVENT_STREAM.as_bytes())) => {
            Ok(answer)
        }
        StatusCode::OK => Err("what answers is no sidecar's status listener".to_owned()),
        status => Err(format!("it answers /v1/watch with status {}", status.as_u16())),
    }
}

const EVENT_STREAM: &str = "text/event-stream";

/// Passes on what the sidecar says, until it stops; says why that was.
async fn listen(
    mut answer: Answer,
    at: usize,
    news: &mpsc::Sender<(usize, News)>,
    heard: &mut bool,
) -> String {
    let mut events = Events::default();
    let mut deadline = Instant::now() + FIRST_TIME;
    loop {
        let chunk = match timeout_at(deadline, answer.chunk()).await {
            Ok(Ok(Some(chunk))) => chunk,
            Ok(Ok(None)) => return "it has ended the connection".to_owned(),
            Ok(Err(why)) => return why.to_string(),
            Err(_) => return "it has fallen silent".to_owned(),
        };
        events.push(&chunk);
        while let Some((said, counts)) = events.next() {
            deadline = Instant::now() + counts.max(LEAST_PAUSE);
            *heard = true;
            if news.send((at, said)).await.is_err() {
                return "nobody wants to hear of it".to_owned();
            }
        }
        if events.0.is_too_long() {
            return "it says too much at a time".to_owned();
        }
    }
}

/// Takes a stream apart into what a sidecar says.
#[derive(Debug, Default)]
pub(super) struct Events(pub(super) Frames);

impl Events {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.0.push(bytes);
    }

    /// The next whole event that means something to us.
    pub(super) fn next(&mut self) -> Option<(News, Duration)> {
        while let Some((name, data)) = self.0.next() {
            if let Some(read) = read(&name, &data) {
                return Some(read);
            }
        }
        None
    }
}

#[derive(Deserialize)]
struct Times {
    fresh_ms: u64,
    heartbeat_ms: u64,
}

impl Times {
    /// How long what was said counts: while the last look does, and heartbeats come.
    fn counts(&self) -> Duration {
        let beats = Duration::from_millis(self.heartbeat_ms).saturating_mul(BEATS);
        Duration::from_millis(self.fresh_ms).min(beats).min(MOST_TIME)
    }
}

#[derive(Deserialize)]
struct Everything {
    services: BTreeMap<String, Word>,
}

#[derive(Deserialize)]
struct Change {
    service: String,
    #[serde(flatten)]
    word: Word,
}

/// Reads one event; `None` for one that only a newer sidecar knows.
fn read(name: &str, data: &str) -> Option<(News, Duration)> {
    let (words, all) = match name {
        "verdicts" => (serde_json::from_str::<Everything>(data).ok()?.services, true),
        "verdict" => {
            let Change { service, word } = serde_json::from_str(data).ok()?;
            ([(service, word)].into(), false)
        }
        "fresh" => (BTreeMap::new(), false),
        _ => return None,
    };
    let counts = serde_json::from_str::<Times>(data).ok()?.counts();
    Some((News::Heard { words, all, counts }, counts))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::State;

    fn all(events: &mut Events) -> Vec<(News, Duration)> {
        std::iter::from_fn(|| events.next()).collect()
    }

    #[test]
    fn events_are_read_however_they_are_cut() {
        let text = "event: verdicts\ndata: {\"services\":{\"write\":{\"state\":\"up\",\"weight\":7}},\
                    \"fresh_ms\":900,\"heartbeat_ms\":500}\n\n: a comment\n\nevent: fresh\ndata: \
                    {\"fresh_ms\":9000,\"heartbeat_ms\":500}\n\nevent: new\ndata: {}\n\nevent: verdict\ndata: \
                    {\"service\":\"read\",\"fresh_ms\":1,\"heartbeat_ms\":1,\"state\":\"down\",\"weight\":0,\
                    \"reasons\":[{\"code\":\"new\",\"criterion\":null,\"else\":\"down\",\"text\":\"x\"}]}\n\n";
        let mut whole = Events::default();
        whole.push(text.as_bytes());
        let whole = all(&mut whole);
        let mut cut = Events::default();
        let mut seen = Vec::new();
        for byte in text.as_bytes() {
            cut.push(&[*byte]);
            seen.extend(all(&mut cut));
        }
        assert_eq!(whole, seen);
        let [(News::Heard { words, all: true, counts }, _), fresh, change] = &whole[..] else {
            panic!("{whole:?}");
        };
        assert_eq!((words["write"].weight.percent(), *counts), (7, Duration::from_millis(900)));
        assert_eq!(fresh.1, Duration::from_millis(1500), "three heartbeats");
        let News::Heard { words, all: false, .. } = &change.0 else { panic!("{change:?}") };
        assert_eq!((words["read"].state, words["read"].weight.percent()), (State::Down, 1));
        assert_eq!(words["read"].reasons[0].code, "new");
    }

    #[test]
    fn nonsense_is_no_event() {
        for text in [
            "\n\n",
            "event: verdicts\n\n",
            "event: verdicts\ndata: {}\n\n",
            "event: fresh\ndata: 1\n\n",
        ] {
            let mut events = Events::default();
            events.push(text.as_bytes());
            assert_eq!((all(&mut events), events.0.rest().len()), (vec![], 0), "{text:?}");
        }
        let mut events = Events::default();
        events.push(b"\xff\n\nevent");
        assert_eq!((all(&mut events), events.0.rest().len()), (vec![], 5));
    }
}
