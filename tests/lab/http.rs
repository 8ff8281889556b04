//! An HTTP/1.1 client that sends what it is told, once: no retry, no redirect, no kept connection hides a failure.

use std::io::{self, Error, ErrorKind};
use std::time::{Duration, Instant};

use super::net::{self, Stream};

/// For tests that do not care: longer than any answer they wait for.
const PATIENCE: Duration = Duration::from_secs(20);

/// What came back.
#[derive(Debug, Clone)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// The words behind the code: hcf's agent port puts its line there.
    pub reason: String,
    /// Names in lower case, in the order they came.
    pub headers: Vec<(String, String)>,
    /// The body, put together again where it came in chunks.
    pub body: Vec<u8>,
}

impl Response {
    /// The first header of that name (in lower case).
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The body as text, for messages and for capability strings.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON; panics with the body when it is none.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error} in: {}", self.text()))
    }
}

/// GET.
pub fn get(address: &str, path: &str) -> io::Result<Response> {
    request(address, "GET", path, &[], None, PATIENCE)
}

/// HEAD.
pub fn head(address: &str, path: &str) -> io::Result<Response> {
    request(address, "HEAD", path, &[], None, PATIENCE)
}

/// PUT.
pub fn put(address: &str, path: &str, body: &[u8]) -> io::Result<Response> {
    request(address, "PUT", path, &[], Some(body), PATIENCE)
}

/// POST.
pub fn post(address: &str, path: &str, body: &[u8]) -> io::Result<Response> {
    request(address, "POST", path, &[], Some(body), PATIENCE)
}

/// Any request; `patience` bounds the whole of it. An error is a failure to connect, or a cut or malformed answer.
pub fn request(
    address: &str,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: Option<&[u8]>,
    patience: Duration,
) -> io::Result<Response> {
    let end = Instant::now() + patience;
    let mut stream = net::connect(address, patience)?;
    let host = if address.starts_with("unix:") { "localhost" } else { address };
    let mut head = vec![
        format!("{method} {path} HTTP/1.1"),
        format!("Host: {host}"),
        "Connection: close".to_owned(),
    ];
    head.extend(headers.iter().map(|(name, value)| format!("{name}: {value}")));
    head.extend(body.map(|body| format!("Content-Length: {}", body.len())));
    let head = head.join("\r\n") + "\r\n\r\n";
    // In one write: a server that answers early and closes must not meet a second one.
    stream.write_all(&[head.as_bytes(), body.unwrap_or_default()].concat())?;
    read_response(&mut Reader { stream: &mut *stream, end, seen: Vec::new() }, method == "HEAD")
}

fn malformed(what: &str) -> Error {
    Error::new(ErrorKind::InvalidData, what.to_owned())
}

fn read_response(reader: &mut Reader<'_>, no_body: bool) -> io::Result<Response> {
    let mut response = loop {
        let head = read_head(reader)?;
        if head.status != 100 {
            break head;
        }
    };
    let chunked =
        response.header("transfer-encoding").is_some_and(|v| v.eq_ignore_ascii_case("chunked"));
    let length = response.header("content-length").map(str::parse::<usize>);
    response.body = if no_body || matches!(response.status, 204 | 304) {
        Vec::new()
    } else if chunked {
        read_chunks(reader)?
    } else if let Some(length) = length {
        reader.exactly(length.map_err(|_| malformed("content-length is no number"))?)?
    } else {
        reader.rest()?
    };
    Ok(response)
}

fn read_head(reader: &mut Reader<'_>) -> io::Result<Response> {
    let first = reader.line()?;
    let mut words = first.splitn(3, ' ');
    if !words.next().is_some_and(|version| version.starts_with("HTTP/1.")) {
        return Err(malformed("no HTTP/1 status line"));
    }
    let status = words
        .next()
        .and_then(|code| code.parse().ok())
        .ok_or_else(|| malformed("no status code"))?;
    let reason = words.next().unwrap_or_default().to_owned();
    let mut headers = Vec::new();
    loop {
        let line = reader.line()?;
        if line.is_empty() {
            return Ok(Response { status, reason, headers, body: Vec::new() });
        }
        let (name, value) =
            line.split_once(':').ok_or_else(|| malformed("header line without a colon"))?;
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
}

fn read_chunks(reader: &mut Reader<'_>) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let line = reader.line()?;
        let size = line.split(';').next().unwrap_or_default().trim();
        let size =
            usize::from_str_radix(size, 16).map_err(|_| malformed("chunk size is no number"))?;
        if size == 0 {
            while !reader.line()?.is_empty() {}
            return Ok(body);
        }
        body.extend(reader.exactly(size)?);
        reader.line()?;
    }
}

/// Reads pieces of a stream until a common end of time.
struct Reader<'a> {
    stream: &'a mut dyn Stream,
    end: Instant,
    seen: Vec<u8>,
}

impl Reader<'_> {
    fn more(&mut self) -> io::Result<usize> {
        let left = self.end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        self.stream.limit(left)?;
        let mut piece = [0; 16 * 1024];
        let size = self.stream.read(&mut piece)?;
        self.seen.extend_from_slice(&piece[..size]);
        Ok(size)
    }

    fn need_more(&mut self) -> io::Result<()> {
        if self.more()? == 0 { Err(ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
    }

    fn line(&mut self) -> io::Result<String> {
        loop {
            if let Some(end) = self.seen.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.seen.drain(..=end).collect();
                return Ok(String::from_utf8_lossy(&line).trim_end().to_owned());
            }
            self.need_more()?;
        }
    }

    fn exactly(&mut self, size: usize) -> io::Result<Vec<u8>> {
        while self.seen.len() < size {
            self.need_more()?;
        }
        Ok(self.seen.drain(..size).collect())
    }

    fn rest(&mut self) -> io::Result<Vec<u8>> {
        while self.more()? != 0 {}
        Ok(std::mem::take(&mut self.seen))
    }
}

#[cfg(test)]
#[allow(unused_imports, reason = "a bench is built for tests, but without them")]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;

    use super::get;

    /// One server that says `answer` to the first who asks.
    fn serve(answer: &'static str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.read(&mut [0; 1024]).unwrap();
            stream.write_all(answer.as_bytes()).unwrap();
        });
        address
    }

    #[test]
    fn chunks_are_put_together() {
        let answer = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x\r\nde\r\n0\r\n\r\n";
        assert_eq!(get(&serve(answer), "/").unwrap().text(), "abcde");
    }

    #[test]
    fn a_body_without_length_ends_with_the_connection() {
        let response = get(&serve("HTTP/1.0 503 up 50%\r\nX-A: b\r\n\r\nrest"), "/").unwrap();
        assert_eq!((response.status, response.reason.as_str()), (503, "up 50%"));
        assert_eq!((response.header("x-a"), response.text().as_str()), (Some("b"), "rest"));
    }

    #[test]
    fn a_cut_body_is_an_error() {
        assert!(get(&serve("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"), "/").is_err());
        assert!(get(&serve("SSH-2.0-x\r\n"), "/").is_err());
    }
}
