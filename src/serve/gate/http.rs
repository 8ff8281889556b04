//! A gate that knows HTTP: it refuses what the node must not get, and relays the rest as it came.
//!
//! A request passes only when it can be read in one way (`framing`), and so does an answer
//! (`answer`); then their own bytes go on, and nobody parses or writes them a second time. Each client
//! connection has a node connection of its own. Between requests it holds its sockets, and nothing else.

use std::future::poll_fn;
use std::io::ErrorKind;
use std::pin::{Pin, pin};
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncRead as _, AsyncReadExt as _, AsyncWriteExt as _, ReadBuf};
use tokio::time::{Instant, Sleep, sleep, timeout};
use tokio_util::sync::WaitForCancellationFuture;

use super::super::accept::Stream;
use super::super::http::{Reply, linger};
use super::answer::Answer;
use super::asked::Asked;
use super::buffer::{Lot, SMALL};
use super::exchange::{Asking, BROKEN_OFF, Broken, Exchange};
use super::framing::{At, Flaw};
use super::proxy::Opening;
use super::{Gate, STALL, forwarded, path, plain};
use crate::config::WhenBad;
use crate::health::State;

/// How long a head may take, and a kept connection be idle: longer than the 60 s after which the
/// node itself would close it, so that a balancer meets no end that it would not meet there. As long
/// may an answer of the gate's own take.
const TIME: Duration = Duration::from_secs(75);

const UNREACHABLE: Flaw = Flaw { status: 502, title: "the node does not answer" };
const FULL: Flaw = Flaw { status: 503, title: "too many long heads at once" };

/// Serves one client connection.
pub(super) async fn serve(gate: &Gate, client: Stream, opening: Opening) {
    let Opening { peer, early } = opening;
    let asking = Asking { client, said: Lot::of(early), at: At::Head(0) };
    let line = forwarded::line(gate.config.forwarded, peer);
    let mut talk = Talk { gate, asking, node: None, line };
    let timer = pin!(sleep(TIME));
    let stop = pin!(gate.stop.cancelled());
    let mut patience = Patience { timer, stop };
    loop {
        let mut until = Instant::now() + TIME;
        let next = poll_fn(|cx| talk.poll_next(&mut patience, &mut until, cx)).await;
        let after = match next {
            Next::Request(n) => talk.answer(n, &mut patience).await,
            Next::Flawed(flaw) => talk.say(&problem(flaw), None).await,
            Next::Stop if talk.asking.said.unjudged().is_empty() => After::Close,
            Next::Stop => After::HearOut,
            Next::Gone => return,
        };
        match after {
            After::Next if !gate.stop.is_cancelled() => {}
            after => return talk.end(after).await,
        }
    }
}

/// What a connection comes to between requests.
enum Next {
    /// A head of so many bytes, which is clear.
    Request(usize),
    Flawed(Flaw),
    /// Nobody asks, and the sidecar stops.
    Stop,
    /// The client is gone, or its time is over.
    Gone,
}

/// What comes after a request.
enum After {
    Next,
    /// It was the last one.
    Close,
    /// The rest of one may still come.
    HearOut,
    /// Its answer broke off, which must not look like its end.
    Drop,
}

/// How long a client is waited for. One timer serves all of its requests.
struct Patience<'a, 'gate> {
    timer: Pin<&'a mut Sleep>,
    stop: Pin<&'a mut WaitForCancellationFuture<'gate>>,
}

impl Patience<'_, '_> {
    fn poll(&mut self, until: Instant, cx: &mut Context<'_>) -> Poll<Next> {
        if self.stop.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Next::Stop);
        }
        if self.is_over(until, cx) { Poll::Ready(Next::Gone) } else { Poll::Pending }
    }

    fn is_over(&mut self, until: Instant, cx: &mut Context<'_>) -> bool {
        if self.timer.deadline() > until {
            self.timer.as_mut().reset(until);
        }
        while self.timer.as_mut().poll(cx).is_ready() {
            if Instant::now() >= until {
                return true;
            }
            // It was set for an earlier request.
            self.timer.as_mut().reset(until);
        }
        false
    }
}

/// One client connection.
struct Talk<'a> {
    gate: &'a Gate,
    asking: Asking,
    /// The node's side: opened with the first request that goes there.
    node: Option<Stream>,
    /// Tells the node who the client is.
    line: String,
}

impl Talk<'_> {
    /// Ends the connection; a buffer is for those that go on.
    async fn end(mut self, after: After) {
        self.asking.said = Lot::default();
        self.node = None;
        match after {
            After::Next | After::Close => Box::pin(linger(&mut self.asking.client)).await,
            After::HearOut => Box::pin(hear_out(&mut self.asking.client)).await,
            After::Drop => {}
        }
    }

    /// Waits for a request's head.
    fn poll_next(
        &mut self,
        patience: &mut Patience<'_, '_>,
        until: &mut Instant,
        cx: &mut Context<'_>,
    ) -> Poll<Next> {
        let Asking { client, said, at } = &mut self.asking;
        loop {
            while !said.unjudged().is_empty() {
                let blank = said.unjudged().starts_with(b"\r\n");
                match at.step(said.unjudged()) {
                    Ok(0) => break,
                    Ok(n) if blank => {
                        said.pass(n);
                        said.discard();
                    }
                    Ok(n) => return Poll::Ready(Next::Request(n)),
                    Err(flaw) => return Poll::Ready(Next::Flawed(flaw)),
                }
            }
            // Nobody has asked the node anything, so whatever comes from there is its end.
            let mut byte = [0];
            if let Some(node) = &mut self.node
                && Pin::new(node).poll_read(cx, &mut ReadBuf::new(&mut byte)).is_ready()
            {
                self.node = None;
            }
            let idle = said.unjudged().is_empty();
            match said.poll_read(client, cx) {
                Poll::Ready(Ok(1..)) if idle => *until = Instant::now() + TIME,
                Poll::Ready(Ok(1..)) => {}
                Poll::Ready(Err(e)) if e.kind() == ErrorKind::OutOfMemory => {
                    return Poll::Ready(Next::Flawed(FULL));
                }
                Poll::Ready(_) => return Poll::Ready(Next::Gone),
                Poll::Pending => return patience.poll(*until, cx),
            }
        }
    }

    /// Answers the request whose head are the next so many bytes.
    async fn answer(&mut self, n: usize, patience: &mut Patience<'_, '_>) -> After {
        let Asking { said, at, .. } = &mut self.asking;
        let head = said.unjudged().get(..n).unwrap_or_default();
        let Some((asked, method, target)) = Asked::read(head) else { return After::Drop };
        let refused = self.gate.refuses(method, target);
        self.gate.view.received.add(n as u64);
        said.pass(n);
        if refused {
            self.gate.view.refused.fetch_add(1, Ordering::Relaxed);
            return self.say(&self.gate.refusal(), Some(asked)).await;
        }
        if !self.line.is_empty() {
            said.insert(n.saturating_sub(2), self.line.as_bytes());
        }
        let again = asked.is_repeatable() && matches!(at, At::Head(_)) && self.node.is_some();
        let copy = match again {
            true if said.clear().len() <= SMALL => said.clear().to_vec(),
            // Not worth the room: over a new connection it need not be sent once more.
            true => {
                self.node = None;
                Vec::new()
            }
            false => Vec::new(),
        };
        self.relay(asked, copy, patience).await
    }

    /// Sends a request over the kept connection, or a new one. The node closes a kept one when it likes,
    /// so a request that met that end is sent once more, where that cannot do a thing twice.
    async fn relay(
        &mut self,
        asked: Asked,
        mut copy: Vec<u8>,
        patience: &mut Patience<'_, '_>,
    ) -> After {
        loop {
            let kept = self.node.take();
            let was_kept = kept.is_some();
            let node = match kept {
                Some(node) => Some(node),
                None => Box::pin(self.gate.connect()).await,
            };
            let Some(mut node) = node else {
                return self.say(&problem(UNREACHABLE), Some(asked)).await;
            };
            let mut exchange =
                Exchange::new(self.gate, &mut self.asking, &mut node, Answer::to(asked));
            let mut until = None;
            let exchanged = poll_fn(|cx| {
                let polled = exchange.poll(cx);
                if exchange.has_spoken() {
                    copy = Vec::new();
                }
                let due = polled.is_pending() && exchange.waits_for_client();
                if !due || exchange.take_moved() {
                    until = None;
                }
                if due {
                    let until = *until.get_or_insert_with(|| Instant::now() + STALL);
                    if patience.is_over(until, cx) {
                        return Poll::Ready(Err(exchange.stalled()));
                    }
                }
                polled
            });
            match exchanged.await {
                Ok(true) => {
                    self.node = Some(node);
                    return After::Next;
                }
                Ok(false) if self.asking.is_whole() => return After::Close,
                Ok(false) => return After::HearOut,
                Err(Broken::Before { sent: false }) if was_kept => {}
                Err(Broken::Before { sent: true }) if was_kept && !copy.is_empty() => {
                    self.asking.said.discard();
                    self.asking.said.insert(0, &std::mem::take(&mut copy));
                }
                Err(Broken::Before { .. }) => {
                    return self.say(&problem(BROKEN_OFF), Some(asked)).await;
                }
                Err(Broken::Unanswered(flaw)) => {
                    return self.say(&problem(flaw), Some(asked)).await;
                }
                Err(Broken::Midway) => return After::Drop,
                Err(Broken::Endless) => {
                    let _ = plain::abort(&self.asking.client);
                    return After::Drop;
                }
            }
        }
    }

    /// Gives an answer of the gate's own; to what was asked, where that is known. It ends the connection
    /// when a body may still come: that was meant for a node that will not get it.
    async fn say(&mut self, reply: &Reply, asked: Option<Asked>) -> After {
        let Asking { client, said, at } = &mut self.asking;
        said.discard();
        let whole = asked.is_some() && *at == At::Head(0);
        let keep = whole && asked.is_some_and(|asked| asked.keep) && !self.gate.stop.is_cancelled();
        let mut out = Vec::new();
        reply.write(&mut out, asked.is_none_or(|asked| !asked.is_bodiless()), !keep);
        if !matches!(timeout(TIME, client.write_all(&out)).await, Ok(Ok(()))) {
            return After::Drop;
        }
        self.gate.view.sent.add(out.len() as u64);
        match (keep, whole) {
            (true, _) => After::Next,
            (false, true) => After::Close,
            (false, false) => After::HearOut,
        }
    }
}

/// Ends a connection on which the rest of a request may still come. Closing would make the kernel
/// send a reset, which takes the answer back, and many programs look for one only when they have
/// sent all of a body; so it is read as long as it comes.
async fn hear_out(stream: &mut Stream) {
    const QUIET: Duration = Duration::from_secs(5);
    const TIME: Duration = Duration::from_mins(5);
    let heard = async {
        let _ = stream.shutdown().await;
        let mut sink = vec![0; SMALL];
        while let Ok(Ok(1..)) = timeout(QUIET, stream.read(&mut sink)).await {}
    };
    let _ = timeout(TIME, heard).await;
}

impl Gate {
    fn refuses(&self, method: &str, target: &str) -> bool {
        if matches!(self.state(), State::Up) || !path::is_of_files(target) {
            return false;
        }
        match self.config.when_bad {
            WhenBad::RefuseUri => true,
            WhenBad::RefuseWrites => !path::is_reading(method),
            WhenBad::Close | WhenBad::Pass => false,
        }
    }

    fn refusal(&self) -> Reply {
        let verdict = self.service().map(|service| service.answers().verdict.clone());
        let reasons = verdict.as_ref().map(|verdict| &verdict.reasons);
        let what = json!({
            "status": 503,
            "title": format!("the service {} is not available on this node", self.config.service),
            "service": *self.config.service,
            "state": verdict.as_ref().map(|verdict| verdict.state),
            "reasons": reasons,
            "see": "`hcf status` on this node's machine, or the page of hcf's status listener there",
        });
        let after = self.config.retry_after.as_secs().max(1).to_string();
        reply(503, &[("Retry-After", &after)], &what)
    }
}

fn problem(flaw: Flaw) -> Reply {
    reply(flaw.status, &[], &json!({"status": flaw.status, "title": flaw.title}))
}

fn reply(status: u16, headers: &[(&str, &str)], what: &serde_json::Value) -> Reply {
    Reply::new(status, "application/problem+json", headers, format!("{what}\n"))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::io::AsyncReadExt as _;
    use tokio::net::{TcpListener, TcpStream};
    use tokio::task::JoinSet;
    use tokio_util::either::Either;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::clock::Clock;
    use crate::config::{Config, Sources};
    use crate::judge::{Judge, Memory};
    use crate::overrides::Ruling;
    use crate::systemd::Systemd;

    /// A client that has said this to a gate, the node's end of it, and the task that serves it.
    async fn ask(words: &str) -> (TcpStream, TcpStream, JoinSet<()>) {
        let node = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("hcf.yaml");
        let text = "gates: {web: {listen: '127.0.0.1:0', when_bad: refuse_uri}}\n";
        std::fs::write(&file, text).unwrap();
        let url = format!("http://{}", node.local_addr().unwrap());
        let sources = Sources { file: Some(file), node: Some(url), ..Sources::default() };
        let config = Config::load(&sources).unwrap();
        let (ruling, systemd) = (Ruling::default(), Systemd::default());
        let (_, board, _) = Judge::new(&config, Clock::start(), Memory::new(), &ruling, systemd);
        let (target, stop) = (config.node.target.clone(), CancellationToken::new());
        let gate = config.gates.into_iter().next().unwrap();
        let gate = Gate::new(gate, Arc::new(board), target, stop, Arc::default());
        let port = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(port.local_addr().unwrap()).await.unwrap();
        let (there, _) = port.accept().await.unwrap();
        let opening = Opening { peer: None, early: Vec::new() };
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { serve(&gate, Either::Left(there), opening).await });
        client.write_all(words.as_bytes()).await.unwrap();
        (client, node.accept().await.unwrap().0, tasks)
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_does_not_go_on_sending_is_told_so() {
        let (mut client, mut node, mut tasks) =
            ask("PUT /x HTTP/1.1\r\nContent-Length: 4\r\n\r\nab").await;
        let started = Instant::now();
        let mut heard = String::new();
        client.read_to_string(&mut heard).await.unwrap();
        assert!(heard.starts_with("HTTP/1.1 408 "), "{heard}");
        assert!(started.elapsed() >= STALL);
        drop(client);
        tasks.join_next().await.unwrap().unwrap();
        let mut asked = Vec::new();
        let _ = node.read_to_end(&mut asked).await;
        assert!(asked.ends_with(b"\r\n\r\nab"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_nothing_is_left_and_one_whose_node_is_slow_is_not() {
        let (mut client, mut node, mut tasks) = ask("GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
        sleep(10 * STALL).await;
        assert!(tasks.try_join_next().is_none(), "it is the node that is waited for");
        let started = Instant::now();
        node.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n").await.unwrap();
        while node.write_all(&[b'x'; 1 << 12]).await.is_ok() {}
        tasks.join_next().await.unwrap().unwrap();
        assert!(started.elapsed() >= STALL);
        let mut heard = Vec::new();
        assert!(client.read_to_end(&mut heard).await.is_ok_and(|n| n < 1_000_000_000));
    }
}
