//! Since when each storage server has been usable, or not: the node's page does not say, so looks are compared.
//!
//! What was so when a server was first seen may have been so for long; only a change that was seen has a time.

use super::{Moment, Server};

/// Since when something is as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Since {
    /// It was otherwise until then.
    Changed(Moment),
    /// It was so already when it was first seen, then.
    Before(Moment),
}

/// What the last good look saw of each server.
#[derive(Clone, Debug, Default)]
pub struct Roll(Vec<Line>);

#[derive(Clone, Debug)]
struct Line {
    id: Box<str>,
    usable: bool,
    since: Since,
}

impl Roll {
    /// Takes a good look into account: its servers, in the order of their ids, as they were at `now`.
    pub fn take(&mut self, servers: &[Server], now: Moment) {
        let mut old = std::mem::take(&mut self.0).into_iter().peekable();
        let line = |server: &Server| {
            while old.next_if(|line| line.id < server.id).is_some() {}
            let known = old.next_if(|line| line.id == server.id);
            let usable = server.is_usable(1, None);
            match known {
                Some(line) if line.usable == usable => line,
                Some(line) => Line { usable, since: Since::Changed(now), ..line },
                None => Line { id: server.id.clone(), usable, since: Since::Before(now) },
            }
        };
        self.0 = servers.iter().map(line).collect();
    }

    /// For each server of the last look, in its order, since when it is usable or not.
    pub fn since(&self) -> impl Iterator<Item = Since> {
        self.0.iter().map(|line| line.since)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::Link;
    use super::*;

    fn server(id: &str, link: Link) -> Server {
        Server {
            id: id.into(),
            nickname: "".into(),
            link,
            versioned: true,
            space: Some(1),
            silent: Some(Duration::ZERO),
            silence_limit: Duration::from_secs(10),
        }
    }

    fn secs(secs: u64) -> Moment {
        Moment::after_epoch(Duration::from_secs(secs))
    }

    #[test]
    fn a_change_has_the_time_of_the_look_that_saw_it() {
        let mut roll = Roll::default();
        let mut look = |at, servers: &[(&str, Link)]| {
            let servers: Vec<_> = servers.iter().map(|(id, link)| server(id, *link)).collect();
            roll.take(&servers, secs(at));
            roll.since().collect::<Vec<_>>()
        };
        let (up, gone, trying) = (Link::Connected, Link::Refused, Link::Connecting);
        assert_eq!(look(1, &[("b", up), ("c", gone)]), vec![Since::Before(secs(1)); 2]);
        assert_eq!(
            look(2, &[("a", gone), ("b", gone), ("c", trying)]),
            // Not refused any more, but no more usable for that.
            [Since::Before(secs(2)), Since::Changed(secs(2)), Since::Before(secs(1))]
        );
        assert_eq!(look(3, &[("b", gone)]), [Since::Changed(secs(2))]);
        assert_eq!(
            look(4, &[("b", up), ("c", gone)]),
            [Since::Changed(secs(4)), Since::Before(secs(4))]
        );
    }
}
