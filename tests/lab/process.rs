//! One running program that cannot outlive the lab.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{OnceLock, mpsc};
use std::time::Duration;

use super::wait::{LONG, wait_for};

/// What the lab does to programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// Gone at once, nothing tidied up.
    Kill,
    /// Asked to end.
    Term,
    /// Asked to read its configuration again.
    Hup,
    /// Frozen: there, silent, its sockets still accepting.
    Stop,
    /// Goes on after [`Signal::Stop`].
    Cont,
}

impl Signal {
    fn name(self) -> &'static str {
        match self {
            Self::Kill => "KILL",
            Self::Term => "TERM",
            Self::Hup => "HUP",
            Self::Stop => "STOP",
            Self::Cont => "CONT",
        }
    }
}

/// What [`Process::start`] is to run.
#[derive(Debug)]
pub struct Program {
    name: String,
    words: Vec<String>,
    group: Option<u32>,
    variables: Vec<(String, String)>,
    removed: Vec<String>,
    stdin: Option<OwnedFd>,
}

impl Program {
    /// `name` is for logs and messages.
    pub fn new(name: &str, path: &Path) -> Self {
        let words = vec![path.display().to_string()];
        let (variables, removed) = (Vec::new(), Vec::new());
        Self { name: name.to_owned(), words, group: None, variables, removed, stdin: None }
    }

    /// One more argument.
    #[must_use]
    pub fn arg(mut self, word: impl Into<String>) -> Self {
        self.words.push(word.into());
        self
    }

    /// More arguments.
    #[must_use]
    pub fn args<'a>(mut self, words: impl IntoIterator<Item = &'a str>) -> Self {
        self.words.extend(words.into_iter().map(str::to_owned));
        self
    }

    /// Runs under a group id of its own, by which a packet filter knows its packets. Needs root.
    #[must_use]
    pub fn group(mut self, group: Option<u32>) -> Self {
        self.group = group;
        self
    }

    /// One environment variable.
    #[must_use]
    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Without these variables of the lab's own environment.
    #[must_use]
    pub fn without(mut self, names: Vec<String>) -> Self {
        self.removed.extend(names);
        self
    }

    /// What it has as its standard input; nothing otherwise.
    #[must_use]
    pub fn stdin(mut self, input: OwnedFd) -> Self {
        self.stdin = Some(input);
        self
    }
}

/// A running program; killed and reaped when dropped.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    ended: Option<ExitStatus>,
    out: PathBuf,
    err: PathBuf,
}

impl Process {
    /// Starts `program` with its output in `NAME.out` and `NAME.err` of `folder`. The kernel kills it when the lab
    /// ends in any way.
    pub fn start(program: &Program, folder: &Path) -> Self {
        let out = folder.join(format!("{}.out", program.name));
        let err = folder.join(format!("{}.err", program.name));
        // setpriv sets the group first and the death signal last: a change of group would clear the signal.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]);
        if let Some(group) = program.group {
            command.args(["--regid", &group.to_string(), "--clear-groups"]);
        }
        command.arg("--").args(&program.words);
        for name in &program.removed {
            command.env_remove(name);
        }
        command.envs(program.variables.iter().map(|(name, value)| (name, value)));
        let input = program.stdin.as_ref().map_or_else(Stdio::null, |input| {
            Stdio::from(input.try_clone().expect("a descriptor can be copied"))
        });
        command.stdin(input).stdout(create(&out)).stderr(create(&err));
        let child =
            spawn(command).unwrap_or_else(|error| panic!("cannot start {}: {error}", program.name));
        Self { name: program.name.clone(), child, ended: None, out, err }
    }

    /// The process id, the program's own: setpriv becomes the program.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal; a process that is gone already is no error.
    pub fn signal(&self, signal: Signal) {
        let line = format!("kill -s {} {}", signal.name(), self.pid());
        let sent = Command::new("/bin/sh").args(["-c", &line]).stderr(Stdio::null()).status();
        sent.expect("a shell can be run");
        if signal == Signal::Stop {
            wait_for("all of it to be frozen", LONG, || self.is_frozen().then_some(()));
        }
    }

    /// Whether all its threads stand still; one that is gone does.
    fn is_frozen(&self) -> bool {
        let Ok(tasks) = std::fs::read_dir(format!("/proc/{}/task", self.pid())) else {
            return true;
        };
        let mut stats = tasks.flatten().map(|task| read(&task.path().join("stat")));
        stats.all(|stat: String| {
            let state = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().next());
            matches!(state, None | Some("T" | "Z" | "X"))
        })
    }

    /// Whether and how it has ended, without waiting.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().expect("a child can be waited for");
        }
        self.ended
    }

    /// Waits for the end that something else brings about.
    pub fn wait_end(&mut self, deadline: Duration) -> ExitStatus {
        let what = format!("the end of {}", self.name);
        wait_for(&what, deadline, || self.ended())
    }

    /// What it has written so far on standard output.
    pub fn stdout(&self) -> String {
        read(&self.out)
    }

    /// What it has written so far, messages first.
    pub fn log(&self) -> String {
        read(&self.err) + &read(&self.out)
    }

    /// Panics with the log when the program has ended: for conditions that wait for a program's start.
    pub fn must_run(&mut self) {
        if let Some(status) = self.ended() {
            panic!("{} ended with {status}:\n{}", self.name, self.log());
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.ended.is_none() {
            _ = self.child.kill();
            _ = self.child.wait();
        }
    }
}

fn create(path: &Path) -> File {
    File::create(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn read(path: &Path) -> String {
    String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned()
}

type Order = (Command, mpsc::Sender<io::Result<Child>>);

/// Spawns on a thread that lives as long as the lab: the kernel sends the death signal when the *thread* that
/// spawned ends, and a test's thread ends early.
fn spawn(command: Command) -> io::Result<Child> {
    static SPAWNER: OnceLock<mpsc::Sender<Order>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (orders, inbox) = mpsc::channel::<Order>();
        std::thread::spawn(move || {
            for (mut command, reply) in inbox {
                _ = reply.send(command.spawn());
            }
        });
        orders
    });
    let (reply, result) = mpsc::channel();
    spawner.send((command, reply)).expect("the spawner lives");
    result.recv().expect("the spawner answers")
}
