//! Free ports that stay free until they are used.

use std::fs::File;
use std::net::TcpListener;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Mutex;

/// Below Linux's range for outgoing connections (from 32768), so that no such connection takes a port between the
/// moment it was found free and the moment a node binds it (a storage node then stays up, deaf).
const FIRST: u16 = 20_000;
const BLOCK: u16 = 100;
const BLOCKS: u16 = 120;

/// The block of ports that this process holds: its lock file is held open, hence free again when the process ends.
struct Block {
    _lock: File,
    index: u16,
    used: u16,
}

static CURRENT: Mutex<Option<Block>> = Mutex::new(None);

/// A port of 127.0.0.1 that nobody listens on, never given out twice by this process or by two labs at once.
pub fn free_port() -> u16 {
    let mut current = CURRENT.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    loop {
        let block = match current.as_mut() {
            Some(block) if block.used < BLOCK => block,
            full => {
                let after = full.map(|block| block.index);
                current.insert(next_block(after))
            }
        };
        let port = FIRST + block.index * BLOCK + block.used;
        block.used += 1;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

fn next_block(after: Option<u16>) -> Block {
    // By user: one user's locks cannot be opened by another, whose ports the bind finds out.
    let user = std::fs::metadata("/proc/self").map_or(0, |process| process.uid());
    // Not in TMPDIR: labs that differ in that share the ports all the same.
    let folder = Path::new("/tmp").join(format!("hcf-ports-{user}"));
    std::fs::create_dir_all(&folder).expect("a folder for port locks can be made");
    let spread = u16::try_from(std::process::id() % u32::from(BLOCKS)).expect("less than BLOCKS");
    let start = after.map_or(spread, |index| index + 1);
    (0..BLOCKS)
        .map(|step| (start + step) % BLOCKS)
        .find_map(|index| {
            let lock = File::create(folder.join(index.to_string())).ok()?;
            lock.try_lock().ok()?;
            Some(Block { _lock: lock, index, used: 0 })
        })
        .expect("a block of ports is free")
}
