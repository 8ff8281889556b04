//! Files larger than anybody should hold in memory: made, sent, and compared as they come.

use std::io::{self, BufRead as _, BufReader, Read, Write as _};
use std::net::TcpStream;

use super::wait::LONG;

/// How much is made, sent or compared at a time.
const PIECE: usize = 1 << 20;

/// The bytes of a file of this kind, piece by piece; no two pieces are alike.
#[derive(Debug)]
struct Bytes(u64);

impl Bytes {
    fn fill(&mut self, piece: &mut [u8]) {
        for word in piece.chunks_mut(8) {
            // xorshift, which needs no library.
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            word.copy_from_slice(&self.0.to_le_bytes()[..word.len()]);
        }
    }
}

/// Uploads `size` bytes that `seed` (not 0) stands for, and returns what the answer's body says.
pub fn upload(address: &str, seed: u64, size: usize) -> io::Result<String> {
    let mut stream = connect(address)?;
    write!(
        stream,
        "PUT /uri HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {size}\r\n\r\n"
    )?;
    let (mut bytes, mut piece, mut left) = (Bytes(seed), vec![0; PIECE], size);
    while left > 0 {
        let piece = &mut piece[..left.min(PIECE)];
        bytes.fill(piece);
        stream.write_all(piece)?;
        left -= piece.len();
    }
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let whole = answer.starts_with("HTTP/1.1 20").then(|| answer.split_once("\r\n\r\n")).flatten();
    // The answer may come in chunks; a capability is one line of it.
    let line = whole.and_then(|(_, body)| body.lines().find(|line| line.starts_with("URI:")));
    line.map(str::to_owned).ok_or_else(|| io::Error::other(answer.clone()))
}

/// Downloads a file and compares it with the `size` bytes that `seed` stands for.
pub fn download(address: &str, path: &str, seed: u64, size: usize) -> io::Result<()> {
    let mut stream = BufReader::with_capacity(PIECE, connect(address)?);
    write!(stream.get_mut(), "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if stream.read_line(&mut head)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    let length = format!("content-length: {size}\r\n");
    if !head.starts_with("HTTP/1.1 200 ") || !head.to_ascii_lowercase().contains(&length) {
        return Err(io::Error::other(head));
    }
    let (mut bytes, mut piece, mut came, mut left) =
        (Bytes(seed), vec![0; PIECE], vec![0; PIECE], size);
    while left > 0 {
        let count = left.min(PIECE);
        bytes.fill(&mut piece[..count]);
        stream.read_exact(&mut came[..count])?;
        if piece[..count] != came[..count] {
            return Err(io::Error::other(format!("other bytes within {left} of the end")));
        }
        left -= count;
    }
    match stream.read(&mut came)? {
        0 => Ok(()),
        more => Err(io::Error::other(format!("{more} bytes more"))),
    }
}

fn connect(address: &str) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address)?;
    // Of one step: a large file as a whole takes long.
    stream.set_read_timeout(Some(LONG * 4))?;
    stream.set_write_timeout(Some(LONG * 4))?;
    Ok(stream)
}
