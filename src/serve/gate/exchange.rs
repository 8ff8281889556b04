//! One request and its answer, on their way between a client and the node.
//!
//! Both directions go on in one task, as the bytes that came: nothing passes before it was seen to be
//! clear, nothing of the next request passes at all, and what breaks off on one side does not look
//! like an end on the other.

use std::task::{Context, Poll, ready};

use super::super::accept::Stream;
use super::Gate;
use super::answer::Answer;
use super::buffer::{Lot, SMALL};
use super::framing::{At, Flaw};

/// So much of the next requests is read while one is under way, to notice when the client goes.
const NEXT: usize = SMALL;

/// What a client hears when there is no answer from the node.
pub(super) const BROKEN_OFF: Flaw = Flaw { status: 502, title: "the node broke off the answer" };

const STALLED: Flaw = Flaw { status: 408, title: "the rest of the request does not come" };

/// Why a request has no whole answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Broken {
    /// The node's connection had ended before anything of an answer.
    Before {
        /// Something of the request had gone there.
        sent: bool,
    },
    /// Nothing of an answer was written, and the client is to hear of this instead.
    Unanswered(Flaw),
    /// It broke off in the middle, or the client has gone.
    Midway,
    /// It broke off where that looks like its end.
    Endless,
}

/// What a client has said, and what follows.
#[derive(Debug)]
pub(super) struct Asking {
    pub(super) client: Stream,
    pub(super) said: Lot,
    pub(super) at: At,
}

impl Asking {
    /// Whether the request was read to its end.
    pub(super) fn is_whole(&self) -> bool {
        matches!(self.at, At::Head(_))
    }
}

/// A request that is sent, and its answer.
#[derive(Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each side does what it likes, whatever the other does"
)]
pub(super) struct Exchange<'a> {
    gate: &'a Gate,
    /// The request's head is clear, and was sent as little as what follows it.
    asking: &'a mut Asking,
    node: &'a mut Stream,
    answer: Answer,
    /// What the node has said.
    heard: Lot,
    /// Something of the request has gone to the node.
    sent: bool,
    /// The node takes no more. It may have said why, so only reading tells how its connection ended.
    deaf: bool,
    /// The node has said something.
    spoken: bool,
    /// Of an answer, be it an interim one, a part has gone to the client, and not all.
    midway: bool,
    /// A byte has come from the client, or gone there.
    moved: bool,
}

impl<'a> Exchange<'a> {
    pub(super) fn new(
        gate: &'a Gate,
        asking: &'a mut Asking,
        node: &'a mut Stream,
        answer: Answer,
    ) -> Self {
        let (heard, [sent, deaf, spoken, midway, moved]) = Default::default();
        Self { gate, asking, node, answer, heard, sent, deaf, spoken, midway, moved }
    }

    /// Whether the node has said something of an answer.
    pub(super) const fn has_spoken(&self) -> bool {
        self.spoken
    }

    /// Whether the client has sent or taken a byte since this was last asked.
    pub(super) const fn take_moved(&mut self) -> bool {
        std::mem::replace(&mut self.moved, false)
    }

    /// Whether it is the client who must do something now.
    pub(super) fn waits_for_client(&self) -> bool {
        let told = self.spoken || !self.answer.is_expected();
        let sends = told && !self.asking.is_whole() && self.asking.said.clear().is_empty();
        sends || !self.heard.clear().is_empty()
    }

    /// Why it ends when the client has done nothing for too long: what it can still be told.
    pub(super) fn stalled(&self) -> Broken {
        if self.asking.is_whole() || !self.heard.clear().is_empty() {
            return Broken::Midway;
        }
        self.failed(STALLED)
    }

    /// Goes on until the answer was written, and all of the request where another one can follow; says
    /// whether one can.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool, Broken>> {
        let mut there = self.poll_there(cx)?;
        let back = self.poll_back(cx)?;
        if self.deaf && self.spoken && there.is_pending() {
            there = self.poll_there(cx)?;
        }
        ready!(back);
        // What follows an answer belongs to nobody.
        let goes_on = self.answer.keeps() && !self.deaf && self.heard.unjudged().is_empty();
        if goes_on && there.is_pending() {
            // The rest is for a node that has answered already, as long as it takes it.
            let _ = ready!(self.heard.poll_read(self.node, cx));
            return Poll::Ready(Ok(false));
        }
        Poll::Ready(Ok(goes_on))
    }

    /// The request, to the node. When all of it is there, waits for the client to go.
    fn poll_there(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        loop {
            self.judge_request()?;
            if !self.asking.said.clear().is_empty() {
                if self.deaf {
                    // Until it is known to be, nothing is lost.
                    if !self.spoken {
                        return Poll::Pending;
                    }
                    self.asking.said.discard();
                } else {
                    match ready!(self.asking.said.poll_write(self.node, cx)) {
                        Ok(1..) => self.sent = true,
                        _ => self.deaf = true,
                    }
                }
                continue;
            }
            let whole = self.asking.is_whole();
            if whole && self.asking.said.unjudged().len() >= NEXT {
                return Poll::Ready(Ok(()));
            }
            match self.asking.said.poll_read(&mut self.asking.client, cx) {
                Poll::Ready(Ok(1..)) => self.moved = true,
                Poll::Ready(_) => return Poll::Ready(Err(Broken::Midway)),
                Poll::Pending if whole => return Poll::Ready(Ok(())),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    fn judge_request(&mut self) -> Result<(), Broken> {
        let Asking { said, at, .. } = &mut *self.asking;
        while !matches!(at, At::Head(_)) && !said.unjudged().is_empty() {
            match at.step(said.unjudged()) {
                Ok(0) => break,
                Ok(n) => {
                    said.pass(n);
                    self.gate.view.received.add(n as u64);
                }
                Err(flaw) => return Err(self.failed(flaw)),
            }
        }
        Ok(())
    }

    /// The answer, to the client.
    fn poll_back(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        loop {
            while !self.heard.clear().is_empty() {
                match ready!(self.heard.poll_write(&mut self.asking.client, cx)) {
                    Ok(n @ 1..) => {
                        self.moved = true;
                        self.gate.view.sent.add(n as u64);
                    }
                    _ => return Poll::Ready(Err(Broken::Midway)),
                }
                // An interim answer is one by itself.
                self.midway = self.answer.is_begun() || !self.heard.clear().is_empty();
            }
            if self.answer.is_over() {
                return Poll::Ready(Ok(()));
            }
            self.judge_answer()?;
            if !self.heard.clear().is_empty() {
                continue;
            }
            let clean = match ready!(self.heard.poll_read(self.node, cx)) {
                Ok(1..) => {
                    self.spoken = true;
                    continue;
                }
                Ok(_) => true,
                Err(_) => false,
            };
            self.end(clean)?;
        }
    }

    fn judge_answer(&mut self) -> Result<(), Broken> {
        while !self.heard.unjudged().is_empty() {
            let begun = self.answer.is_begun();
            match self.answer.step(self.heard.unjudged()) {
                Ok(0) => break,
                Ok(n) => self.heard.pass(n),
                Err(flaw) => return Err(self.failed(flaw)),
            }
            if !begun && self.answer.is_begun() && self.gate.stop.is_cancelled() {
                // It is the last answer here, whatever the node thinks.
                let end = self.heard.clear().len().saturating_sub(2);
                self.heard.insert(end, b"Connection: close\r\n");
            }
        }
        Ok(())
    }

    /// The node's connection has ended while something of the answer was due.
    fn end(&mut self, clean: bool) -> Result<(), Broken> {
        // A node that answers early, and closes, has no clean end.
        let clean = clean || self.deaf || !self.asking.is_whole();
        match self.answer.end() {
            true if clean => Ok(()),
            true => Err(Broken::Endless),
            false if self.spoken => Err(self.failed(BROKEN_OFF)),
            false => Err(Broken::Before { sent: self.sent }),
        }
    }

    fn failed(&self, flaw: Flaw) -> Broken {
        if self.midway { Broken::Midway } else { Broken::Unanswered(flaw) }
    }
}
