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
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::folder::{Change, Folder, Look};
use super::request::FILE;
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
        // Ends that are counted anew after a start of the machine must not be counted anew at the next one.
        let unkept = store.is_some() && loaded.book.entries().next().is_some();
        let mut keeper = Self {
            book: loaded.book,
            shelf: store.map_or(Shelf::Memory, Shelf::Free),
            unkept,
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
        // Those who gave up were told that it may not come into force.
        for ask in asks.filter(|ask| !ask.told.is_closed()) {
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
                // What was wrong at the start is shown until an operator has put it right.
                if !group.told.is_empty() && !group.draft.is_lost() {
                    self.notes.clear();
                }
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
                if clear.owner.as_deref() == Some(FILE) {
                    let text = "what a file in override.d orders ends when that file is removed";
                    return Err(Refused::Senseless(text.to_owned()));
                }
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

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::path::Path;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::{SystemTime, UNIX_EPOCH};

    use tokio::task::JoinSet;
    use tokio::time::{Instant, advance, sleep};

    use super::super::Lasting;
    use super::super::kept;
    use super::*;
    use crate::health::Word;

    fn request(service: &str, owner: &str, word: Word) -> Request {
        Request {
            services: vec![service.into()],
            owner: owner.into(),
            word,
            reason: "a test".into(),
            by: "root".into(),
            expiry: Lasting::Never,
        }
    }

    fn lasting(secs: u64, request: Request) -> Request {
        Request { expiry: Lasting::For(Duration::from_secs(secs)), ..request }
    }

    fn everything() -> Clear {
        Clear { services: None, owner: None, by: "root".into() }
    }

    /// A keeper at work in a directory.
    struct Work {
        desk: Desk,
        ruling: watch::Receiver<Arc<Ruling>>,
        stop: CancellationToken,
        tasks: JoinSet<()>,
    }

    impl Work {
        fn start(dir: &Path) -> Self {
            let (store, loaded) = Store::open(dir).unwrap();
            Self::of(Keeper::new(Some(store), loaded))
        }

        fn in_memory() -> Self {
            thread_local!(static EPOCH: Instant = Instant::now());
            let now = || {
                let boot = EPOCH.with(Instant::elapsed);
                Now { wall: UNIX_EPOCH + boot, boot, boot_id: "one".into() }
            };
            Self::of(Keeper::with_clock(None, Loaded::default(), now))
        }

        fn of((keeper, desk, ruling): (Keeper, Desk, watch::Receiver<Arc<Ruling>>)) -> Self {
            let (stop, mut tasks) = (CancellationToken::new(), JoinSet::new());
            tasks.spawn(keeper.run(stop.clone()));
            Self { desk, ruling, stop, tasks }
        }

        fn words(&self) -> Vec<(String, Word)> {
            words(&self.ruling.borrow())
        }

        async fn until(&mut self, holds: impl FnMut(&Arc<Ruling>) -> bool) {
            let waiting = self.ruling.wait_for(holds);
            timeout(Duration::from_mins(2), waiting).await.unwrap().unwrap();
        }

        async fn end(mut self) {
            self.stop.cancel();
            while let Some(ended) = self.tasks.join_next().await {
                ended.unwrap();
            }
        }
    }

    fn words(ruling: &Ruling) -> Vec<(String, Word)> {
        ruling.entries.iter().map(|entry| (entry.service.to_string(), entry.word)).collect()
    }

    /// How often a book was kept in this directory.
    fn writes(dir: &Path) -> u64 {
        kept::read(&fs::read(dir.join("overrides.json")).unwrap(), &Now::read()).unwrap().1
    }

    fn pipe(at: &Path) {
        use rustix::fs::{CWD, FileType, mknodat};
        mknodat(CWD, at, FileType::Fifo, 0o600.into(), 0).unwrap();
    }

    #[tokio::test]
    async fn what_was_acknowledged_is_in_force_and_survives_a_restart() {
        let place = tempfile::tempdir().unwrap();
        let work = Work::start(place.path());
        let generation = work.desk.set(request("read", "ann", Word::Drain)).await.unwrap();
        assert_eq!(work.ruling.borrow().generation, generation);
        work.desk.set(lasting(3600, request("write", "ann", Word::Maint))).await.unwrap();
        work.desk.set(lasting(3600, request("gone", "ann", Word::Up))).await.unwrap();
        let clear = Clear { services: Some(vec!["gone".into()]), ..everything() };
        work.desk.clear(clear).await.unwrap();
        let before = work.ruling.borrow().entries.clone();
        work.end().await;
        let work = Work::start(place.path());
        assert_eq!(work.ruling.borrow().entries, before);
        assert_eq!(work.words(), [("read".into(), Word::Drain), ("write".into(), Word::Maint)]);
        let orders = work.ruling.borrow().orders("read", None);
        assert_eq!(orders.overrides[0].text, "a test (drain by ann, no end set)");
        work.end().await;
    }

    #[tokio::test]
    async fn a_thousand_requests_at_once_take_few_writes_and_all_are_kept() {
        let place = tempfile::tempdir().unwrap();
        let work = Work::start(place.path());
        let mut asking = JoinSet::new();
        for n in 0..1000 {
            let desk = work.desk.clone();
            let (service, owner) = (format!("s{}", n % 63), format!("o{}", n / 63));
            asking.spawn(async move { desk.set(request(&service, &owner, Word::Drain)).await });
        }
        while let Some(answer) = asking.join_next().await {
            answer.unwrap().unwrap();
        }
        assert!(writes(place.path()) <= 10, "{} writes", writes(place.path()));
        work.end().await;
        let work = Work::start(place.path());
        assert_eq!(work.words().len(), 1000);
        work.end().await;
    }

    #[tokio::test]
    async fn a_full_disk_refuses_and_what_was_in_force_stays() {
        let place = tempfile::tempdir().unwrap();
        let mut work = Work::start(place.path());
        work.desk.set(request("read", "ann", Word::Drain)).await.unwrap();
        let full = place.path().join("overrides.json.new");
        std::os::unix::fs::symlink("/dev/full", &full).unwrap();
        let refused = work.desk.clear(everything()).await.unwrap_err();
        assert!(matches!(refused, Refused::NotKept(_)));
        let text = refused.to_string();
        assert!(text.contains(&*place.path().to_string_lossy()), "{text}");
        assert!(text.contains("No space left on device"), "{text}");
        assert_eq!(work.words(), [("read".into(), Word::Drain)]);
        assert_eq!(work.ruling.borrow().notes, [text]);
        // It goes on, and writes again by itself once there is room.
        fs::remove_file(full).unwrap();
        work.until(|ruling| ruling.notes.is_empty()).await;
        work.desk.clear(everything()).await.unwrap();
        assert_eq!(work.words(), []);
        work.end().await;
    }

    #[tokio::test]
    async fn a_directory_that_vanished_refuses_and_what_was_in_force_stays() {
        let place = tempfile::tempdir().unwrap();
        let dir = place.path().join("state");
        let work = Work::start(&dir);
        fs::write(dir.join("override.d/write"), "down x").unwrap();
        work.desk.set(request("read", "ann", Word::Drain)).await.unwrap();
        work.ruling.clone().wait_for(|ruling| ruling.entries.len() == 2).await.unwrap();
        fs::rename(&dir, place.path().join("away")).unwrap();
        fs::write(&dir, "").unwrap();
        let refused = work.desk.set(request("read", "ann", Word::Up)).await.unwrap_err();
        let text = refused.to_string();
        assert!(text.contains(&*dir.to_string_lossy()), "{text}");
        assert!(text.ends_with("; what was in force stays"), "{text}");
        let noted = |ruling: &Arc<Ruling>| ruling.notes.len() == 2;
        work.ruling.clone().wait_for(noted).await.unwrap();
        assert_eq!(work.words(), [("read".into(), Word::Drain), ("write".into(), Word::Down)]);
        work.end().await;
    }

    #[tokio::test]
    async fn a_disk_that_hangs_delays_neither_expiry_nor_the_folder() {
        static LATER: AtomicU64 = AtomicU64::new(0);
        let now = || {
            let now = Now::read();
            Now { boot: now.boot + Duration::from_secs(LATER.load(Ordering::Relaxed)), ..now }
        };
        let place = tempfile::tempdir().unwrap();
        let (store, loaded) = Store::open(place.path()).unwrap();
        let mut work = Work::of(Keeper::with_clock(Some(store), loaded, now));
        work.desk.set(lasting(3600, request("read", "ann", Word::Drain))).await.unwrap();
        // Writing to a pipe hangs until somebody reads.
        let hangs = place.path().join("overrides.json.new");
        pipe(&hangs);
        let desk = work.desk.clone();
        let mut asking = JoinSet::new();
        asking.spawn(async move { desk.set(request("hung", "ann", Word::Down)).await });
        fs::write(place.path().join("override.d/write"), "maint x").unwrap();
        work.until(|ruling| ruling.entries.len() == 2).await;
        LATER.store(3600, Ordering::Relaxed);
        work.until(|ruling| words(ruling) == [("write".into(), Word::Maint)]).await;
        // The disk comes back, and refuses.
        let mut file = File::open(&hangs).unwrap();
        fs::remove_file(hangs).unwrap();
        io::copy(&mut file, &mut io::sink()).unwrap();
        assert!(asking.join_next().await.unwrap().unwrap().is_err());
        work.until(|ruling| ruling.notes.is_empty()).await;
        work.end().await;
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_ever_for_a_disk_that_hangs() {
        // The same as a keeper that never comes back from its disk.
        let (asks, _never_read) = mpsc::channel(WAITING);
        let refused = Desk(asks).set(request("read", "ann", Word::Down)).await.unwrap_err();
        assert!(matches!(refused, Refused::Unknown(_)));
        assert!(refused.to_string().contains("did not answer within 10s"), "{refused}");
    }

    #[tokio::test(start_paused = true)]
    async fn an_override_ends_by_itself_within_a_second() {
        let mut work = Work::in_memory();
        work.desk.set(lasting(60, request("read", "ann", Word::Drain))).await.unwrap();
        work.desk.set(request("write", "ann", Word::Drain)).await.unwrap();
        let start = Instant::now();
        work.until(|ruling| ruling.entries.len() == 1).await;
        let took = start.elapsed();
        assert!((60..=61).contains(&took.as_secs()), "{took:?}");
        // A refresh that comes just too late is an order of its own.
        work.desk.set(lasting(1, request("read", "ann", Word::Drain))).await.unwrap();
        let first = work.ruling.borrow().entries[0].since;
        advance(Duration::from_millis(1500)).await;
        work.desk.set(lasting(9, request("read", "ann", Word::Drain))).await.unwrap();
        assert!(work.ruling.borrow().entries[0].since > first);
        work.end().await;
    }

    #[tokio::test]
    async fn a_file_is_honoured_from_the_start_and_its_removal_ends_it() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("override.d/read");
        fs::create_dir(place.path().join("override.d")).unwrap();
        fs::write(&file, "drain 30m disk swap").unwrap();
        let mut work = Work::start(place.path());
        assert_eq!(work.words(), [("read".into(), Word::Drain)]);
        fs::write(&file, "weight 30 busy").unwrap();
        work.until(|ruling| words(ruling) != [("read".into(), Word::Drain)]).await;
        // Only its removal ends what a file orders, and whoever tries otherwise is told so.
        work.desk.clear(everything()).await.unwrap();
        let files = Clear { owner: Some("file".into()), ..everything() };
        let refused = work.desk.clear(files).await.unwrap_err();
        assert!(refused.to_string().contains("when that file is removed"), "{refused}");
        assert_eq!(work.words().len(), 1);
        fs::remove_file(&file).unwrap();
        work.until(|ruling| ruling.entries.is_empty()).await;
        work.end().await;
    }

    #[tokio::test]
    async fn a_loss_ends_only_when_everything_is_cleared_and_that_is_kept() {
        let place = tempfile::tempdir().unwrap();
        fs::write(place.path().join("overrides.json"), "rot").unwrap();
        let work = Work::start(place.path());
        assert!(work.ruling.borrow().lost);
        assert!(work.ruling.borrow().orders("any", None).lost);
        assert_eq!(work.ruling.borrow().notes.len(), 1);
        work.desk.set(request("read", "ann", Word::Up)).await.unwrap();
        work.end().await;
        let work = Work::start(place.path());
        assert!(work.ruling.borrow().lost);
        work.desk.clear(everything()).await.unwrap();
        assert!(!work.ruling.borrow().lost);
        work.end().await;
        let work = Work::start(place.path());
        assert!(!work.ruling.borrow().lost);
        assert_eq!(work.words(), []);
        work.end().await;
    }

    #[tokio::test]
    async fn what_ended_is_taken_out_of_what_is_kept() {
        let place = tempfile::tempdir().unwrap();
        let mut work = Work::start(place.path());
        work.desk.set(lasting(1, request("read", "ann", Word::Drain))).await.unwrap();
        let kept_before = writes(place.path());
        work.until(|ruling| ruling.entries.is_empty()).await;
        timeout(Duration::from_mins(2), async {
            while writes(place.path()) == kept_before {
                sleep(Duration::from_millis(10)).await;
            }
        })
        .await
        .unwrap();
        work.end().await;
        let bytes = fs::read(place.path().join("overrides.json")).unwrap();
        let past = Now { wall: SystemTime::UNIX_EPOCH, boot: Duration::ZERO, boot_id: "x".into() };
        assert_eq!(kept::read(&bytes, &past).unwrap().0, Book::default());
    }
}
