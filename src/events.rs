//! Server-sent events as they are read: a stream is taken apart into names and data.

/// The largest event.
const LIMIT: usize = 256 << 10;

/// What has come of a stream and is not yet taken.
#[derive(Debug, Default)]
pub struct Frames {
    buffer: Vec<u8>,
}

impl Frames {
    /// More has come.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole event that has a name and data; comments and nonsense are passed over.
    #[expect(clippy::should_implement_trait, reason = "there may be more when more has come")]
    pub fn next(&mut self) -> Option<(String, String)> {
        while let Some(end) = self.buffer.windows(2).position(|two| two == b"\n\n") {
            let event: Vec<u8> = self.buffer.drain(..end + 2).collect();
            if let Some(read) = std::str::from_utf8(&event).ok().and_then(read) {
                return Some(read);
            }
        }
        None
    }

    /// Whether more has come without an end than an event may have.
    #[must_use]
    pub fn is_too_long(&self) -> bool {
        self.buffer.len() > LIMIT
    }

    /// What has come without an end.
    #[must_use]
    pub fn rest(&self) -> &[u8] {
        &self.buffer
    }
}

fn read(event: &str) -> Option<(String, String)> {
    let field =
        |name: &str| event.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    Some((field("event")?.to_owned(), field("data")?.to_owned()))
}
