//! The load generator: so many ask at once, each again as soon as it was answered.

use std::net::SocketAddrV4;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::net::{self, AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

/// How long one trial counts, and how long it runs before that.
const TIME: Duration = Duration::from_secs(1);
const WARM: Duration = Duration::from_millis(200);

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ask {
    /// Connect, this question, a line, the end, as HAProxy's agent-check does.
    Agent(&'static str),
    /// A GET over a kept connection, and its answer, as Envoy's health check does.
    Http(&'static str),
}

/// What came of a trial.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Outcome {
    /// Answers per second.
    pub(crate) rate: f64,
    /// Percentiles of how long one took, in microseconds.
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
    /// What the server took for a thousand, in milliseconds of one processor.
    pub(crate) cpu: f64,
    /// Questions without an answer.
    pub(crate) errors: usize,
}

struct Asker {
    stream: OwnedFd,
    asked: Instant,
}

impl Ask {
    fn words(self) -> Vec<u8> {
        match self {
            Self::Agent(question) => format!("{question}\n").into(),
            Self::Http(path) => format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").into(),
        }
    }

    /// Asks `address`, `at_once` at a time; `spent` is the time that the server has taken so far.
    pub(crate) fn run(
        self,
        address: SocketAddrV4,
        at_once: usize,
        spent: impl Fn() -> Duration,
    ) -> Outcome {
        let words = self.words();
        let epoll = epoll::create(CreateFlags::CLOEXEC).unwrap();
        let join = |place: usize| {
            let asked = Instant::now();
            let stream = net::socket_with(
                AddressFamily::INET,
                SocketType::STREAM,
                SocketFlags::CLOEXEC,
                None,
            )
            .unwrap();
            // On the loopback it is there at once; only then does nobody wait for it.
            net::connect(&stream, &address).unwrap();
            net::send(&stream, &words, SendFlags::NOSIGNAL).unwrap();
            let data = EventData::new_u64(place as u64);
            epoll::add(&epoll, &stream, data, EventFlags::IN).unwrap();
            Asker { stream, asked }
        };
        let mut askers: Vec<Asker> = (0..at_once).map(join).collect();
        let mut events = Vec::with_capacity(256);
        let (mut times, mut errors) = (Vec::with_capacity(1 << 17), 0);
        let start = Instant::now();
        let mut counting = None;
        loop {
            events.clear();
            epoll::wait(&epoll, spare_capacity(&mut events), None).unwrap();
            if counting.is_none() && start.elapsed() > WARM {
                counting = Some((Instant::now(), spent()));
                times.clear();
                errors = 0;
            }
            for event in &events {
                let place = usize::try_from(event.data.u64()).unwrap();
                let asker = &mut askers[place];
                let mut heard = [0; 2048];
                let n =
                    net::recv(&asker.stream, &mut heard, RecvFlags::DONTWAIT).map_or(0, |r| r.0);
                let good = match self {
                    Self::Agent(_) => heard[..n].ends_with(b"\n"),
                    Self::Http(_) => {
                        heard.starts_with(b"HTTP/1.1 200 ") && heard[..n].ends_with(b"}")
                    }
                };
                errors += usize::from(!good);
                times.push(asker.asked.elapsed());
                if good && matches!(self, Self::Http(_)) {
                    asker.asked = Instant::now();
                    net::send(&asker.stream, &words, SendFlags::NOSIGNAL).unwrap();
                } else {
                    *asker = join(place);
                }
            }
            if let Some((from, before)) = counting
                && from.elapsed() > TIME
            {
                let (took, cpu) = (from.elapsed(), spent().saturating_sub(before));
                return outcome(times, took, cpu, errors);
            }
        }
    }
}

fn outcome(mut times: Vec<Duration>, took: Duration, cpu: Duration, errors: usize) -> Outcome {
    times.sort_unstable();
    let at = |share: f64| {
        let place = (times.len() as f64 * share) as usize;
        times.get(place).map_or(0.0, |time| time.as_secs_f64() * 1e6)
    };
    let count = times.len() as f64;
    Outcome {
        rate: count / took.as_secs_f64(),
        p50: at(0.5),
        p99: at(0.99),
        p999: at(0.999),
        cpu: cpu.as_secs_f64() * 1e6 / count,
        errors,
    }
}
