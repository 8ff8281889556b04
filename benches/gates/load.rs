//! What clients do, and what came of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::origin::{ENDLESS, SMALL, UPLOADED};

/// How long one trial counts, and how long it runs before that.
const TIME: Duration = Duration::from_secs(1);
const WARM: Duration = Duration::from_millis(200);
/// Connections that carry large bodies at a time.
const STREAMS: usize = 4;

/// One kind of load.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Load {
    /// Endless answers; bytes per second.
    Download,
    /// Endless requests; bytes per second.
    Upload,
    /// Connect, a request, its answer, the end; connections per second.
    Connections,
    /// Requests over so many kept connections, one after the other; requests per second.
    Requests(usize),
    /// The same, each connection at this pace, so that nobody is saturated.
    Paced(usize, Duration),
}

/// What came of a trial.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Outcome {
    /// Per second.
    pub(crate) rate: f64,
    /// The 99th percentile of how long an answer took, in microseconds.
    pub(crate) p99: f64,
}

impl Load {
    /// Runs it against `address`.
    pub(crate) async fn run(self, address: Arc<str>) -> Outcome {
        let count = Arc::new(AtomicU64::new(0));
        let mut tasks = JoinSet::new();
        let clients = match self {
            Self::Download | Self::Upload => STREAMS,
            Self::Connections => 64,
            Self::Requests(n) | Self::Paced(n, _) => n,
        };
        let start = Instant::now();
        for client in 0..clients {
            let (address, count) = (Arc::clone(&address), Arc::clone(&count));
            tasks.spawn(async move {
                let mut times = Vec::new();
                match self {
                    Self::Download => download(&address, &count).await,
                    Self::Upload => upload(&address).await,
                    Self::Connections => connections(&address, &count).await,
                    Self::Requests(_) => requests(&address, &count, &mut times, start, None).await,
                    Self::Paced(_, pace) => {
                        let share = f64::from(u32::try_from(client).unwrap()) / clients as f64;
                        sleep(pace.mul_f64(share)).await;
                        requests(&address, &count, &mut times, start, Some(pace)).await;
                    }
                }
                times
            });
        }
        let counted = || match self {
            Self::Upload => UPLOADED.load(Ordering::Relaxed),
            _ => count.load(Ordering::Relaxed),
        };
        sleep(WARM).await;
        let (from, before) = (Instant::now(), counted());
        sleep(TIME).await;
        let rate = (counted() - before) as f64 / from.elapsed().as_secs_f64();
        let mut times = Vec::new();
        if let Self::Requests(_) | Self::Paced(..) = self {
            while let Some(client) = tasks.join_next().await {
                times.extend(client.unwrap());
            }
        }
        times.sort_unstable();
        let p99 = times.get(times.len() * 99 / 100).map_or(0.0, |time| time.as_secs_f64() * 1e6);
        Outcome { rate, p99 }
    }
}

async fn connect(address: &str) -> TcpStream {
    let stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

async fn download(address: &str, count: &AtomicU64) {
    let mut stream = connect(address).await;
    stream.write_all(b"GET /endless HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut chunk = vec![0; 256 << 10];
    loop {
        let n = stream.read(&mut chunk).await.unwrap();
        assert!(n > 0, "an endless answer ended");
        count.fetch_add(n as u64, Ordering::Relaxed);
    }
}

async fn upload(address: &str) {
    let mut stream = connect(address).await;
    let head = format!("PUT /uri HTTP/1.1\r\nHost: x\r\nContent-Length: {ENDLESS}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let chunk = vec![b'x'; 256 << 10];
    loop {
        stream.write_all(&chunk).await.unwrap();
    }
}

async fn connections(address: &str, count: &AtomicU64) {
    let mut heard = Vec::new();
    loop {
        let mut stream = connect(address).await;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
        heard.clear();
        stream.read_to_end(&mut heard).await.unwrap();
        assert!(heard.ends_with(SMALL), "an answer");
        count.fetch_add(1, Ordering::Relaxed);
    }
}

async fn requests(
    address: &str,
    count: &AtomicU64,
    times: &mut Vec<Duration>,
    start: Instant,
    pace: Option<Duration>,
) {
    let mut stream = connect(address).await;
    let mut next = tokio::time::Instant::now();
    while start.elapsed() < WARM + TIME + Duration::from_millis(20) {
        if let Some(pace) = pace {
            next += pace;
            tokio::time::sleep_until(next).await;
        }
        let asked = Instant::now();
        ask(&mut stream).await;
        if start.elapsed() > WARM {
            times.push(asked.elapsed());
        }
        count.fetch_add(1, Ordering::Relaxed);
    }
}

/// One request over a kept connection, and its small answer.
async fn ask(stream: &mut TcpStream) {
    stream.write_all(b"GET /uri/x HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut answer = [0; 1024];
    let mut n = 0;
    loop {
        n += match stream.read(&mut answer[n..]).await.unwrap() {
            0 => panic!("no answer"),
            more => more,
        };
        let heard = &answer[..n];
        let end = heard.windows(4).position(|bytes| bytes == b"\r\n\r\n");
        if end.is_some_and(|end| n == end + 4 + SMALL.len()) {
            assert!(heard.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(heard));
            return;
        }
    }
}

/// Connections that wait.
#[derive(Debug, Default)]
pub(crate) struct Idle(Vec<TcpStream>);

impl Idle {
    /// So many of them, with nothing sent.
    pub(crate) async fn open(address: Arc<str>, count: usize) -> Self {
        let mut idle = Self::default();
        for _ in 0..count {
            idle.0.push(connect(&address).await);
        }
        idle
    }

    /// One request over each.
    pub(crate) async fn ask(mut self) -> Self {
        for stream in &mut self.0 {
            ask(stream).await;
        }
        self
    }

    /// Opens and asks until a connection gets no answer within a second, or as many are there.
    pub(crate) async fn fill(address: Arc<str>, most: usize) -> Self {
        let mut idle = Self::default();
        while idle.0.len() < most {
            let mut stream = connect(&address).await;
            let answered = tokio::time::timeout(Duration::from_secs(1), async {
                stream.write_all(b"GET /uri/x HTTP/1.1\r\nHost: x\r\n\r\n").await.ok()?;
                stream.read(&mut [0; 1024]).await.ok().filter(|n| *n > 0)
            })
            .await;
            if !matches!(answered, Ok(Some(_))) {
                break;
            }
            idle.0.push(stream);
        }
        idle
    }

    /// How many of them have not been ended by the other side.
    pub(crate) fn held(&self) -> usize {
        let ended = |stream: &&TcpStream| stream.try_read(&mut [0]).is_ok();
        self.0.len() - self.0.iter().filter(ended).count()
    }
}
