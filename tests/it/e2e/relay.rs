//! A forwarder between HAProxy and hcf's agent port that remembers each question and its answer, so that a test can
//! tell which question a change was the answer to.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

/// A question as it passed; the answer is empty until it comes.
#[derive(Debug, Clone, Default)]
pub(super) struct Question {
    /// The first line that was asked.
    pub line: String,
    /// All that was answered.
    pub answer: String,
    /// The connection has ended.
    pub over: bool,
}

/// A running forwarder.
#[derive(Debug)]
pub(super) struct Relay {
    /// The port to ask in place of hcf's.
    pub port: u16,
    seen: Arc<Mutex<Vec<Question>>>,
}

impl Relay {
    /// Forwards to `agent`, for as long as the test runs.
    pub(super) fn start(agent: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("its number").port();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (agent, shared) = (agent.to_owned(), Arc::clone(&seen));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (agent, seen) = (agent.clone(), Arc::clone(&shared));
                thread::spawn(move || forward(&stream, &agent, &seen));
            }
        });
        Self { port, seen }
    }

    /// All questions so far that begin so, in the order in which they came.
    pub(super) fn questions(&self, begin: &str) -> Vec<Question> {
        let seen = self.seen.lock().expect("no panic in a connection");
        seen.iter().filter(|question| question.line.starts_with(begin)).cloned().collect()
    }
}

/// One question, which must be a line, and all of its answer.
fn forward(client: &TcpStream, agent: &str, seen: &Mutex<Vec<Question>>) -> Option<()> {
    let mut line = Vec::new();
    BufReader::new(client.try_clone().ok()?).read_until(b'\n', &mut line).ok()?;
    let mut server = TcpStream::connect(agent).ok()?;
    let number = {
        let mut seen = seen.lock().ok()?;
        let line = String::from_utf8_lossy(&line).into_owned();
        seen.push(Question { line, ..Question::default() });
        seen.len() - 1
    };
    server.write_all(&line).ok()?;
    if line.starts_with(b"GET") {
        // The relay has eaten the rest of the header; hcf needs only its end.
        server.write_all(b"\r\n").ok()?;
    }
    let mut chunk = [0; 1024];
    while let Some(n) = server.read(&mut chunk).ok().filter(|n| *n > 0) {
        let text = String::from_utf8_lossy(&chunk[..n]).into_owned();
        seen.lock().ok()?[number].answer.push_str(&text);
        let mut client = client;
        client.write_all(&chunk[..n]).ok()?;
    }
    seen.lock().ok()?[number].over = true;
    client.shutdown(Shutdown::Both).ok()
}
