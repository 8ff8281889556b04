//! A node that does what a real one cannot be made to do: hang in the middle, send 100 MB, lie.

use std::collections::VecDeque;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::json;

/// What a fake node does with a request.
#[derive(Clone, Debug)]
pub enum Answer {
    /// A status page with this many servers of storage over HTTP, of which some are connected.
    Grid {
        /// Servers that are connected, have a version and space, and were heard just now.
        connected: usize,
        /// Servers that refuse connections.
        refused: usize,
    },
    /// The same, with the introducer lost.
    NoIntroducer {
        /// As in [`Answer::Grid`].
        connected: usize,
        /// As in [`Answer::Grid`].
        refused: usize,
    },
    /// This page, with status 200.
    Page(Vec<u8>),
    /// This status, and a page of HTML.
    Status(u16),
    /// These bytes, and then the end of the connection.
    Raw(Vec<u8>),
    /// Nothing, for as long as the peer waits.
    Hang,
    /// The head and half a body, and then nothing.
    HangInBody,
    /// The head and half a body, and then the end of the connection.
    CutInBody,
    /// The end of the connection, without an answer.
    Close,
    /// A head that promises nothing, and a body of this many bytes.
    Huge(usize),
    /// The answer of [`Answer::Grid`] with this many connected, after this time.
    Slow(Duration, usize),
}

/// A fake node on a port of 127.0.0.1.
pub struct FakeNode {
    /// `127.0.0.1:PORT`
    pub addr: String,
    shared: Arc<Shared>,
    closed: Option<Closed>,
}

struct Shared {
    answer: Mutex<Answer>,
    requests: AtomicUsize,
    connections: AtomicUsize,
    stop: AtomicBool,
    /// The connections that are open, to end them all at once.
    open: Mutex<Vec<TcpStream>>,
    clients: Mutex<Option<Clients>>,
    script: Mutex<Option<Script>>,
}

/// What happens to a request that is not for the status page: its connection, its head, and what has come of its body.
/// The connection goes on while there is something.
type Script = Arc<dyn Fn(&mut TcpStream, &str, &[u8]) -> Option<()> + Send + Sync>;

/// What is done with requests that are not for the status page.
#[derive(Debug, Default)]
struct Clients {
    name: String,
    first: VecDeque<Answer>,
    asked: Vec<String>,
    /// The head of the last request.
    head: String,
}

/// A port that nobody listens on, but that stays ours: bound, never listening.
type Closed = socket2::Socket;

impl FakeNode {
    /// A node that gives this answer.
    pub fn start(answer: Answer) -> Self {
        Self::start_at("127.0.0.1", answer)
    }

    /// The same at another address of this machine.
    pub fn start_at(ip: &str, answer: Answer) -> Self {
        let shared = Arc::new(Shared {
            answer: Mutex::new(answer),
            requests: AtomicUsize::new(0),
            connections: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
            open: Mutex::new(Vec::new()),
            clients: Mutex::new(None),
            script: Mutex::new(None),
        });
        let listener = TcpListener::bind((ip, 0)).expect("a free port");
        let addr = listener.local_addr().expect("its number").to_string();
        listen(listener, Arc::clone(&shared));
        Self { addr, shared, closed: None }
    }

    /// A node in full health.
    pub fn healthy() -> Self {
        Self::start(Answer::Grid { connected: 10, refused: 0 })
    }

    /// `http://127.0.0.1:PORT`
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// From the next request on it gives another answer.
    pub fn set(&self, answer: Answer) {
        *self.shared.answer.lock().expect("no panic in a connection") = answer;
    }

    /// From the next request on, whatever is not for the status page is answered 200 with this name as body, so that
    /// a client of a balancer sees who answered.
    pub fn serve_clients(&self, name: &str) {
        *self.clients() = Some(Clients { name: name.to_owned(), ..Clients::default() });
    }

    /// From the next request on, this is what happens to whatever is not for the status page.
    pub fn serve_by(
        &self,
        script: impl Fn(&mut TcpStream, &str, &[u8]) -> Option<()> + Send + Sync + 'static,
    ) {
        *self.shared.script.lock().expect("no panic in a connection") = Some(Arc::new(script));
    }

    /// The next so many requests of clients get this answer instead.
    pub fn fail_clients(&self, count: usize, answer: &Answer) {
        let mut clients = self.clients();
        let clients = clients.as_mut().expect("it serves clients");
        clients.first = vec![answer.clone(); count].into();
    }

    /// How many requests of clients are still to fail.
    pub fn failures_left(&self) -> usize {
        self.clients().as_ref().map_or(0, |clients| clients.first.len())
    }

    /// The requests of clients so far, as `METHOD PATH`.
    pub fn asked(&self) -> Vec<String> {
        self.clients().as_ref().map_or_else(Vec::new, |clients| clients.asked.clone())
    }

    /// The head of a client's last request, as it came.
    pub fn last_head(&self) -> String {
        self.clients().as_ref().map_or_else(String::new, |clients| clients.head.clone())
    }

    fn clients(&self) -> MutexGuard<'_, Option<Clients>> {
        self.shared.clients.lock().expect("no panic in a connection")
    }

    /// The requests it has read so far.
    pub fn requests(&self) -> usize {
        self.shared.requests.load(Ordering::SeqCst)
    }

    /// The connections it has accepted so far.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// Ends every open connection, as a node does with those that were idle for a minute.
    pub fn hang_up(&self) {
        for stream in self.shared.open.lock().expect("no panic in a connection").drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Stops listening, and ends every connection after that. The port stays ours.
    pub fn close(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        // Wakes the thread that accepts.
        let _ = TcpStream::connect(&self.addr);
        let address: std::net::SocketAddr = self.addr.parse().expect("an address");
        let port = super::wait::wait_for("the fake node to close", super::wait::LONG, || {
            let socket =
                socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).ok()?;
            socket.set_reuse_address(true).ok()?;
            socket.bind(&address.into()).ok()?;
            TcpStream::connect(address).is_err().then_some(socket)
        });
        self.hang_up();
        self.closed = Some(port);
    }

    /// Listens again.
    pub fn reopen(&mut self) {
        let socket = self.closed.take().expect("it was closed");
        socket.listen(64).expect("the port is ours");
        self.shared.stop.store(false, Ordering::SeqCst);
        listen(socket.into(), Arc::clone(&self.shared));
    }
}

impl std::fmt::Debug for FakeNode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FakeNode").field("addr", &self.addr).finish_non_exhaustive()
    }
}

impl Drop for FakeNode {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(&self.addr);
        self.hang_up();
    }
}

/// A status page of a grid with these servers, of which the first ones are connected.
pub fn page(connected: usize, refused: usize) -> Vec<u8> {
    page_introduced(connected, refused, true)
}

/// A [`page`] of nearly as many bytes and of as many servers as are read at most.
pub fn large_page(connected: usize) -> Vec<u8> {
    const SERVERS: usize = 4096;
    let page = String::from_utf8(page(connected, SERVERS - connected)).expect("it is JSON");
    let more = "x".repeat((8_000_000 - page.len()) / SERVERS);
    let [short, long] = ["", &more].map(|more| format!("\"nickname\":\"{more}store"));
    page.replace(&short, &long).into_bytes()
}

/// [`page`], with the introducer connected or not.
fn page_introduced(connected: usize, refused: usize, introduced: bool) -> Vec<u8> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    let server = |n: usize| {
        let status = if n < connected {
            "connected"
        } else {
            "failure: [Failure instance: Traceback: <class 'twisted.internet.error.ConnectionRefusedError'>: Connection was refused by other side: 111: Connection refused.\n/secret/path/of/the/node.py:1831:_inlineCallbacks\n]"
        };
        json!({
            "nodeid": format!("v0-server{n}"),
            "connection_status": status,
            "available_space": 1_000_000_000_u64,
            "nickname": format!("store{n}"),
            "version": "tahoe-lafs/1.20.0",
            "last_received_data": if n < connected { now } else { now - 60.0 },
        })
    };
    let introducer = if introduced {
        "Connected to tcp:127.0.0.1:1 via tcp"
    } else {
        "Reconnecting in 3 seconds (last attempt 1s ago)"
    };
    let page = json!({
        "introducers": {"statuses": [introducer]},
        "servers": (0..connected + refused).map(server).collect::<Vec<_>>(),
    });
    page.to_string().into_bytes()
}

fn listen(listener: TcpListener, shared: Arc<Shared>) {
    thread::spawn(move || {
        for stream in listener.incoming() {
            if shared.stop.load(Ordering::SeqCst) {
                return;
            }
            let Ok(stream) = stream else { continue };
            shared.connections.fetch_add(1, Ordering::SeqCst);
            if let Ok(copy) = stream.try_clone() {
                let mut open = shared.open.lock().expect("no panic in a connection");
                // Thousands of requests may come.
                open.retain(|stream| stream.peer_addr().is_ok());
                open.push(copy);
            }
            let shared = Arc::clone(&shared);
            thread::spawn(move || {
                let mut stream = stream;
                serve(&mut stream, &shared);
                // The copy that is kept to hang up by would keep it open.
                let _ = stream.shutdown(Shutdown::Both);
            });
        }
    });
}

/// Answers until the peer, or an answer, ends the connection.
fn serve(stream: &mut TcpStream, shared: &Shared) -> Option<()> {
    let mut heard = Vec::new();
    loop {
        while !heard.windows(4).any(|bytes| bytes == b"\r\n\r\n") {
            let mut chunk = [0; 1024];
            let n = stream.read(&mut chunk).ok().filter(|n| *n > 0)?;
            heard.extend_from_slice(&chunk[..n]);
        }
        shared.requests.fetch_add(1, Ordering::SeqCst);
        let script = shared.script.lock().ok()?.clone();
        if let Some(script) = script.filter(|_| !heard.starts_with(b"GET /?t=json ")) {
            let end = heard.windows(4).position(|bytes| bytes == b"\r\n\r\n")? + 4;
            let (head, body) = heard.split_at(end);
            script(stream, &String::from_utf8_lossy(head), body)?;
            heard.clear();
            continue;
        }
        let head = String::from_utf8_lossy(&heard).into_owned();
        heard.clear();
        let answer = match client(stream, shared, &head)? {
            Some(answer) => answer,
            None => shared.answer.lock().ok()?.clone(),
        };
        match answer {
            Answer::Grid { connected, refused } => send(stream, 200, &page(connected, refused)),
            Answer::NoIntroducer { connected, refused } => {
                send(stream, 200, &page_introduced(connected, refused, false))
            }
            Answer::Page(page) => send(stream, 200, &page),
            Answer::Status(status) => send(stream, status, b"<!DOCTYPE html><p>Oops"),
            Answer::Slow(time, connected) => {
                super::wait::pause(time);
                send(stream, 200, &page(connected, 0))
            }
            Answer::Hang => stream.read_exact(&mut [0]).ok(),
            Answer::HangInBody => {
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{\"intro").ok()?;
                stream.read_exact(&mut [0]).ok()
            }
            Answer::CutInBody => {
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{\"intro").ok()?;
                None
            }
            Answer::Raw(bytes) => {
                stream.write_all(&bytes).ok()?;
                None
            }
            Answer::Close => None,
            Answer::Huge(bytes) => {
                let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
                stream.write_all(head).ok()?;
                let chunk = [&b"10000\r\n"[..], &vec![b' '; 0x10000], b"\r\n"].concat();
                for _ in 0..bytes / 0x10000 {
                    stream.write_all(&chunk).ok()?;
                }
                stream.write_all(b"0\r\n\r\n").ok()
            }
        }?;
    }
}

/// The answer for a client, once its whole request was read; nothing where the node serves none, or for its status page.
#[expect(clippy::option_option, reason = "no answer of its own, or no connection any more")]
fn client(stream: &mut TcpStream, shared: &Shared, head: &str) -> Option<Option<Answer>> {
    let (head, body) = head.split_once("\r\n\r\n")?;
    let words: Vec<&str> = head.lines().next()?.split(' ').collect();
    let (method, path) = (*words.first()?, *words.get(1)?);
    if path == "/?t=json" || shared.clients.lock().ok()?.is_none() {
        return Some(None);
    }
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
    });
    let left = length.unwrap_or(0_usize).saturating_sub(body.len());
    stream.read_exact(&mut vec![0; left]).ok()?;
    let mut clients = shared.clients.lock().ok()?;
    let clients = clients.as_mut()?;
    clients.asked.push(format!("{method} {path}"));
    head.clone_into(&mut clients.head);
    let answer = clients.first.pop_front();
    let body = if method == "HEAD" { "" } else { &clients.name };
    let length = clients.name.len();
    let whole =
        format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}");
    Some(Some(answer.unwrap_or_else(|| Answer::Raw(whole.into()))))
}

fn send(stream: &mut TcpStream, status: u16, body: &[u8]) -> Option<()> {
    let head = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n\r\n", body.len());
    stream.write_all(&[head.as_bytes(), body].concat()).ok()
}
