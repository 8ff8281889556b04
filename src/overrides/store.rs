//! The state directory: where the book is kept so that no power cut takes what was acknowledged.
//!
//! A book is written beside the current file, synced, and put in its place; the last one stays as
//! `overrides.json.1`. So at every moment one of the two is whole, whatever happens to the other.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use super::{Book, Now, kept};

const CURRENT: &str = "overrides.json";
const PREVIOUS: &str = "overrides.json.1";
const NEXT: &str = "overrides.json.new";
const LOCK: &str = "lock";
const FOLDER: &str = "override.d";

/// Keeps books in a directory that no other sidecar uses.
#[derive(Debug)]
pub struct Store {
    dir: PathBuf,
    /// Held as long as this lives. `None` while the directory cannot be used.
    lock: Option<File>,
    /// The current file is known to be broken, so it must not push out the previous one.
    broken: bool,
    generation: u64,
}

/// What a store held when it was opened; by default what there is without one.
#[derive(Debug, Default)]
pub struct Loaded {
    /// What was kept; see [`Book::is_lost`].
    pub book: Book,
    /// What is wrong with it, a sentence each.
    pub notes: Vec<String>,
}

/// Another sidecar uses the directory.
#[derive(Debug, thiserror::Error)]
#[error(
    "the state directory {dir} is in use by another sidecar ({who}); give each its own `state_dir`"
)]
pub struct InUse {
    dir: String,
    who: String,
}

impl Store {
    /// Opens a directory, makes it where it is missing, and reads what it keeps. This blocks.
    ///
    /// One that cannot be used is opened too: then the book is lost, and each save tries again.
    ///
    /// # Errors
    ///
    /// Only when another sidecar uses it.
    pub fn open(dir: &Path) -> Result<(Self, Loaded), InUse> {
        let mut store = Self { dir: dir.to_owned(), lock: None, broken: false, generation: 0 };
        let mut notes = Vec::new();
        match store.prepare() {
            Ok(()) => {}
            Err(Trouble::InUse(in_use)) => return Err(in_use),
            Err(Trouble::Io(e)) => notes.push(e.to_string()),
        }
        let book = store.load(&mut notes);
        Ok((store, Loaded { book, notes }))
    }

    /// The folder in which a file for each service can stand.
    #[must_use]
    pub fn folder(&self) -> PathBuf {
        self.dir.join(FOLDER)
    }

    /// Keeps a book: once this returns, no power cut takes it. This blocks.
    ///
    /// # Errors
    ///
    /// With a sentence that names the directory and the cause. What was kept before is still kept.
    pub fn save(&mut self, book: &Book) -> io::Result<()> {
        self.prepare().map_err(|trouble| match trouble {
            Trouble::Io(e) => e,
            Trouble::InUse(in_use) => io::Error::other(in_use),
        })?;
        let generation = self.generation + 1;
        self.write(book, generation)?;
        self.generation = generation;
        self.broken = false;
        Ok(())
    }

    fn write(&self, book: &Book, generation: u64) -> io::Result<()> {
        let bytes = kept::write(book, generation)?;
        let next = self.dir.join(NEXT);
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        let mut file = options.open(&next).map_err(|e| self.cannot("write", NEXT, &e))?;
        let written = file.write_all(&bytes).and_then(|()| file.sync_all());
        written.map_err(|e| self.cannot("write", NEXT, &e))?;
        let current = self.dir.join(CURRENT);
        if !self.broken {
            match fs::rename(&current, self.dir.join(PREVIOUS)) {
                Err(e) if e.kind() != ErrorKind::NotFound => {
                    return Err(self.cannot("move", CURRENT, &e));
                }
                _ => {}
            }
        }
        fs::rename(&next, &current).map_err(|e| self.cannot("move", NEXT, &e))?;
        sync(&self.dir).map_err(|e| self.cannot("sync", ".", &e))
    }

    /// Makes the directory where it is missing, and takes it for this process alone.
    fn prepare(&mut self) -> Result<(), Trouble> {
        for dir in [self.dir.clone(), self.folder()] {
            let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir);
            made.map_err(|e| self.cannot("make", &dir.display().to_string(), &e))?;
        }
        if self.lock.is_some() {
            return Ok(());
        }
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let path = self.dir.join(LOCK);
        let mut file = options.open(path).map_err(|e| self.cannot("open", LOCK, &e))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut who = String::new();
                let read = (&mut file).take(100).read_to_string(&mut who);
                if read.is_err() || who.trim().is_empty() {
                    "its process is not known".clone_into(&mut who);
                }
                let dir = self.dir.display().to_string();
                return Err(Trouble::InUse(InUse { dir, who: who.trim().to_owned() }));
            }
            Err(TryLockError::Error(e)) => return Err(self.cannot("lock", LOCK, &e).into()),
        }
        // Only for people to read; the lock itself is the kernel's, and ends with the process.
        let _ = file.set_len(0).and_then(|()| writeln!(file, "process {}", std::process::id()));
        // What the directory has is kept for good only once its parent is.
        if let Some(parent) = self.dir.parent() {
            let _ = sync(parent);
        }
        self.lock = Some(file);
        Ok(())
    }

    fn load(&mut self, notes: &mut Vec<String>) -> Book {
        let now = Now::read();
        let current = self.read(CURRENT, &now);
        if let Ok(Some((book, generation))) = current {
            self.generation = generation;
            return book;
        }
        let missing = current.is_ok();
        if let Err(note) = current {
            // In a directory that cannot be used at all, the file may be whole.
            self.broken = self.lock.is_some();
            notes.push(note);
        }
        match self.read(PREVIOUS, &now) {
            Ok(Some((book, generation))) => {
                // The file that cannot be read was one further.
                self.generation = generation + 1;
                if !missing {
                    let dir = self.dir.display();
                    notes.push(format!(
                        "the overrides are those of {dir}/{PREVIOUS}, one change older"
                    ));
                }
                book
            }
            Ok(None) if missing => Book::default(),
            Ok(None) => Book::lost(),
            Err(note) => {
                notes.push(note);
                Book::lost()
            }
        }
    }

    /// Reads one file; `None` when there is none.
    fn read(&self, name: &str, now: &Now) -> Result<Option<(Book, u64)>, String> {
        let file = match File::open(self.dir.join(name)) {
            Ok(file) => file,
            Err(e) if e.kind() == ErrorKind::NotFound && self.lock.is_some() => return Ok(None),
            Err(e) => return Err(self.cannot("open", name, &e).to_string()),
        };
        let mut bytes = Vec::new();
        file.take(kept::MOST)
            .read_to_end(&mut bytes)
            .map_err(|e| self.cannot("read", name, &e).to_string())?;
        kept::read(&bytes, now)
            .map(Some)
            .map_err(|why| self.cannot("read", name, &io::Error::other(why)).to_string())
    }

    fn cannot(&self, verb: &str, what: &str, cause: &io::Error) -> io::Error {
        let dir = self.dir.display();
        let text = format!("cannot {verb} {what} in the state directory {dir}: {cause}");
        io::Error::new(cause.kind(), text)
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        if let Some(lock) = &self.lock {
            // To close it is not enough while a child that is being started holds a copy.
            let _ = lock.unlock();
        }
    }
}

enum Trouble {
    Io(io::Error),
    InUse(InUse),
}

impl From<io::Error> for Trouble {
    fn from(e: io::Error) -> Self {
        Self::Io(e)
    }
}

/// Renames last through a power cut only once their directory is synced.
fn sync(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader};
    use std::process::{Command, Stdio};

    use super::super::{Lasting, Request};
    use super::*;
    use crate::health::Word;

    fn drain(reason: &str) -> Book {
        let mut book = Book::default();
        let request = Request {
            services: vec!["write".into()],
            owner: "ann".into(),
            word: Word::Drain,
            reason: reason.into(),
            by: "a test".into(),
            expiry: Lasting::Never,
        };
        book.set(&request, &Now::read()).unwrap();
        book
    }

    fn reasons(book: &Book) -> Vec<&str> {
        book.entries().map(|entry| &*entry.reason).collect()
    }

    fn open(dir: &Path) -> (Store, Loaded) {
        Store::open(dir).unwrap()
    }

    #[test]
    fn what_was_saved_is_there_after_a_restart_with_one_generation_before_it() {
        let place = tempfile::tempdir().unwrap();
        let dir = place.path().join("deep/state");
        let (mut store, loaded) = open(&dir);
        assert_eq!((&loaded.book, &loaded.notes[..]), (&Book::default(), &[][..]));
        store.save(&drain("one")).unwrap();
        store.save(&drain("two")).unwrap();
        drop(store);
        let (_store, loaded) = open(&dir);
        assert_eq!(reasons(&loaded.book), ["two"]);
        let previous = kept::read(&fs::read(dir.join(PREVIOUS)).unwrap(), &Now::read()).unwrap();
        assert_eq!((reasons(&previous.0), previous.1), (vec!["one"], 1));
        assert!(dir.join(FOLDER).is_dir());
    }

    #[test]
    fn a_torn_or_rotten_file_falls_back_to_the_generation_before_and_never_pushes_it_out() {
        let place = tempfile::tempdir().unwrap();
        let dir = place.path();
        let (mut store, _) = open(dir);
        store.save(&drain("one")).unwrap();
        store.save(&drain("two")).unwrap();
        drop(store);
        let whole = fs::read(dir.join(CURRENT)).unwrap();
        let mut rotten = whole.clone();
        rotten[60] ^= 1;
        for bad in [&whole[..whole.len() / 2], b"", &rotten] {
            fs::write(dir.join(CURRENT), bad).unwrap();
            let (mut store, loaded) = open(dir);
            assert_eq!(reasons(&loaded.book), ["one"]);
            assert!(!loaded.book.is_lost());
            assert_eq!(loaded.notes.len(), 2, "{:?}", loaded.notes);
            assert!(loaded.notes[0].starts_with("cannot read overrides.json in the state"));
            store.save(&drain("three")).unwrap();
            drop(store);
            // The broken one is gone, and the good one before it is not.
            let previous = kept::read(&fs::read(dir.join(PREVIOUS)).unwrap(), &Now::read());
            assert_eq!(reasons(&previous.unwrap().0), ["one"]);
            assert_eq!(reasons(&open(dir).1.book), ["three"]);
        }
    }

    #[test]
    fn a_power_cut_between_two_renames_loses_nothing() {
        let place = tempfile::tempdir().unwrap();
        let (mut store, _) = open(place.path());
        store.save(&drain("one")).unwrap();
        drop(store);
        fs::rename(place.path().join(CURRENT), place.path().join(PREVIOUS)).unwrap();
        let (_store, loaded) = open(place.path());
        assert_eq!((reasons(&loaded.book), &loaded.notes[..]), (vec!["one"], &[][..]));
    }

    #[test]
    fn with_both_files_unreadable_the_book_is_lost_and_stays_so_through_restarts() {
        let place = tempfile::tempdir().unwrap();
        let (mut store, _) = open(place.path());
        store.save(&drain("one")).unwrap();
        store.save(&drain("two")).unwrap();
        drop(store);
        for name in [CURRENT, PREVIOUS] {
            fs::write(place.path().join(name), "rot").unwrap();
        }
        let (mut store, loaded) = open(place.path());
        assert!(loaded.book.is_lost());
        assert_eq!(loaded.notes.len(), 2);
        let mut book = loaded.book;
        book.set(
            &Request {
                services: vec!["read".into()],
                owner: "ann".into(),
                word: Word::Up,
                reason: "well".into(),
                by: "a test".into(),
                expiry: Lasting::Never,
            },
            &Now::read(),
        )
        .unwrap();
        store.save(&book).unwrap();
        drop(store);
        let (_store, loaded) = open(place.path());
        assert!(loaded.book.is_lost());
        assert_eq!(reasons(&loaded.book), ["well"]);
    }

    #[test]
    fn with_the_only_file_unreadable_the_book_is_lost() {
        let place = tempfile::tempdir().unwrap();
        let (mut store, _) = open(place.path());
        store.save(&drain("one")).unwrap();
        drop(store);
        fs::write(place.path().join(CURRENT), "rot").unwrap();
        assert!(open(place.path()).1.book.is_lost());
    }

    #[test]
    fn a_directory_that_cannot_be_made_is_lost_and_refuses_until_it_can() {
        let place = tempfile::tempdir().unwrap();
        let obstacle = place.path().join("file");
        fs::write(&obstacle, "").unwrap();
        let dir = obstacle.join("state");
        let (mut store, loaded) = open(&dir);
        assert!(loaded.book.is_lost());
        let error = store.save(&drain("one")).unwrap_err().to_string();
        let named = format!("in the state directory {}: Not a directory", dir.display());
        assert!(error.contains(&named), "{error}");
        fs::remove_file(&obstacle).unwrap();
        store.save(&drain("two")).unwrap();
        drop(store);
        assert_eq!(reasons(&open(&dir).1.book), ["two"]);
    }

    #[test]
    fn a_full_disk_refuses_and_keeps_what_was_kept() {
        let place = tempfile::tempdir().unwrap();
        let (mut store, _) = open(place.path());
        store.save(&drain("one")).unwrap();
        // The kernel's own full disk, which needs no mount and no rights.
        let next = place.path().join(NEXT);
        std::os::unix::fs::symlink("/dev/full", &next).unwrap();
        let error = store.save(&drain("two")).unwrap_err().to_string();
        let named = format!("in the state directory {}: No space left", place.path().display());
        assert!(error.contains(&named), "{error}");
        fs::remove_file(&next).unwrap();
        drop(store);
        let (mut store, loaded) = open(place.path());
        assert_eq!(reasons(&loaded.book), ["one"]);
        store.save(&drain("three")).unwrap();
    }

    #[test]
    fn two_sidecars_never_share_a_directory_and_the_second_is_told_who_has_it() {
        let place = tempfile::tempdir().unwrap();
        let (store, _) = open(place.path());
        let error = Store::open(place.path()).unwrap_err().to_string();
        assert!(error.contains(&place.path().display().to_string()), "{error}");
        assert!(error.contains(&format!("(process {})", std::process::id())), "{error}");
        drop(store);
        open(place.path());
    }

    /// This test runs itself as a child that saves, says what it has saved, and goes on until it is killed.
    #[test]
    fn whatever_was_acknowledged_is_there_after_a_kill_at_any_moment() {
        const CHILD: &str = "HCF_TEST_SAVES_INTO";
        const NAME: &str = "overrides::store::tests::whatever_was_acknowledged_is_there_after_a_kill_at_any_moment";
        if let Some(dir) = std::env::var_os(CHILD) {
            let (mut store, _) = open(Path::new(&dir));
            for n in 0u64.. {
                store.save(&drain(&n.to_string())).unwrap();
                println!("\nsaved {n}");
            }
        }
        let place = tempfile::tempdir().unwrap();
        for round in 0usize..20 {
            let mut child = Command::new(std::env::current_exe().unwrap())
                .args([NAME, "--exact", "--nocapture"])
                .env(CHILD, place.path())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
            let number = |line: io::Result<String>| -> Option<u64> {
                line.unwrap().strip_prefix("saved ")?.parse().ok()
            };
            // Killed after another number of saves each time, wherever the next one is by then.
            let seen = lines.by_ref().filter_map(number).nth(round).unwrap();
            child.kill().unwrap();
            child.wait().unwrap();
            let acknowledged = lines.filter_map(number).last().unwrap_or(seen);
            let (_store, loaded) = open(place.path());
            let kept: u64 = reasons(&loaded.book)[0].parse().unwrap();
            assert!(kept >= acknowledged, "kept {kept}, acknowledged {acknowledged}");
            assert!(loaded.notes.is_empty(), "{:?}", loaded.notes);
        }
    }
}
