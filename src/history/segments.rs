//! The files of a history: segments of lines, each line a record behind the checksum of its bytes.
//!
//! A file is only appended to, and never again once it may be torn; what cannot be read costs its own line and no other.
//! The minutes that have not ended stand beside, in a file that is replaced whole.

use std::collections::VecDeque;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::record::{Dated, Event, Minutes, Record};
use super::{BYTES, KEEP, LINE};

/// The largest segment, in bytes: a sixteenth of all.
const SEGMENT: u64 = BYTES / 16;
/// The longest time that one segment holds.
const DAY: Duration = Duration::from_hours(24);
/// So many segments stay, however old the clock says they are: it may have been set forward by mistake.
const FEW: usize = 8;

const OPEN: &str = "open";
const NEXT: &str = "open.new";

/// A record as a line, with its checksum and its line end.
pub(super) fn line(record: &Record) -> io::Result<String> {
    let json = serde_json::to_string(record)?;
    Ok(format!("{:08x} {json}\n", crc32fast::hash(json.as_bytes())))
}

/// The lines of these events, numbered from the one after `seq`.
pub(super) fn lines(mut seq: u64, events: &[(SystemTime, Event)]) -> io::Result<String> {
    let mut text = String::new();
    for (at, what) in events {
        seq += 1;
        text.push_str(&line(&Record { seq, at: *at, what: what.clone() })?);
    }
    Ok(text)
}

/// What a line holds, without its line end; `None` when it is not what was written.
pub(super) fn parse(line: &[u8]) -> Option<Record> {
    let (sum, json) = line.split_at_checked(8)?;
    let json = json.strip_prefix(b" ")?;
    let sum = u32::from_str_radix(std::str::from_utf8(sum).ok()?, 16).ok()?;
    if crc32fast::hash(json) != sum {
        return None;
    }
    serde_json::from_slice(json).ok()
}

/// Reads lines, and hands on each that is whole with its length, until that returns `false`; returns how many are not
/// whole. One that is too long is none.
pub(super) fn read(
    from: impl io::Read,
    mut each: impl FnMut(Record, usize) -> bool,
) -> io::Result<u64> {
    let (mut from, mut bad) = (BufReader::with_capacity(16 << 10, from), 0);
    let mut line = Vec::new();
    loop {
        line.clear();
        if (&mut from).take(LINE + 1).read_until(b'\n', &mut line)? == 0 {
            return Ok(bad);
        }
        let whole = line.strip_suffix(b"\n");
        match whole.and_then(parse) {
            Some(record) => {
                if !each(record, line.len()) {
                    return Ok(bad);
                }
            }
            None => bad += 1,
        }
    }
}

/// The segments of a directory, in their order.
pub(super) fn paths(dir: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if let Some(number) = name.strip_suffix(".log").and_then(|number| number.parse().ok()) {
            found.push((number, path));
        }
    }
    found.sort();
    Ok(found)
}

/// Whether it has a name still: what somebody has removed would take lines that nobody can read.
fn stands(file: &File) -> bool {
    file.metadata().is_ok_and(|meta| meta.nlink() > 0)
}

/// A directory of segments, for the one who writes.
#[derive(Debug)]
pub(super) struct Segments {
    dir: PathBuf,
    all: VecDeque<Segment>,
    /// The end of the last one, while that can be appended to.
    file: Option<File>,
    seq: u64,
}

#[derive(Debug)]
struct Segment {
    number: u64,
    bytes: u64,
    records: u64,
    first: SystemTime,
    last: SystemTime,
}

impl Segments {
    /// Opens a directory, and hands each of its records on. This blocks. One that cannot be used is empty, and each
    /// append tries again.
    pub(super) fn open(dir: PathBuf, mut each: impl FnMut(&Record)) -> (Self, io::Result<u64>) {
        let mut segments = Self { dir, all: VecDeque::new(), file: None, seq: 0 };
        let read = segments.load(&mut each);
        (segments, read)
    }

    fn load(&mut self, each: &mut impl FnMut(&Record)) -> io::Result<u64> {
        self.prepare()?;
        let (mut bad, mut minutes) = (0, None);
        for (number, path) in paths(&self.dir)? {
            let file = File::open(&path).map_err(|e| self.cannot("open", &e))?;
            let bytes = file.metadata().map_err(|e| self.cannot("read", &e))?.len();
            let mut segment: Option<Segment> = None;
            let read = read(file.take(2 * SEGMENT), |record, _| {
                let Dated { seq, at, .. } = record;
                self.seq = self.seq.max(seq);
                let segment = segment.get_or_insert(Segment {
                    number,
                    bytes,
                    records: 0,
                    first: at,
                    last: at,
                });
                segment.records += 1;
                segment.last = at;
                if let Event::Minutes(_) = record.what {
                    minutes = Some(at);
                }
                each(&record);
                true
            });
            bad += read.map_err(|e| self.cannot("read", &e))?;
            match segment {
                Some(segment) => self.all.push_back(segment),
                // Nothing of it can be read, now or later.
                None => fs::remove_file(&path).map_err(|e| self.cannot("remove", &e))?,
            }
        }
        // The minutes that had not ended when the last process did.
        let open = fs::read(self.dir.join(OPEN)).unwrap_or_default();
        let open = open.strip_suffix(b"\n").and_then(parse);
        if let Some(open) = open.filter(|open| minutes.is_none_or(|last| open.at > last)) {
            self.append(&[(open.at, open.what.clone())])?;
            each(&Record { seq: self.seq, ..open });
        }
        Ok(bad)
    }

    fn prepare(&self) -> io::Result<()> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&self.dir);
        made.map_err(|e| self.cannot("make", &e))
    }

    /// Keeps these, in this order: once this returns, no power cut takes them. This blocks. After an error some of them
    /// may be there; those that are handed in again have the same numbers, by which they are told.
    pub(super) fn append(&mut self, events: &[(SystemTime, Event)]) -> io::Result<()> {
        let (Some(first), Some(last)) = (events.first(), events.last()) else { return Ok(()) };
        let (first, last, records) = (first.0, last.0, events.len() as u64);
        let text = lines(self.seq, events)?;
        let bytes = text.len() as u64;
        // What may have been written in part is never appended to.
        let file = self.file.take();
        let fits = |segment: &Segment| {
            segment.bytes + bytes <= SEGMENT
                && last.duration_since(segment.first).is_ok_and(|passed| passed < DAY)
        };
        let mut file = match (file, self.all.back()) {
            (Some(file), Some(segment)) if fits(segment) && stands(&file) => file,
            _ => self.begin(first)?,
        };
        file.write_all(text.as_bytes())
            .and_then(|()| file.sync_data())
            .map_err(|e| self.cannot("write", &e))?;
        if let Some(segment) = self.all.back_mut() {
            segment.bytes += bytes;
            segment.records += records;
            segment.last = last;
        }
        self.file = Some(file);
        self.seq += records;
        self.shorten(last)
    }

    fn begin(&mut self, first: SystemTime) -> io::Result<File> {
        self.prepare()?;
        let there = paths(&self.dir)?;
        // Somebody may have removed others: their numbers come again.
        self.all.retain(|segment| there.iter().any(|(number, _)| *number == segment.number));
        let number = there.last().map_or(1, |(number, _)| number + 1);
        let mut options = OpenOptions::new();
        options.append(true).create_new(true).mode(0o600);
        let path = self.dir.join(format!("{number:08}.log"));
        let file = options.open(path).map_err(|e| self.cannot("begin a file", &e))?;
        // Its name lasts through a power cut only once the directory is synced.
        File::open(&self.dir)
            .and_then(|dir| dir.sync_all())
            .map_err(|e| self.cannot("sync", &e))?;
        self.all.push_back(Segment { number, bytes: 0, records: 0, first, last: first });
        Ok(file)
    }

    /// Removes what is too much or too old.
    fn shorten(&mut self, now: SystemTime) -> io::Result<()> {
        while let Some(oldest) = self.all.front() {
            let age = now.duration_since(oldest.last).unwrap_or_default();
            let old = age > KEEP && self.all.len() > FEW;
            if !old && self.bytes() <= BYTES - SEGMENT {
                break;
            }
            let path = self.dir.join(format!("{:08}.log", oldest.number));
            match fs::remove_file(path) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => {
                    return Err(self.cannot("remove", &e));
                }
                _ => self.all.pop_front(),
            };
        }
        Ok(())
    }

    /// Keeps minutes that have not ended, in place of those that were kept so before. This blocks.
    pub(super) fn keep_open(&self, at: SystemTime, minutes: Minutes) -> io::Result<()> {
        let text = line(&Record { seq: 0, at, what: Event::Minutes(minutes) })?;
        self.prepare()?;
        let next = self.dir.join(NEXT);
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        let written = options.open(&next).and_then(|mut file| {
            file.write_all(text.as_bytes())?;
            file.sync_data()?;
            fs::rename(&next, self.dir.join(OPEN))
        });
        written.map_err(|e| self.cannot("write", &e))
    }

    pub(super) fn bytes(&self) -> u64 {
        self.all.iter().map(|segment| segment.bytes).sum()
    }

    pub(super) fn records(&self) -> u64 {
        self.all.iter().map(|segment| segment.records).sum()
    }

    fn cannot(&self, verb: &str, cause: &io::Error) -> io::Error {
        let text = format!("cannot {verb} in {}: {cause}", self.dir.display());
        io::Error::new(cause.kind(), text)
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use proptest::prelude::*;

    use super::super::record::{Standing, Transition};
    use super::*;

    fn at(secs: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_700_000_000 + secs)
    }

    fn event(text: &str) -> Event {
        Event::Transition(Transition {
            service: text.to_owned(),
            from: None,
            to: Standing { state: "up".to_owned(), degraded: false, forced: false, weight: 100 },
            reasons: Vec::new(),
            findings: Vec::new(),
            before: super::super::record::Before::default(),
        })
    }

    fn minutes() -> Event {
        Event::Minutes(Minutes { lasted_ms: 60_000, ..Minutes::default() })
    }

    /// The names of the transitions that a directory has, what of it cannot be read, and who writes there.
    fn open(dir: &Path) -> (Vec<String>, u64, Segments) {
        let mut names = Vec::new();
        let (segments, bad) = Segments::open(dir.to_owned(), |record| {
            if let Event::Transition(transition) = &record.what {
                names.push(transition.service.clone());
            }
        });
        (names, bad.unwrap(), segments)
    }

    fn with(names: &[&str]) -> (tempfile::TempDir, PathBuf) {
        let place = tempfile::tempdir().unwrap();
        let (_, _, mut segments) = open(place.path());
        for (n, name) in names.iter().enumerate() {
            segments.append(&[(at(n as u64), event(name))]).unwrap();
        }
        let file = place.path().join("00000001.log");
        (place, file)
    }

    #[test]
    fn a_history_that_somebody_has_removed_begins_anew() {
        let place = tempfile::tempdir().unwrap();
        let dir = place.path().join("history");
        let (_, _, mut segments) = open(&dir);
        segments.append(&[(at(0), event("one"))]).unwrap();
        fs::remove_dir_all(&dir).unwrap();
        segments.append(&[(at(1), event("two"))]).unwrap();
        assert_eq!((segments.records(), segments.all.len()), (1, 1));
        assert_eq!(open(&dir).0, ["two"]);
    }

    #[test]
    fn a_file_that_is_cut_anywhere_loses_only_what_is_cut_and_is_gone_on_with() {
        let names = ["one", "two", "three"];
        let (place, file) = with(&names);
        let whole = fs::read(&file).unwrap();
        let ends: Vec<usize> = (0..whole.len()).filter(|n| whole[*n] == b'\n').collect();
        for cut in 1..=whole.len() {
            fs::write(&file, &whole[..cut]).unwrap();
            let _ = fs::remove_file(place.path().join("00000002.log"));
            let kept = ends.iter().filter(|end| **end < cut).count();
            let (read, bad, mut segments) = open(place.path());
            assert_eq!(
                (&read[..], bad),
                (
                    &names.map(str::to_owned)[..kept],
                    u64::from(kept == 0 || cut != ends[kept - 1] + 1)
                ),
                "{cut}"
            );
            segments.append(&[(at(9), event("next"))]).unwrap();
            let (read, ..) = open(place.path());
            assert_eq!(
                (read.len(), read.last().map(String::as_str)),
                (kept + 1, Some("next")),
                "{cut}"
            );
        }
    }

    #[test]
    fn numbers_go_on_after_a_start_and_what_is_written_again_has_the_same() {
        let (place, _) = with(&["one", "two"]);
        let mut seqs = Vec::new();
        let (mut segments, _) =
            Segments::open(place.path().to_owned(), |record| seqs.push(record.seq));
        assert_eq!((seqs, segments.seq), (vec![1, 2], 2));
        segments.file = Some(OpenOptions::new().append(true).open("/dev/full").unwrap());
        segments.append(&[(at(3), event("three"))]).unwrap_err();
        segments.append(&[(at(3), event("three"))]).unwrap();
        assert_eq!(segments.seq, 3);
    }

    #[test]
    fn what_is_too_much_or_too_old_goes_and_a_clock_that_jumps_takes_no_more_than_that() {
        let place = tempfile::tempdir().unwrap();
        let (_, _, mut segments) = open(place.path());
        let long = "x".repeat(20_000);
        for n in 0..400 {
            segments.append(&[(at(n), event(&long))]).unwrap();
            let there: u64 = paths(place.path())
                .unwrap()
                .iter()
                .map(|(_, path)| path.metadata().unwrap().len())
                .sum();
            assert_eq!(there, segments.bytes());
            assert!(there <= BYTES, "{there}");
        }
        assert!(segments.bytes() > BYTES / 4 * 3);
        // A year ahead, by mistake.
        let year = 365 * 86_400;
        for n in 0..3 {
            segments.append(&[(at(year + n), event("late"))]).unwrap();
        }
        assert_eq!(segments.all.len(), FEW);
        let (read, bad, _) = open(place.path());
        assert!((read.len() > 50, bad) == (true, 0), "{} {bad}", read.len());
    }

    #[test]
    fn a_segment_holds_a_day_at_most() {
        let place = tempfile::tempdir().unwrap();
        let (_, _, mut segments) = open(place.path());
        for hour in 0..60 {
            segments.append(&[(at(hour * 3600), event("x"))]).unwrap();
        }
        assert_eq!(
            segments.all.iter().map(|segment| segment.records).collect::<Vec<_>>(),
            [24, 24, 12]
        );
    }

    #[test]
    fn minutes_that_had_not_ended_are_there_once_after_a_kill() {
        let place = tempfile::tempdir().unwrap();
        let minutes_of = |dir: &Path| {
            let mut all = Vec::new();
            let (segments, bad) = Segments::open(dir.to_owned(), |record| {
                if let Event::Minutes(_) = record.what {
                    all.push((record.seq, record.at));
                }
            });
            assert_eq!(bad.unwrap(), 0);
            (all, segments)
        };
        let (_, mut segments) = minutes_of(place.path());
        segments.append(&[(at(0), event("x"))]).unwrap();
        let open = Minutes { lasted_ms: 60_000, ..Minutes::default() };
        segments.keep_open(at(0), open.clone()).unwrap();
        segments.keep_open(at(0), Minutes { lasted_ms: 120_000, ..open.clone() }).unwrap();
        for _ in 0..3 {
            assert_eq!(minutes_of(place.path()).0, [(2, at(0))]);
        }
        // The next ones, of which the last were kept twice when it was killed.
        let (_, mut segments) = minutes_of(place.path());
        segments.keep_open(at(200), open).unwrap();
        segments.append(&[(at(200), minutes())]).unwrap();
        assert_eq!(minutes_of(place.path()).0, [(2, at(0)), (3, at(200))]);
    }

    #[test]
    fn a_full_disk_is_said_and_what_was_kept_stays() {
        let (place, file) = with(&["one"]);
        let (_, _, mut segments) = open(place.path());
        // The kernel's own full disk, which needs no mount and no rights.
        segments.file = Some(OpenOptions::new().append(true).open("/dev/full").unwrap());
        let error = segments.append(&[(at(1), event("two"))]).unwrap_err().to_string();
        assert!(
            error.starts_with(&format!("cannot write in {}: No space", place.path().display())),
            "{error}"
        );
        segments.append(&[(at(1), event("two"))]).unwrap();
        assert_eq!(open(place.path()).0, ["one", "two"]);
        assert_eq!(fs::read_to_string(file).unwrap().lines().count(), 1, "never appended to again");
    }

    proptest! {
        #[test]
        fn a_changed_bit_costs_the_lines_that_it_touches_and_no_other(byte in 0usize..10_000, bit in 0u8..8) {
            let names = ["one", "two", "three", "four"];
            let (place, file) = with(&names);
            let mut bytes = fs::read(&file).unwrap();
            let byte = byte % bytes.len();
            let line = bytes[..byte].split(|b| *b == b'\n').count() - 1;
            let touched = if bytes[byte] == b'\n' { 2 } else { 1 };
            bytes[byte] ^= 1 << bit;
            fs::write(&file, &bytes).unwrap();
            let (read, ..) = open(place.path());
            let kept: Vec<&str> = names.iter().enumerate().filter(|(n, _)| !(line..line + touched).contains(n)).map(|(_, name)| *name).collect();
            // The checksum itself may be written in capitals.
            prop_assert!(read == kept || read == names, "{:?}", read);
        }

        #[test]
        fn no_bytes_are_too_strange_to_be_read(bytes in prop::collection::vec(any::<u8>(), 0..3000)) {
            let mut count = 0;
            let bad = read(&bytes[..], |_, _| { count += 1; true }).unwrap();
            prop_assert!(count == 0 || bad == 0);
        }
    }
}
