//! Finds the commit that is built, for `hcf --version` and the status.
//!
//! Development builds ask nobody: each commit would build everything anew. Whoever builds without git says it by
//! `HCF_COMMIT`, which beats everything; a package of cargo's own holds it in a file.

#![allow(clippy::print_stdout, reason = "cargo is told so")]

use std::env;
use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=HCF_COMMIT");
    let version = env::var("CARGO_PKG_VERSION").unwrap_or_default();
    let said = env::var("HCF_COMMIT").ok().filter(|commit| !commit.is_empty());
    match said.or_else(packaged).or_else(checked_out) {
        Some(commit) => {
            println!("cargo:rustc-env=HCF_COMMIT={commit}");
            println!("cargo:rustc-env=HCF_VERSION={version} ({commit})");
        }
        None => println!("cargo:rustc-env=HCF_VERSION={version}"),
    }
}

/// What `cargo package` has written beside the sources: `{"git": {"sha1": "…"}, …}`.
fn packaged() -> Option<String> {
    let text = std::fs::read_to_string(".cargo_vcs_info.json").ok()?;
    let (_, rest) = text.split_once("\"sha1\"")?;
    short(rest.split('"').nth(1)?)
}

/// What git has checked out here, and not in some folder above.
fn checked_out() -> Option<String> {
    if env::var("PROFILE").ok()? != "release" || !Path::new(".git").exists() {
        return None;
    }
    let commit = git(&["rev-parse", "HEAD"])?;
    // Written with every commit and checkout. A file that is not there would have this run each time.
    let log = git(&["rev-parse", "--git-path", "logs/HEAD"])?;
    if Path::new(&log).exists() {
        println!("cargo:rerun-if-changed={log}");
    }
    short(&commit)
}

fn git(words: &[&str]) -> Option<String> {
    let output = Command::new("git").args(words).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}

fn short(commit: &str) -> Option<String> {
    let good = commit.len() >= 12 && commit.bytes().all(|byte| byte.is_ascii_hexdigit());
    good.then(|| commit.chars().take(12).collect())
}
