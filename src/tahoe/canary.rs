//! One canary: proves what the node can do by doing it.

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use hyper::{Method, StatusCode};
use ring::digest::{SHA256, digest};

use super::cap::{Cap, Caps};
use super::client::Connection;
use super::files::aside;
use super::identity::Way;
use crate::health::{Canary, FailureKind, Mishap, ProbeFailure, Proof};

/// The most that a canary reads.
const LIMIT: usize = 1 << 20;

/// What is uploaded: always the same, so that the grid keeps one file of it. The node keeps files of up
/// to 55 bytes in the capability itself, which would prove nothing.
const UPLOAD: &[u8] =
    b"This file is uploaded again and again by hcf, to prove that files can be uploaded here. \
It never changes, so it takes no more room. Whoever reads this may leave it alone.\n";

/// A SHA-256.
pub(super) type Hash = [u8; 32];

/// Does what the canary asks for, on a connection of its own. The node must be proven to be itself
/// before it is told a capability. It does not end by itself when the node hangs.
///
/// Returns the hash of what was read; `known` is what it must be.
pub(super) async fn fly(
    way: &Way,
    canary: &Canary,
    known: impl FnOnce(&Cap) -> Option<Hash>,
) -> Result<Option<(Cap, Hash)>, Mishap> {
    let file = canary.cap_file.clone();
    let caps = aside(move || Caps::read(&file)).await;
    let caps = caps.unwrap_or_else(|| Err("cannot read the cap_file".to_owned()));
    let caps = caps.map_err(Mishap::CapFile)?;
    let mut node = way.open().await.map_err(unasked)?;
    match canary.kind {
        Proof::Read { sha256 } => {
            let body = get(&mut node, &caps.read).await?;
            let hash = hash(&body);
            match sha256.or_else(|| known(&caps.read)) {
                Some(expected) if expected != hash => Err(Mishap::WrongBytes),
                _ => Ok(Some((caps.read, hash))),
            }
        }
        Proof::Write => {
            let none = || Mishap::CapFile("the cap_file holds no capability to write".to_owned());
            let cap = caps.write.ok_or_else(none)?;
            // First, since only this asks for `shares.happy` servers: the node overwrites a file with
            // fewer, and loses what it wrote when the others come back.
            put(&mut node, "/uri", Bytes::from_static(UPLOAD)).await?;
            let body = fresh();
            put(&mut node, &cap.path(), body.clone()).await?;
            if get(&mut node, &cap).await? == body { Ok(None) } else { Err(Mishap::WrongBytes) }
        }
    }
}

/// Makes a file to read and one to write, and returns what a file that holds their capabilities says.
///
/// # Errors
///
/// Why not.
pub async fn create(way: &Way) -> Result<zeroize::Zeroizing<String>, Mishap> {
    let mut node = way.open().await.map_err(unasked)?;
    let read = put(&mut node, "/uri", fresh()).await?;
    let write = put(&mut node, "/uri?format=SDMF", fresh()).await?;
    let cap = |answer: &Bytes| {
        let word = std::str::from_utf8(answer).ok()?;
        Cap::parse(word.trim())
    };
    let (Some(read), Some(write)) = (cap(&read), cap(&write)) else {
        return Err(Mishap::Unasked("the node did not answer with a capability".to_owned()));
    };
    // What cannot be read back is no canary.
    get(&mut node, &read).await?;
    get(&mut node, &write).await?;
    Ok(Caps::text(&read, &write))
}

async fn get(node: &mut Connection, cap: &Cap) -> Result<Bytes, Mishap> {
    let (status, body) =
        node.ask(Method::GET, &cap.path(), Bytes::new(), LIMIT).await.map_err(unasked)?;
    said(status, body)
}

async fn put(node: &mut Connection, path: &str, sent: Bytes) -> Result<Bytes, Mishap> {
    let (status, body) = node.ask(Method::PUT, path, sent, LIMIT).await.map_err(unasked)?;
    said(status, body)
}

/// What the node's answer means. An error is a traceback, of which only the class counts.
fn said(status: StatusCode, body: Bytes) -> Result<Bytes, Mishap> {
    let class = |name: &str| body.windows(name.len()).any(|found| found == name.as_bytes());
    Err(match status.as_u16() {
        200 | 201 => return Ok(body),
        410 => Mishap::Shares,
        400 => Mishap::BadCap,
        500 if class("UploadUnhappinessError") => Mishap::Unhappy,
        500 if class("NoServersError") || class("NotEnoughServersError") => Mishap::NoServers,
        status => Mishap::Status(status),
    })
}

fn unasked(failure: ProbeFailure) -> Mishap {
    match failure.kind {
        FailureKind::TooLarge => Mishap::TooLarge,
        _ => Mishap::Unasked(failure.text),
    }
}

fn hash(bytes: &[u8]) -> Hash {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, bytes).as_ref());
    hash
}

/// A body that no canary had before.
fn fresh() -> Bytes {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    let pid = std::process::id();
    let text = format!("A canary of hcf, written at {now} by process {pid}.\n");
    Bytes::from(text.repeat(4))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_body_leaves_the_node() {
        assert!(UPLOAD.len() > 55 && fresh().len() > 55);
    }

    #[test]
    fn failures_are_known_by_status_and_class() {
        let said = |status, body: &str| {
            let status = StatusCode::from_u16(status).unwrap();
            said(status, Bytes::copy_from_slice(body.as_bytes())).err()
        };
        assert_eq!(said(200, ""), None);
        assert_eq!(said(201, ""), None);
        let unhappy =
            "Traceback\nallmydata.interfaces.UploadUnhappinessError: shares could be placed";
        assert_eq!(said(500, unhappy), Some(Mishap::Unhappy));
        let none = "allmydata.interfaces.NoServersError: client gave us zero servers";
        assert_eq!(said(500, none), Some(Mishap::NoServers));
        let few = "allmydata.mutable.common.NotEnoughServersError: ran out";
        assert_eq!(said(500, few), Some(Mishap::NoServers));
        assert_eq!(said(500, "else"), Some(Mishap::Status(500)));
        assert_eq!(said(410, "NoSharesError"), Some(Mishap::Shares));
        assert_eq!(said(400, ""), Some(Mishap::BadCap));
    }
}
