//! The keeper at work: the one task that hears what happens, and has it kept.
//!
//! It never waits for the disk: one write at a time is done aside, and what comes meanwhile waits in a bounded place.

use std::collections::{BTreeMap, VecDeque};
use std::future::ready;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::mpsc;
use tokio::task::{JoinError, spawn_blocking};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::archive::Archive;
use super::lately::{Lately, usable};
use super::minute::Tally;
use super::record::{Dated, Event, Found, Minutes, Record, Standing, Transition, Why};
use super::shelf::{Place, Shelf};
use super::timeline::Timelines;
use crate::board::{Answers, Board, NodeView};
use crate::counts::said;
use crate::health::{Code, Moment, Verdict};

/// News that wait for the keeper; each may hold a whole look.
const NEWS: usize = 32;
/// Events that wait for the disk.
const WAITING: usize = 256;
/// The least time between two writes, and after one that failed.
const CALM: Duration = Duration::from_secs(1);
const TROUBLED: Duration = Duration::from_mins(1);
/// How long a stop waits for the disk.
const LAST: Duration = Duration::from_secs(2);

/// What the judge tells.
#[derive(Debug)]
pub enum News {
    /// A look has finished. It comes before what follows from it.
    Looked(Arc<NodeView>),
    /// What is said of services, when it is something else.
    Said(Vec<Arc<Answers>>),
}

/// Where the judge tells; by default nobody listens.
#[derive(Clone, Debug, Default)]
pub struct Tap(Option<Line>);

/// The way to the keeper, and where it is counted what does not fit.
type Line = (mpsc::Sender<(Moment, News)>, Arc<Archive>);

impl Tap {
    /// Tells, and never waits: what does not fit is counted.
    pub fn tell(&self, now: Moment, news: News) {
        if let Some((sender, archive)) = &self.0
            && sender.try_send((now, news)).is_err()
        {
            archive.missing.add(1);
        }
    }
}

/// Keeps the history.
#[derive(Debug)]
pub struct Keeper {
    board: Arc<Board>,
    archive: Arc<Archive>,
    place: Place,
    news: mpsc::Receiver<(Moment, News)>,
    /// What was said last of each service, and why.
    current: BTreeMap<Arc<str>, (Standing, Vec<Code>)>,
    lately: Lately,
    tally: Tally,
    /// When the tally began.
    began: SystemTime,
    /// The minutes before it, which the next one may be like.
    open: Option<Dated<Minutes>>,
    /// They are others than those that are kept.
    unkept: bool,
    waiting: VecDeque<(SystemTime, Event)>,
    /// No write begins before.
    calm: Instant,
    timelines: Timelines,
}

/// Something that is being done aside.
type Aside = Pin<Box<dyn Future<Output = Result<Done, JoinError>> + Send>>;

/// Something done aside.
#[derive(Debug)]
struct Done {
    shelf: Shelf,
    /// What was there when it was opened, and how many lines of it cannot be read.
    opened: Option<(Timelines, u64)>,
    /// What was to be kept and is not.
    left: Vec<(SystemTime, Event)>,
    result: io::Result<()>,
}

impl Keeper {
    /// A keeper of a history in this directory, or in memory, and where the judge tells.
    pub(super) fn new(dir: Option<PathBuf>, board: Arc<Board>) -> (Self, Tap) {
        let place = dir.map_or_else(|| Place::Memory(Arc::default()), Place::Disk);
        let archive = Arc::new(Archive::new(place.clone()));
        let (sender, news) = mpsc::channel(NEWS);
        let (now, wall) = (board.clock.now(), SystemTime::now());
        let started = Event::Started { version: crate::VERSION.to_owned() };
        let mut keeper = Self {
            archive: Arc::clone(&archive),
            place,
            news,
            current: BTreeMap::new(),
            lately: Lately::default(),
            tally: Tally::new(now),
            began: wall,
            open: None,
            unkept: false,
            waiting: VecDeque::from([(wall, started)]),
            calm: Instant::now(),
            timelines: Timelines::default(),
            board,
        };
        let first: Vec<_> = keeper.board.table().services.iter().map(|s| s.answers()).collect();
        for answers in first {
            keeper.said(now, wall, &answers);
        }
        (keeper, Tap(Some((sender, archive))))
    }

    /// Where it is read.
    #[must_use]
    pub fn archive(&self) -> Arc<Archive> {
        Arc::clone(&self.archive)
    }

    /// Keeps until it is stopped, and then what there is.
    pub async fn run(mut self, stop: CancellationToken) {
        let place = self.place.clone();
        let mut shelf: Option<Shelf> = None;
        let mut aside: Option<Aside> = Some(Box::pin(spawn_blocking(move || open(place))));
        let mut minute = next_minute();
        loop {
            if let Some(free) = shelf.take_if(|_| self.is_due()) {
                aside = Some(self.write(free));
            }
            let calm = self.calm;
            tokio::select! {
                Some((now, news)) = self.news.recv() => self.hear(now, news),
                done = finished(aside.as_mut()) => {
                    aside = None;
                    // Only a stop of the runtime ends it otherwise.
                    let Ok(done) = done else { return };
                    shelf = Some(self.take(done));
                }
                () = sleep_until(minute) => {
                    self.minute();
                    minute = next_minute();
                }
                () = sleep_until(calm), if shelf.is_some() && self.has_work() => {}
                () = stop.cancelled() => break,
            }
        }
        while let Ok((now, news)) = self.news.try_recv() {
            self.hear(now, news);
        }
        self.minute();
        self.end_minutes();
        self.push(SystemTime::now(), Event::Stopped {});
        let last = async {
            if let Some(Ok(done)) = match aside {
                Some(aside) => Some(aside.await),
                None => None,
            } {
                shelf = Some(self.take(done));
            }
            if let Some(shelf) = shelf {
                let written = self.write(shelf).await;
                return written.is_ok_and(|done| done.result.is_ok());
            }
            false
        };
        if !timeout(LAST, last).await.unwrap_or(false) {
            warn!("The last minute of the history is not kept.");
        }
    }

    fn has_work(&self) -> bool {
        self.unkept || !self.waiting.is_empty()
    }

    fn is_due(&self) -> bool {
        self.has_work() && Instant::now() >= self.calm
    }

    fn hear(&mut self, now: Moment, news: News) {
        let wall = self.board.clock.wall(now);
        match news {
            News::Looked(view) => {
                match (&view.failure, &view.facts) {
                    (Some((code, _)), _) => self.tally.failed(code),
                    (None, Some(facts)) => {
                        let usable = facts.servers.iter().filter(|server| usable(server)).count();
                        self.tally.good(view.took, usable);
                    }
                    (None, None) => {}
                }
                self.lately.look(now, wall, &view);
            }
            News::Said(all) => {
                for answers in all {
                    self.said(now, wall, &answers);
                }
            }
        }
    }

    /// A verdict is published. A change of weight, or of figures in a sentence, is no transition.
    fn said(&mut self, now: Moment, wall: SystemTime, answers: &Answers) {
        let Answers { service, verdict, .. } = answers;
        self.tally.turn(now, service, said(verdict), verdict.weight.percent());
        let standing = Standing::from(verdict);
        let codes: Vec<Code> = verdict.reasons.iter().map(|reason| reason.code).collect();
        let last = self.current.insert(Arc::clone(service), (standing.clone(), codes.clone()));
        let same = |(last, why): &(Standing, Vec<Code>)| {
            let weight = standing.weight;
            Standing { weight, ..last.clone() } == standing && *why == codes
        };
        if last.as_ref().is_some_and(same) {
            return;
        }
        let from = last.map(|(last, _)| last);
        let before = self.lately.before(now);
        let transition = transition(service, from, standing, verdict, before);
        self.end_minutes();
        self.timelines.transition(wall, &transition);
        self.push(wall, Event::Transition(transition));
        self.show();
    }

    /// What is open is over: something else comes.
    fn end_minutes(&mut self) {
        if let Some(Dated { at, what, .. }) = self.open.take() {
            self.archive.open.store(None);
            self.push(at, Event::Minutes(what));
        }
        self.unkept = false;
    }

    fn push(&mut self, at: SystemTime, event: Event) {
        self.waiting.push_back((at, event));
        if self.waiting.len() > WAITING {
            self.waiting.pop_front();
            self.archive.missing.add(1);
        }
    }

    /// A minute has ended.
    fn minute(&mut self) {
        let table = self.board.table();
        let stays = |name: &str| table.services.iter().any(|service| &*service.name == name);
        let minutes = self.tally.close(self.board.clock.now(), stays);
        self.current.retain(|name, _| stays(name));
        let at = std::mem::replace(&mut self.began, SystemTime::now());
        self.timelines.minutes(at, &minutes);
        if !self.open.as_mut().is_some_and(|open| open.what.take(&minutes)) {
            self.end_minutes();
            self.open = Some(Dated { seq: 0, at, what: minutes });
        }
        self.archive.open.store(self.open.clone().map(Arc::new));
        self.unkept = true;
        self.show();
    }

    fn show(&self) {
        let now = self.current.iter().map(|(name, (standing, _))| (&**name, standing));
        self.archive.shown.store(Arc::new(self.timelines.shown(SystemTime::now(), now)));
    }

    /// Begins to write what waits.
    fn write(&mut self, mut shelf: Shelf) -> Aside {
        let events: Vec<_> = self.waiting.drain(..).collect();
        let open = self.open.clone().filter(|_| std::mem::take(&mut self.unkept));
        let in_memory = matches!(shelf, Shelf::Memory { .. });
        let write = move || {
            let appended = shelf.append(&events);
            let left = if appended.is_ok() { Vec::new() } else { events };
            let kept = open.map_or(Ok(()), |open| shelf.keep_open(open.at, open.what));
            Done { shelf, opened: None, left, result: appended.and(kept) }
        };
        // What cannot hang needs no thread.
        if in_memory { Box::pin(ready(Ok(write()))) } else { Box::pin(spawn_blocking(write)) }
    }

    fn take(&mut self, done: Done) -> Shelf {
        let Done { shelf, opened, left, result } = done;
        let written = opened.is_none();
        if let Some((mut timelines, bad)) = opened {
            self.archive.missing.add(bad);
            // Nothing was kept before it was opened, so what has happened since waits.
            for (at, event) in &self.waiting {
                timelines.record(&Record { seq: 0, at: *at, what: event.clone() });
            }
            if let Some(open) = &self.open {
                timelines.minutes(open.at, &open.what);
            }
            self.timelines = timelines;
            self.show();
        }
        for (at, event) in left.into_iter().rev() {
            self.waiting.push_front((at, event));
        }
        while self.waiting.len() > WAITING {
            self.waiting.pop_front();
            self.archive.missing.add(1);
        }
        self.calm = Instant::now()
            + match result {
                Ok(()) if written => CALM,
                Ok(()) => Duration::ZERO,
                Err(_) => TROUBLED,
            };
        let trouble = result.err().map(|e| e.to_string());
        if trouble.is_some() {
            self.archive.errors.add(1);
        }
        match (self.archive.troubled(trouble.clone()), trouble) {
            (true, Some(why)) => warn!("The history is not kept: {why}."),
            (true, None) => info!("The history is kept again."),
            _ => {}
        }
        let (records, bytes) = shelf.size();
        self.archive.records.store(records, Ordering::Relaxed);
        self.archive.bytes.store(bytes, Ordering::Relaxed);
        shelf
    }
}

fn open(place: Place) -> Done {
    let mut timelines = Timelines::default();
    let (shelf, read) = Shelf::open(place, |record| timelines.record(record));
    let (bad, result) = match read {
        Ok(bad) => (bad, Ok(())),
        Err(e) => (0, Err(e)),
    };
    Done { shelf, opened: Some((timelines, bad)), left: Vec::new(), result }
}

fn transition(
    service: &str,
    from: Option<Standing>,
    to: Standing,
    verdict: &Verdict,
    before: super::record::Before,
) -> Transition {
    Transition {
        service: service.to_owned(),
        from,
        to,
        reasons: verdict.reasons.iter().map(Why::from).collect(),
        findings: verdict.findings.iter().map(Found::from).collect(),
        before,
    }
}

/// When the wall clock's next minute begins, so that minutes are those of other logs.
fn next_minute() -> Instant {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let within = Duration::new(now.as_secs() % 60, now.subsec_nanos());
    Instant::now() + Duration::from_mins(1).saturating_sub(within) + Duration::from_millis(1)
}

/// Ends with what is done aside; never while nothing is.
async fn finished(aside: Option<&mut Aside>) -> Result<Done, JoinError> {
    match aside {
        Some(aside) => aside.await,
        None => std::future::pending().await,
    }
}
