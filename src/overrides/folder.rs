//! Overrides as files, for scripts: `STATE_DIR/override.d/SERVICE` with one line, `drain 30m disk swap`.
//!
//! A file that is there and cannot be read, or makes no sense any more, never ends what it ordered before: only its
//! removal does, or its expiry.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Read as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustix::fs::OFlags;

use super::request::{FILE, check_reason};
use super::time::whole_millis;
use super::wire::length;
use super::{Entry, Expiry, Now, spoken};
use crate::config::is_word;
use crate::health::Word;

/// The most files that are looked at.
const FILES: usize = 64;
/// The most that are listed at all.
const LISTED: usize = 1024;
/// The most bytes of a file.
const BYTES: u64 = 1024;

/// One file as it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sheet {
    pub(super) name: String,
    pub(super) written: SystemTime,
    pub(super) owner: u32,
    /// What it says, or why it cannot be read.
    pub(super) text: Result<String, String>,
}

/// All files, as they were found.
#[derive(Debug)]
pub(super) struct Look {
    pub(super) sheets: Vec<Sheet>,
    /// There are more, which were not looked at.
    pub(super) more: bool,
}

/// Reads the folder, files that are known before others, and makes it where it is missing. This blocks.
fn look(dir: &Path, known: &BTreeSet<String>) -> io::Result<Look> {
    let listed = match fs::read_dir(dir) {
        Err(e) if e.kind() == ErrorKind::NotFound => {
            fs::DirBuilder::new().mode(0o700).create(dir)?;
            fs::read_dir(dir)?
        }
        listed => listed?,
    };
    let mut names = Vec::new();
    for (n, file) in listed.enumerate() {
        if n >= LISTED {
            return Err(io::Error::other(format!("it has more than {LISTED} files")));
        }
        let name = file?.file_name().to_string_lossy().into_owned();
        // Editors leave these, and scripts write them before they rename.
        if !name.starts_with('.') && !name.ends_with('~') {
            names.push(name);
        }
    }
    // What is in force must not be pushed out by files that came later.
    names.sort_by(|a, b| (!known.contains(a), a).cmp(&(!known.contains(b), b)));
    let more = names.len() > FILES;
    names.truncate(FILES);
    let sheets = names.into_iter().filter_map(|name| sheet(dir, name)).collect();
    Ok(Look { sheets, more })
}

/// Reads one file; `None` when it has just gone.
fn sheet(dir: &Path, name: String) -> Option<Sheet> {
    let read = || {
        let mut options = OpenOptions::new();
        // Neither a pipe that nobody writes to nor a link to somebody's secret.
        let flags = (OFlags::NONBLOCK | OFlags::NOFOLLOW).bits();
        let file = options.read(true).custom_flags(flags.cast_signed()).open(dir.join(&name))?;
        let about = file.metadata()?;
        if !about.is_file() {
            return Err(io::Error::other("it is no ordinary file"));
        }
        let mut text = String::new();
        // One byte more shows that there are more.
        let text = match file.take(BYTES + 1).read_to_string(&mut text) {
            Ok(read) if read as u64 <= BYTES => Ok(text),
            Ok(_) => Err(format!("it has more than {BYTES} bytes")),
            Err(e) => Err(e.to_string()),
        };
        Ok((text, about.modified()?, about.uid()))
    };
    match read() {
        Ok((text, written, owner)) => {
            Some(Sheet { name, written: whole_millis(written), owner, text })
        }
        Err(e) if e.kind() == ErrorKind::NotFound => None,
        Err(e) => {
            let text = Err(e.to_string());
            Some(Sheet { name, written: SystemTime::UNIX_EPOCH, owner: 0, text })
        }
    }
}

/// What one line orders.
#[derive(Debug, PartialEq, Eq)]
struct Line<'a> {
    word: Word,
    length: Option<std::time::Duration>,
    reason: &'a str,
}

fn line(text: &str) -> Result<Line<'_>, String> {
    let text = text.trim();
    if text.is_empty() {
        return Err("it is empty; expected a line such as `drain 30m disk swap`".to_owned());
    }
    if text.contains('\n') {
        return Err("it has more than one line".to_owned());
    }
    let (name, mut rest) = first(text);
    let word = if name == "weight" {
        let (percent, after) = first(rest);
        rest = after;
        let percent = percent.parse().map_err(|_| "expected `weight N REASON`, N from 1 to 100")?;
        spoken::weight(percent)?
    } else {
        spoken::state(name).map_err(|e| format!("{e}, or `weight N`"))?
    };
    let (time, after) = first(rest);
    let length = length(time);
    // Times are kept in whole milliseconds.
    if length.is_some_and(|length| length.as_millis() == 0) {
        return Err(format!("`{time}` is over before it begins"));
    }
    let reason = if length.is_some() { after } else { rest };
    check_reason(reason)?;
    Ok(Line { word, length, reason })
}

/// The first word, and what follows it.
fn first(text: &str) -> (&str, &str) {
    text.split_once([' ', '\t']).map_or((text, ""), |(first, rest)| (first, rest.trim_start()))
}

/// What the folder orders.
#[derive(Debug)]
pub(super) struct Folder {
    dir: PathBuf,
    pages: BTreeMap<String, Page>,
    /// What is wrong with the folder as a whole.
    trouble: Option<String>,
}

/// A file that was seen.
#[derive(Debug)]
struct Page {
    sheet: Sheet,
    entry: Option<Entry>,
    wrong: Option<String>,
}

/// What a look at the folder brought.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// This is in force from now on.
    Set(Entry),
    /// Its file was removed.
    Removed(Entry),
    /// Something is wrong, in a sentence.
    Wrong(String),
    /// What was wrong is not wrong any more.
    Mended,
}

impl Folder {
    pub(super) const fn new(dir: PathBuf) -> Self {
        Self { dir, pages: BTreeMap::new(), trouble: None }
    }

    /// A look at it, for a thread of its own.
    pub(super) fn looker(&self) -> impl FnOnce() -> io::Result<Look> + Send + 'static {
        let (dir, known) = (self.dir.clone(), self.pages.keys().cloned().collect());
        move || look(&dir, &known)
    }

    /// What is in force.
    pub(super) fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.pages.values().filter_map(|page| page.entry.as_ref())
    }

    /// What is wrong, a sentence each.
    pub(super) fn notes(&self) -> impl Iterator<Item = &String> {
        self.trouble.iter().chain(self.pages.values().filter_map(|page| page.wrong.as_ref()))
    }

    /// Ends what is over, and gives what has ended.
    pub(super) fn expire(&mut self, now: &Now) -> Vec<Entry> {
        let over = |entry: &mut Entry| entry.expiry.is_over(now);
        self.pages.values_mut().filter_map(|page| page.entry.take_if(over)).collect()
    }

    /// Takes a look into account.
    pub(super) fn take(&mut self, look: io::Result<Look>, now: &Now) -> Vec<Change> {
        let mut changes = Vec::new();
        let dir = self.dir.display().to_string();
        let trouble = match &look {
            Ok(look) if look.more => {
                Some(format!("{dir} has more than {FILES} files; those beyond are ignored"))
            }
            Ok(_) => None,
            Err(e) => {
                Some(format!("cannot read {dir}: {e}; what it ordered before stays in force"))
            }
        };
        if trouble != self.trouble {
            changes.push(trouble.clone().map_or(Change::Mended, Change::Wrong));
            self.trouble = trouble;
        }
        let Ok(look) = look else { return changes };
        let here = |name: &String| look.sheets.iter().any(|sheet| sheet.name == *name);
        for (_, page) in self.pages.extract_if(.., |name, _| !here(name)) {
            changes.push(page.entry.map_or(Change::Mended, Change::Removed));
        }
        for sheet in look.sheets {
            let last = self.pages.remove(&sheet.name);
            let page = match last {
                Some(page) if page.sheet == sheet => page,
                last => self.read(sheet, last.and_then(|page| page.entry), now, &mut changes),
            };
            self.pages.insert(page.sheet.name.clone(), page);
        }
        changes
    }

    /// Reads a file that is new, or not what it was.
    fn read(
        &self,
        sheet: Sheet,
        last: Option<Entry>,
        now: &Now,
        changes: &mut Vec<Change>,
    ) -> Page {
        match self.entry(&sheet, last.as_ref(), now) {
            Ok(entry) => {
                let entry = Some(entry).filter(|entry| !entry.expiry.is_over(now));
                changes.push(entry.clone().map_or(Change::Mended, Change::Set));
                Page { sheet, entry, wrong: None }
            }
            Err(wrong) => {
                let stays =
                    if last.is_some() { "; what it ordered before stays in force" } else { "" };
                let path = self.dir.join(&sheet.name);
                let wrong = format!("{} is not honoured: {wrong}{stays}", path.display());
                changes.push(Change::Wrong(wrong.clone()));
                Page { sheet, entry: last, wrong: Some(wrong) }
            }
        }
    }

    fn entry(&self, sheet: &Sheet, last: Option<&Entry>, now: &Now) -> Result<Entry, String> {
        if !is_word(&sheet.name) {
            return Err("its name is not the name of a service".to_owned());
        }
        let line = line(sheet.text.as_ref()?)?;
        let refreshed = last.filter(|last| last.word == line.word);
        let path = self.dir.join(&sheet.name);
        Ok(Entry {
            service: sheet.name.as_str().into(),
            owner: FILE.into(),
            word: line.word,
            reason: line.reason.into(),
            by: format!("{} (uid {})", path.display(), sheet.owner).into(),
            since: refreshed.map_or(sheet.written, |last| last.since),
            expiry: line
                .length
                .map_or(Expiry::Never, |length| Expiry::since(sheet.written, length, now)),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::health::Weight;

    fn taken(folder: &mut Folder, now: &Now) -> Vec<Change> {
        let look = folder.looker();
        folder.take(look(), now)
    }

    fn words(folder: &Folder) -> Vec<(&str, Word)> {
        folder.entries().map(|entry| (&*entry.service, entry.word)).collect()
    }

    #[test]
    fn lines_are_read() {
        let minutes = |n| Some(Duration::from_mins(n));
        for (text, word, length, reason) in [
            ("drain 30m disk swap\n", Word::Drain, minutes(30), "disk swap"),
            ("maint   2 disks failed", Word::Maint, None, "2 disks failed"),
            ("weight 30 1h busy", Word::Weight(Weight::clamped(30)), minutes(60), "busy"),
            ("up well\r\n", Word::Up, None, "well"),
        ] {
            assert_eq!(line(text), Ok(Line { word, length, reason }));
        }
        for (text, error) in [
            ("", "it is empty; expected a line"),
            (
                "drian 30m x",
                "`drian` cannot be ordered; expected drain, maint, down or up, or `weight N`",
            ),
            ("drain", "a reason is required"),
            ("drain 30m", "a reason is required"),
            ("weight", "expected `weight N REASON`"),
            ("weight 0 x", "a weight of 0 is out of range"),
            ("weight 50", "a reason is required"),
            ("drain 31ns x", "`31ns` is over before it begins"),
            ("drain a\ndrain b", "more than one line"),
            ("drain a\u{7}", "the reason holds U+0007"),
        ] {
            let found = line(text).unwrap_err();
            assert!(found.contains(error), "{text}: {found}");
        }
    }

    #[test]
    fn a_file_orders_until_it_is_removed() {
        let place = tempfile::tempdir().unwrap();
        let mut folder = Folder::new(place.path().join("override.d"));
        assert_eq!(taken(&mut folder, &Now::read()), []);
        let file = folder.dir.join("read");
        fs::write(&file, "drain disk swap\n").unwrap();
        let changes = taken(&mut folder, &Now::read());
        let [Change::Set(entry)] = &changes[..] else { panic!("{changes:?}") };
        assert_eq!((&*entry.owner, entry.word, &*entry.reason), ("file", Word::Drain, "disk swap"));
        assert!(entry.by.starts_with(&format!("{} (uid ", file.display())), "{}", entry.by);
        assert_eq!(entry.since, whole_millis(file.metadata().unwrap().modified().unwrap()));
        assert_eq!(taken(&mut folder, &Now::read()), []);
        fs::remove_file(&file).unwrap();
        assert_eq!(taken(&mut folder, &Now::read()), [Change::Removed(entry.clone())]);
        assert_eq!(words(&folder), []);
    }

    #[test]
    fn a_file_ends_by_itself_counted_from_when_it_was_written_and_a_touch_renews_it() {
        let place = tempfile::tempdir().unwrap();
        let mut folder = Folder::new(place.path().to_owned());
        let path = place.path().join("read");
        fs::write(&path, "drain 30m x").unwrap();
        let now = Now::read();
        let file = File::options().write(true).open(&path).unwrap();
        file.set_modified(now.wall - Duration::from_mins(20)).unwrap();
        taken(&mut folder, &now);
        let since = folder.entries().next().unwrap().since;
        let after = |mins| Now { boot: now.boot + Duration::from_mins(mins), ..now.clone() };
        assert_eq!(folder.expire(&after(9)).len(), 0);
        file.set_modified(now.wall).unwrap();
        taken(&mut folder, &now);
        // The first time stays, the end does not.
        assert_eq!(folder.entries().next().unwrap().since, since);
        assert_eq!(folder.expire(&after(29)).len(), 0);
        assert_eq!(folder.expire(&after(30)).len(), 1);
        // The file that is still there does not bring it back, nor does a restart.
        assert_eq!(taken(&mut folder, &after(31)), []);
        file.set_modified(now.wall - Duration::from_mins(31)).unwrap();
        let mut anew = Folder::new(place.path().to_owned());
        taken(&mut anew, &now);
        assert_eq!((words(&folder), words(&anew)), (vec![], vec![]));
    }

    #[test]
    fn a_file_that_breaks_is_told_once_and_keeps_what_it_ordered() {
        let place = tempfile::tempdir().unwrap();
        let mut folder = Folder::new(place.path().to_owned());
        let file = place.path().join("read");
        fs::write(&file, "drain x").unwrap();
        taken(&mut folder, &Now::read());
        fs::write(&file, "").unwrap();
        let changes = taken(&mut folder, &Now::read());
        let [Change::Wrong(wrong)] = &changes[..] else { panic!("{changes:?}") };
        assert!(wrong.contains("read is not honoured: it is empty"), "{wrong}");
        assert!(wrong.ends_with("what it ordered before stays in force"), "{wrong}");
        assert_eq!(taken(&mut folder, &Now::read()), []);
        assert_eq!((words(&folder), folder.notes().count()), (vec![("read", Word::Drain)], 1));
        fs::write(&file, "up y").unwrap();
        taken(&mut folder, &Now::read());
        assert_eq!((words(&folder), folder.notes().count()), (vec![("read", Word::Up)], 0));
    }

    #[test]
    fn a_folder_that_cannot_be_read_ends_nothing() {
        let place = tempfile::tempdir().unwrap();
        let state = place.path().join("state");
        fs::create_dir_all(state.join("override.d")).unwrap();
        let mut folder = Folder::new(state.join("override.d"));
        fs::write(folder.dir.join("read"), "drain x").unwrap();
        taken(&mut folder, &Now::read());
        fs::rename(&state, place.path().join("away")).unwrap();
        let changes = taken(&mut folder, &Now::read());
        assert!(matches!(&changes[..], [Change::Wrong(_)]), "{changes:?}");
        assert_eq!(words(&folder), [("read", Word::Drain)]);
        fs::rename(place.path().join("away"), &state).unwrap();
        assert_eq!(taken(&mut folder, &Now::read()), [Change::Mended]);
    }

    #[test]
    fn strange_files_are_named_and_never_block() {
        let place = tempfile::tempdir().unwrap();
        let mut folder = Folder::new(place.path().to_owned());
        let at = |name: &str| place.path().join(name);
        fs::create_dir(at("a-folder")).unwrap();
        std::os::unix::fs::symlink("/etc/hostname", at("b-link")).unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            at("c-pipe"),
            rustix::fs::FileType::Fifo,
            0o600.into(),
            0,
        )
        .unwrap();
        fs::write(at("d-large"), "drain x".repeat(200)).unwrap();
        fs::write(at("e binary"), "drain x").unwrap();
        fs::write(at("f-binary"), [0xff, 0xfe]).unwrap();
        fs::write(at(".hidden"), "drain x").unwrap();
        fs::write(at("read~"), "drain x").unwrap();
        taken(&mut folder, &Now::read());
        assert_eq!(words(&folder), []);
        let notes: Vec<&String> = folder.notes().collect();
        assert_eq!(notes.len(), 6, "{notes:?}");
        for (note, cause) in notes.iter().zip([
            "no ordinary file",
            "symbolic link",
            "no ordinary file",
            "more than 1024 bytes",
            "not the name of a service",
            "UTF-8",
        ]) {
            assert!(note.contains(cause), "{note}");
        }
    }

    #[test]
    fn no_more_than_64_files_are_honoured() {
        let place = tempfile::tempdir().unwrap();
        for n in 100..170 {
            fs::write(place.path().join(format!("s{n}")), "drain x").unwrap();
        }
        let mut folder = Folder::new(place.path().to_owned());
        taken(&mut folder, &Now::read());
        assert_eq!(folder.entries().count(), 64);
        assert!(folder.notes().next().unwrap().contains("more than 64 files"));
        // One that sorts before them pushes none of them out.
        fs::write(place.path().join("a"), "drain x").unwrap();
        assert_eq!(taken(&mut folder, &Now::read()), []);
    }

    proptest! {
        #[test]
        fn no_line_is_too_strange(text in ".*") {
            let _ = line(&text);
        }
    }
}
