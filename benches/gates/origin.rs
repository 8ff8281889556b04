//! A node that is faster than whatever stands before it: it answers everything from memory.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::lab::fake::page;

/// The body of a small answer.
pub(crate) const SMALL: &[u8] = &[b'x'; 100];
/// As long as nobody waits for.
pub(crate) const ENDLESS: u64 = 1 << 50;
/// The bytes of endless uploads so far.
pub(crate) static UPLOADED: AtomicU64 = AtomicU64::new(0);

/// Serves until dropped.
pub(crate) async fn serve(listener: TcpListener) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => if let Ok((stream, _)) = accepted {
                connections.spawn(connection(stream));
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn connection(mut stream: TcpStream) {
    let _ = stream.set_nodelay(true);
    let mut heard = Vec::with_capacity(1024);
    loop {
        while !heard.ends_with(b"\r\n\r\n") {
            // What follows the head of an endless upload is counted, not kept.
            if heard.starts_with(b"PUT") && heard.windows(4).any(|bytes| bytes == b"\r\n\r\n") {
                break;
            }
            if !matches!(stream.read_buf(&mut heard).await, Ok(1..)) {
                return;
            }
        }
        let head = String::from_utf8_lossy(&heard).to_ascii_lowercase();
        heard.clear();
        let sent = if head.starts_with("put") {
            take(&mut stream).await
        } else if head.starts_with("get /endless") {
            give(&mut stream).await
        } else if head.starts_with("get /?t=json") {
            answer(&mut stream, &page(10, 0)).await
        } else {
            answer(&mut stream, SMALL).await
        };
        if sent.is_none() || head.contains("\r\nconnection: close") {
            return;
        }
    }
}

async fn answer(stream: &mut TcpStream, body: &[u8]) -> Option<()> {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
    stream.write_all(&[head.as_bytes(), body].concat()).await.ok()
}

async fn give(stream: &mut TcpStream) -> Option<()> {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {ENDLESS}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.ok()?;
    let chunk = vec![b'x'; 256 << 10];
    loop {
        stream.write_all(&chunk).await.ok()?;
    }
}

async fn take(stream: &mut TcpStream) -> Option<()> {
    let mut chunk = vec![0; 256 << 10];
    loop {
        let n = stream.read(&mut chunk).await.ok().filter(|n| *n > 0)?;
        UPLOADED.fetch_add(n as u64, Ordering::Relaxed);
    }
}
