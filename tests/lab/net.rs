//! A connection to anything the lab talks to.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// A byte stream over TCP or a Unix socket: the same question is asked over both.
pub trait Stream: Read + Write + Send {
    /// Says that nothing more will be asked.
    fn end_of_question(&self) -> io::Result<()>;
    /// Bounds the next read, so that a silent peer cannot hang a test.
    fn limit(&self, time: Duration) -> io::Result<()>;
}

impl Stream for TcpStream {
    fn end_of_question(&self) -> io::Result<()> {
        self.shutdown(Shutdown::Write)
    }
    fn limit(&self, time: Duration) -> io::Result<()> {
        self.set_read_timeout(Some(time))
    }
}

impl Stream for UnixStream {
    fn end_of_question(&self) -> io::Result<()> {
        self.shutdown(Shutdown::Write)
    }
    fn limit(&self, time: Duration) -> io::Result<()> {
        self.set_read_timeout(Some(time))
    }
}

/// Connects to `host:port` or `unix:/path`, the two forms in which hcf prints its addresses.
pub fn connect(address: &str, time: Duration) -> io::Result<Box<dyn Stream>> {
    if let Some(path) = address.strip_prefix("unix:") {
        let stream = UnixStream::connect(path)?;
        stream.set_read_timeout(Some(time))?;
        stream.set_write_timeout(Some(time))?;
        return Ok(Box::new(stream));
    }
    let target = address.to_socket_addrs()?.next().ok_or(io::ErrorKind::NotFound)?;
    let stream = TcpStream::connect_timeout(&target, time)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(time))?;
    stream.set_write_timeout(Some(time))?;
    Ok(Box::new(stream))
}

/// Sends `question` and returns all that comes until the peer closes, as HAProxy's and hcf's line protocols do.
pub fn ask(address: &str, question: &[u8], time: Duration) -> io::Result<String> {
    let mut stream = connect(address, time)?;
    stream.write_all(question)?;
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        // A reset behind a whole answer is a normal end of such a connection.
        Err(_) if !answer.is_empty() => {}
        result => _ = result?,
    }
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
