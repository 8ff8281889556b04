//! The keeper at work: the one task that changes what is in force.
//!
//! A request is acknowledged once it is kept and published, never before. All requests that wait are kept by one write.
//! Writing and reading happen aside, one of each at a time, so that a disk that hangs delays neither expiry nor
//! the folder, and the other way round.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinError, JoinHandle, spawn_blocking};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::folder::{Change, Folder, Look};
use super::spoken::Spoken;
use super::{Book, Clear, Entry, Loaded, Now, Refused, Request, Ruling, Store, time};

/// The most requests that wait, and that one write keeps.
const WAITING: usize = 1024;
/// How long a request waits for the disk.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often the folder is read.
const FOLDER_EVERY: Duration = Duration::from_millis(500);
/// How often ends are looked for, and how soon a failed write is tried again.
const CHECK_EVERY: Duration = Duration::from_secs(1);

/// Where requests are handed in; copies are one desk.
#[derive(Clone, Debug)]
pub struct Desk(mpsc::Sender<Ask>);

impl Desk {
    /// Orders something. Returns once it is kept and published, with the generation that has it.
    ///
    /// # Errors
    ///
    /// With a sentence; see [`Refused`].
    pub async fn set(&self, request: Request) -> Result<u64, Refused> {
        self.ask(Deed::Set(request)).await
    }

    /// Ends orders. Returns once that is kept and published, with the generation that has it.
    ///
    /// # Errors
    ///
    /// With a sentence; see [`Refused`].
    pub async fn clear(&self, clear: Clear) -> Result<u64, Refused> {
        self.ask(Deed::Clear(clear)).await
    }

    async fn ask(&self, deed: Deed) -> Result<u64, Refused> {
        let (told, answer) = oneshot::channel();
        let stopped = || Refused::Unknown("the sidecar stops".to_owned());
        let asking = async {
            self.0.send(Ask { deed, told }).await.map_err(|_| stopped())?;
            answer.await.map_err(|_| stopped())?
        };
        timeout(PATIENCE, asking).await.unwrap_or_else(|_| {
            let limit = humantime::format_duration(PATIENCE);
            let text = format!(
                "the state directory's disk did not answer within {limit}; the request may still come into force"
            );
            Err(Refused::Unknown(text))
        })
    }
}

#[derive(Debug)]
struct Ask {
    deed: Deed,
    told: oneshot::Sender<Result<u64, Refused>>,
}

#[derive(Debug)]
enum Deed {
    Set(Request),
    Clear(Clear),
}

/// Keeps what operators order, ends it in time, and publishes what is in force.
#[derive(Debug)]
pub struct Keeper {
    book: Book,
    shelf: Shelf,
    /// What is in force is not what is kept.
    unkept: bool,
    folder: Option<Folder>,
    /// What was wrong when the store was opened.
    notes: Vec<String>,
    /// Why the last write failed.
    trouble: Option<String>,
    asks: mpsc::Receiver<Ask>,
    /// So that the desk stays open when nobody else has it.
    _desk: Desk,
    ruling: watch::Sender<Arc<Ruling>>,
    now: fn() -> Now,
}

/// Where books are kept.
#[derive(Debug)]
enum Shelf {
    /// Nowhere.
    Memory,
    Free(Store),
    /// Somebody writes to it.
    Taken,
}

/// A group of requests that is being kept.
#[derive(Debug)]
struct Group {
    draft: Book,
    /// What to say once it is kept.
    lines: Vec<Line>,
    told: Vec<oneshot::Sender<Result<u64, Refused>>>,
}

#[derive(Debug)]
enum Line {
    Set(Entry),
    Cleared(Entry, Arc<str>),
    Found(Arc<str>),
}

type Saving = (Group, JoinHandle<(Store, io::Result<()>)>);

impl Keeper {
    /// A keeper of what was loaded, its desk, and what is in force.
    ///
    /// Without a store it keeps in memory only. With one it reads the folder once, which blocks, so that nothing is up
    /// before that is known.
    #[must_use]
    pub fn new(store: Option<Store>, loaded: Loaded) -> (Self, Desk, watch::Receiver<Arc<Ruling>>) {
        Self::with_clock(store, loaded, Now::read)
    }

    fn with_clock(
        store: Option<Store>,
        loaded: Loaded,
        now: fn() -> Now,
    ) -> (Self, Desk, watch::Receiver<Arc<Ruling>>) {
        let (desk, asks) = mpsc::channel(WAITING);
        let desk = Desk(desk);
        let (ruling, published) = watch::channel(Arc::default());
        let folder = store.as_ref().map(|store| Folder::new(store.folder()));
        let mut keeper = Self {
            book: loaded.book,
            shelf: store.map_or(Shelf::Memory, Shelf::Free),
            unkept: false,
            folder,
            notes: loaded.notes,
            trouble: None,
            asks,
            _desk: desk.clone(),
            ruling,
            now,
        };
        for note in &keeper.notes {
            warn!("Overrides: {note}.");
        }
        if let Some(look) = keeper.folder.as_ref().map(Folder::looker) {
            keeper.looked(look());
        }
        keeper.expire(None);
        keeper.publish();
        (keeper, desk, published)
    }

    /// Keeps until it is stopped. What is being kept then is still acknowledged.
    pub async fn run(mut self, stop: CancellationToken) {
        let ticks = |every| {
            let mut ticks = interval(every);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            ticks
        };
        let (mut checks, mut looks) = (ticks(CHECK_EVERY), ticks(FOLDER_EVERY));
        let mut saving: Option<Saving> = None;
        let mut looking: Option<JoinHandle<io::Result<Look>>> = None;
        let mut asks = Vec::new();
        loop {
            tokio::select! {
                _ = self.asks.recv_many(&mut asks, WAITING), if saving.is_none() => {
                    saving = self.begin(asks.drain(..));
                }
                done = finished(saving.as_mut().map(|(_, task)| task)) => {
                    let Some((group, _)) = saving.take() else { continue };
                    // Only a stop of the runtime ends it otherwise.
                    let Ok((store, result)) = done else { return };
                    self.finish(group, store, result);
                }
                _ = looks.tick(), if self.folder.is_some() && looking.is_none() => {
                    looking = self.folder.as_ref().map(Folder::looker).map(spawn_blocking);
                }
                look = finished(looking.as_mut()) => {
                    looking = None;
                    let Ok(look) = look else { return };
                    if self.looked(look) {
                        self.publish();
                    }
                }
                _ = checks.tick(), if self.checks(saving.is_some()) => {
                    if self.expire(saving.as_mut().map(|(group, _)| group)) {
                        self.publish();
                    }
                    if self.unkept && saving.is_none() {
                        saving = self.begin(std::iter::empty());
                    }
                }
                () = stop.cancelled() => break,
            }
        }
        if let Some((group, task)) = saving
            && let Ok((store, result)) = task.await
        {
            self.finish(group, store, result);
        }
    }

    /// Whether something can end by itself, or must be kept again.
    fn checks(&self, saving: bool) -> bool {
        let mut entries = self.book.entries().chain(self.folder.iter().flat_map(Folder::entries));
        saving || self.unkept || entries.any(|entry| entry.expiry.until().is_some())
    }

    /// Applies requests to a draft, and has it kept.
    fn begin(&mut self, asks: impl Iterator<Item = Ask>) -> Option<Saving> {
        // What has ended must neither be refreshed nor take room.
        if self.expire(None) {
            self.publish();
        }
        let now = (self.now)();
        let mut group = Group { draft: self.book.clone(), lines: Vec::new(), told: Vec::new() };
        for ask in asks {
            match group.apply(ask.deed, &now) {
                Ok(()) => group.told.push(ask.told),
                // Whoever asked may have gone meanwhile, here and below.
                Err(refused) => drop(ask.told.send(Err(refused))),
            }
        }
        if group.told.is_empty() && !self.unkept {
            return None;
        }
        match std::mem::replace(&mut self.shelf, Shelf::Taken) {
            Shelf::Free(mut store) => {
                let book = group.draft.clone();
                let task = spawn_blocking(move || {
                    let result = store.save(&book);
                    (store, result)
                });
                Some((group, task))
            }
            other => {
                self.shelf = other;
                self.adopt(group);
                None
            }
        }
    }

    fn finish(&mut self, group: Group, store: Store, result: io::Result<()>) {
        self.shelf = Shelf::Free(store);
        match result {
            Ok(()) => {
                if self.trouble.take().is_some() {
                    info!("Overrides can be kept again.");
                }
                self.notes.clear();
                self.adopt(group);
            }
            Err(e) => {
                let text = format!("{e}; what was in force stays");
                if self.trouble.as_ref() != Some(&text) {
                    warn!("Overrides: {text}.");
                }
                // A file that was put in place before the failure must not outlast it.
                self.unkept = true;
                self.trouble = Some(text.clone());
                self.publish();
                for told in group.told {
                    let _ = told.send(Err(Refused::NotKept(text.clone())));
                }
            }
        }
    }

    /// Puts a draft that is kept into force, and acknowledges it.
    fn adopt(&mut self, group: Group) {
        self.unkept = false;
        self.book = group.draft;
        self.expire(None);
        let generation = self.publish();
        for line in group.lines {
            line.log();
        }
        for told in group.told {
            let _ = told.send(Ok(generation));
        }
    }

    /// Ends what is over, also in what is being kept; whether anything was.
    fn expire(&mut self, saving: Option<&mut Group>) -> bool {
        let now = (self.now)();
        let mut ended = self.book.expire(&now);
        self.unkept |= !ended.is_empty();
        if let Some(group) = saving {
            group.draft.expire(&now);
        }
        ended.extend(self.folder.iter_mut().flat_map(|folder| folder.expire(&now)));
        for entry in &ended {
            say(entry, &entry.by, "An override has expired.");
        }
        !ended.is_empty()
    }

    /// Takes a look at the folder into account; whether that changed anything.
    fn looked(&mut self, look: io::Result<Look>) -> bool {
        let Some(folder) = &mut self.folder else { return false };
        let changes = folder.take(look, &(self.now)());
        for change in &changes {
            match change {
                Change::Set(entry) => say(entry, &entry.by, "An override was set by a file."),
                Change::Removed(entry) => {
                    say(entry, &entry.by, "An override was cleared: its file is gone.");
                }
                Change::Wrong(text) => warn!("Overrides: {text}."),
                Change::Mended => {}
            }
        }
        !changes.is_empty()
    }

    fn publish(&self) -> u64 {
        let folder = self.folder.iter();
        let entries = self.book.entries().chain(folder.clone().flat_map(Folder::entries)).cloned();
        let notes = self.notes.iter().chain(&self.trouble);
        let notes = notes.chain(folder.flat_map(Folder::notes)).cloned().collect();
        let generation = self.ruling.borrow().generation + 1;
        let ruling = Ruling::new(generation, self.book.is_lost(), entries.collect(), notes);
        self.ruling.send_replace(Arc::new(ruling));
        generation
    }
}

impl Group {
    fn apply(&mut self, deed: Deed, now: &Now) -> Result<(), Refused> {
        match deed {
            Deed::Set(request) => {
                self.lines.extend(self.draft.set(&request, now)?.into_iter().map(Line::Set));
            }
            Deed::Clear(clear) => {
                let lost = self.draft.is_lost();
                for entry in self.draft.clear(&clear) {
                    self.lines.push(Line::Cleared(entry, Arc::clone(&clear.by)));
                }
                if lost && !self.draft.is_lost() {
                    self.lines.push(Line::Found(clear.by));
                }
            }
        }
        Ok(())
    }
}

impl Line {
    fn log(&self) {
        match self {
            Self::Set(entry) => say(entry, &entry.by, "An override was set."),
            Self::Cleared(entry, by) => say(entry, by, "An override was cleared."),
            Self::Found(by) => info!(by = &**by, "The loss of overrides was cleared."),
        }
    }
}

fn say(entry: &Entry, by: &str, what: &str) {
    info!(
        service = &*entry.service,
        owner = &*entry.owner,
        word = %Spoken::from(entry.word),
        reason = &*entry.reason,
        by,
        until = entry.expiry.until().map(time::rfc3339),
        "{what}"
    );
}

/// What a task returns; never, where there is none.
async fn finished<T>(task: Option<&mut JoinHandle<T>>) -> Result<T, JoinError> {
    match task {
        Some(task) => task.await,
        None => std::future::pending().await,
    }
}
