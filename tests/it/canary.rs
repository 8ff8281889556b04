//! Canaries beside a node that lies, hangs and talks too much, which a real one cannot be made to do.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use tempfile::TempDir;

use crate::lab::fake::FakeNode;
use crate::lab::hcf::{Hcf, ask};
use crate::lab::http;
use crate::lab::place;
use crate::lab::wait::{LONG, wait_for, wait_until};
use crate::program::hcf as run;

/// The secret part of a capability; nobody but the node may see it.
const SECRET: &str = "krugkidfnzsc4krugkidfnzsc4";

/// A file with a capability to read and one to write.
pub(crate) struct CapFile {
    folder: TempDir,
}

impl CapFile {
    pub(crate) fn new() -> Self {
        let file = Self { folder: place::folder("caps") };
        file.write(&format!("URI:CHK:{SECRET}:{SECRET}:2:5:9\nURI:SSK:{SECRET}:{SECRET}\n"));
        file.allow(0o600);
        file
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join("caps")
    }

    fn write(&self, text: &str) {
        std::fs::write(self.path(), text).unwrap();
    }

    fn allow(&self, mode: u32) {
        std::fs::set_permissions(self.path(), std::fs::Permissions::from_mode(mode)).unwrap();
    }
}

/// What a fake node says to canaries.
#[derive(Clone, Debug)]
enum Say {
    /// This to everything that is read; what is put is taken.
    Body(Vec<u8>),
    /// Nothing, until the connection ends.
    Nothing,
}

struct Node {
    fake: FakeNode,
    say: Arc<Mutex<Say>>,
    /// The first lines of what canaries asked.
    asked: Arc<Mutex<Vec<String>>>,
}

impl Node {
    fn start(say: Say) -> Self {
        let node = FakeNode::healthy();
        let (say, asked) = (Arc::new(Mutex::new(say)), Arc::<Mutex<Vec<String>>>::default());
        let (say_, asked_) = (Arc::clone(&say), Arc::clone(&asked));
        node.serve_by(move |stream, head, body| {
            let line = head.lines().next()?.to_owned();
            asked_.lock().unwrap().push(line.clone());
            let say = say_.lock().unwrap().clone();
            answer(stream, &line, head, body, &say)
        });
        Self { fake: node, say, asked }
    }

    fn say(&self, say: Say) {
        *self.say.lock().unwrap() = say;
    }

    fn asked(&self) -> usize {
        self.asked.lock().unwrap().len()
    }
}

fn answer(stream: &mut TcpStream, line: &str, head: &str, body: &[u8], say: &Say) -> Option<()> {
    let length = head.lines().find_map(|l| l.strip_prefix("content-length: ")?.parse().ok());
    let left = length.unwrap_or(0_usize).saturating_sub(body.len());
    stream.read_exact(&mut vec![0; left]).ok()?;
    match say {
        Say::Body(body) => {
            let body = if line.starts_with("PUT ") { &b"URI:"[..] } else { body };
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
            stream.write_all(&[head.as_bytes(), body].concat()).ok()
        }
        Say::Nothing => stream.read_exact(&mut [0]).ok(),
    }
}

/// An hcf beside this node whose service `read` has this canary, quickly.
fn beside(node: &Node, caps: &Path, more: &str) -> Hcf {
    let (url, caps) = (node.fake.url(), caps.display());
    let config = format!(
        "node: {{url: \"{url}\", every: 100ms, timeout: 1s}}\nservices:\n  read:\n    criteria:\n      \
         canary_read: {{cap_file: {caps}, every: 1s, timeout: 2s{more}}}\n"
    );
    Hcf::configured(&config, &[])
}

/// Waits until the read service is answered with a line that holds this.
fn wait(hcf: &Hcf, says: &str) {
    wait_until(says, LONG, || ask(hcf.agent(), "read\n").contains(says));
}

#[test]
fn a_file_must_stay_what_it_was_when_it_was_first_read() {
    let caps = CapFile::new();
    let node = Node::start(Say::Body(b"first".to_vec()));
    let hcf = beside(&node, &caps.path(), "");
    wait(&hcf, "up ready 100%");
    node.say(Say::Body(b"other".to_vec()));
    wait(&hcf, "down ready 100% #canary-read: other bytes came back");
    node.say(Say::Body(b"first".to_vec()));
    wait(&hcf, "up ready 100%");
    // Another capability is another file, and is read without a restart.
    caps.write(&format!("URI:CHK:{SECRET}aa:{SECRET}:2:5:9\n"));
    node.say(Say::Body(b"other".to_vec()));
    wait_until("the new one", LONG, || node.asked.lock().unwrap().join(" ").contains("c4aa:"));
    wait(&hcf, "up ready 100%");
}

#[test]
fn a_file_must_be_what_the_configuration_says() {
    let caps = CapFile::new();
    // Of `first`, by sha256sum.
    let hash = "a7937b64b8caa58f03721bb6bacf5c78cb235febe0e70b1b84cd99541461a08e";
    let node = Node::start(Say::Body(b"other".to_vec()));
    let hcf = beside(&node, &caps.path(), &format!(", sha256: {hash}"));
    wait(&hcf, "down ready 100% #canary-read: other bytes came back");
    node.say(Say::Body(b"first".to_vec()));
    wait(&hcf, "up ready 100%");
}

#[test]
fn a_canary_reads_no_more_than_a_mebibyte() {
    let caps = CapFile::new();
    let node = Node::start(Say::Body(vec![b'x'; 1 << 20]));
    let hcf = beside(&node, &caps.path(), "");
    wait(&hcf, "up ready 100%");
    node.say(Say::Body(vec![b'x'; (1 << 20) + 1]));
    wait(&hcf, "down ready 100% #canary-read: more than 1 MiB came back");
}

#[test]
fn a_write_that_reads_back_as_something_else_fails() {
    let caps = CapFile::new();
    let node = Node::start(Say::Body(b"a lie".to_vec()));
    let (url, path) = (node.fake.url(), caps.path());
    let hcf = Hcf::configured(
        &format!(
            "node: {{url: \"{url}\", every: 100ms}}\nservices: {{read: {{criteria: \
             {{canary_write: {{cap_file: {}, every: 1s, else: drain}}}}}}}}\n",
            path.display()
        ),
        &[],
    );
    wait(&hcf, "up drain 100% #canary-write: other bytes came back");
    let asked = node.asked.lock().unwrap().clone();
    assert!(asked[0].starts_with("PUT /uri HTTP"), "{asked:?}");
    assert!(asked[1].starts_with("PUT /uri/URI:SSK:"), "{asked:?}");
    assert!(asked[2].starts_with("GET /uri/URI:SSK:"), "{asked:?}");
}

#[test]
fn a_hang_is_a_result_and_no_other_canary_starts_meanwhile() {
    let caps = CapFile::new();
    let node = Node::start(Say::Body(b"first".to_vec()));
    let (url, path) = (node.fake.url(), caps.path());
    let canary = |timeout| {
        format!("canary_read: {{cap_file: {}, every: 1s, timeout: {timeout}}}", path.display())
    };
    let hcf = Hcf::configured(
        &format!(
            "node: {{url: \"{url}\", every: 100ms}}\nservices:\n  read: {{criteria: {{{}}}}}\n  \
             other: {{criteria: {{{}}}}}\n",
            canary("1s"),
            canary("1100ms")
        ),
        &[],
    );
    let lines = || ["read\n", "other\n"].map(|service| ask(hcf.agent(), service));
    wait_until("both to be up", LONG, || lines().iter().all(|line| line.starts_with("up ")));
    node.say(Say::Nothing);
    // One hangs, and the other is not tried any more, until nothing is known of it.
    let lines = wait_for("one to hang and one to be unknown", LONG, || {
        let lines = lines();
        let says = |words: &str| lines.iter().any(|line| line.contains(words));
        (says("#canary-read: it hangs, no end within 1s")
            && says("#canary-read-unknown: no canary has ended for 4s"))
        .then_some(lines)
    });
    println!("{lines:?}");
    let before = node.asked();
    node.say(Say::Body(b"first".to_vec()));
    wait_until("a look", LONG, || ask(hcf.agent(), "read\n").starts_with("down "));
    assert_eq!(node.asked(), before, "it waits for the hung one");
    node.fake.hang_up();
    wait(&hcf, "up ready 100%");
}

#[test]
fn capabilities_that_others_may_read_are_refused() {
    let caps = CapFile::new();
    caps.allow(0o640);
    let folder = place::folder("config");
    let file = folder.path().join("hcf.yaml");
    let check = |criterion: &str| {
        let text = format!("services:\n  read:\n    criteria:\n      {criterion}\n");
        std::fs::write(&file, text).unwrap();
        run(&["check", "-c", &file.display().to_string()])
    };
    let path = caps.path();
    let path = path.display();
    let open = check(&format!("canary_read: {{cap_file: {path}}}"));
    assert_eq!(open.exit, 78, "{open:?}");
    assert!(open.stderr.contains(&format!("run `chmod 600 {path}`")), "{open:?}");
    assert!(
        open.stderr.contains(":4:31: services.read.criteria.canary_read.cap_file: "),
        "{open:?}"
    );
    caps.allow(0o600);
    let good = check(&format!("canary_read: {{cap_file: {path}}}"));
    assert_eq!(good.exit, 0, "{good:?}");
    for (criterion, says) in [
        ("canary_read: {}".to_owned(), "expected `cap_file`"),
        ("canary_read: {cap_file: caps}".to_owned(), "expected an absolute path"),
        ("canary_write: {cap_file: /no/caps}".to_owned(), "`hcf canary create --out /no/caps`"),
        (format!("canary_read: {{cap_file: {path}, sha256: abc}}"), "64 hexadecimal digits"),
        (format!("canary_read: {{cap_file: {path}, every: 10ms}}"), "out of range"),
        ("spool: {min_free: 1GiB}".to_owned(), "needs node.dir"),
        ("blessed: {grid_manager: true}".to_owned(), "needs node.dir"),
        ("blessed: {}".to_owned(), "expected one of `ids`, `file` and `grid_manager: true`"),
        // The mistake of putting the capability itself there.
        (format!("canary_read: {{cap_file: 'URI:CHK:{SECRET}:{SECRET}:2:5:9'}}"), "URI:…"),
        (format!("canary_read: {{every: 'URI:CHK:{SECRET}:{SECRET}:2:5:9'}}"), "URI:…"),
        (format!("canary_read: {{URI:CHK:{SECRET}: 1}}"), "URI:…"),
    ] {
        let run = check(&criterion);
        assert_eq!(run.exit, 78, "{criterion}: {run:?}");
        assert!(run.stderr.contains(says), "{criterion}: {run:?}");
        assert!(!format!("{run:?}").contains(SECRET), "{run:?}");
    }
}

#[test]
fn capabilities_that_are_laid_open_later_are_not_used() {
    let caps = CapFile::new();
    let node = Node::start(Say::Body(b"first".to_vec()));
    let hcf = beside(&node, &caps.path(), "");
    wait(&hcf, "up ready 100%");
    caps.allow(0o644);
    wait(&hcf, "down ready 100% #canary-read: others may read ");
    let status = http::get(hcf.status(), "/v1/status").unwrap().text();
    assert!(status.contains("run `chmod 600 "), "{status}");
    caps.allow(0o600);
    wait(&hcf, "up ready 100%");
}
