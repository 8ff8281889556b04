//! Opening listening sockets: TCP and Unix, each so that a second sidecar cannot bind silently.

use std::fs::{DirBuilder, File, TryLockError};
use std::io;
use std::net::{Shutdown, SocketAddr, ToSocketAddrs as _};
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use socket2::{Domain, SockAddr, Socket, Type};

use crate::config::Address;

/// A socket that listens, and that no call waits on, unless told to. No runtime knows it before somebody serves it.
#[derive(Debug)]
pub enum Listener {
    /// On a TCP port.
    Tcp(Socket),
    /// On a Unix socket; its file goes when this does, unless it is another's.
    Unix(Socket, Option<SocketFile>),
}

impl Listener {
    /// The socket itself.
    pub(super) const fn socket(&self) -> &Socket {
        match self {
            Self::Tcp(socket) | Self::Unix(socket, _) => socket,
        }
    }

    /// Makes `accept` wait, for as long as this at most.
    ///
    /// # Errors
    ///
    /// Of fcntl(2) and setsockopt(2), which do not fail on a listening socket.
    pub fn waits(&self, time: Duration) -> io::Result<()> {
        self.socket().set_read_timeout(Some(time))?;
        self.socket().set_nonblocking(false)
    }
}

/// Why a socket could not be opened: names the address, the listener and the cause.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} for {listener}: {cause}")]
pub struct BindError {
    address: String,
    listener: String,
    cause: String,
}

/// Connections that wait to be accepted; the kernel lowers it to its own limit.
pub(super) const BACKLOG: i32 = 4096;

/// Opens a socket for the listener called `name`, and says at which address (port 0 resolved).
///
/// # Errors
///
/// When the address cannot be had.
pub fn bind(
    address: &Address,
    name: &str,
    access: Access,
) -> Result<(Listener, Address), BindError> {
    let bound = match address {
        Address::Tcp { host, port } => tcp(host, *port).and_then(|socket| {
            socket.listen(BACKLOG)?;
            let local = socket.local_addr()?.as_socket().map(Address::from);
            Ok((Listener::Tcp(socket), local.unwrap_or_else(|| address.clone())))
        }),
        Address::Unix(path) => unix(path, access),
    };
    bound.map_err(|e| BindError::new(address, name, &e))
}

/// Takes a TCP port without listening, and says where (port 0 resolved). Nobody else can have it.
pub(super) fn reserve(address: &Address, name: &str) -> Result<(Socket, Address), BindError> {
    let reserved = match address {
        Address::Tcp { host, port } => resolve_port(host, *port).and_then(|port| {
            let socket = tcp(host, port)?;
            // Only one that has listened keeps others away, by the kernel's own books.
            socket.listen(1)?;
            socket.set_reuse_address(false)?;
            socket.shutdown(Shutdown::Read)?;
            let local = socket.local_addr()?.as_socket().map(Address::from);
            Ok((socket, local.unwrap_or_else(|| address.clone())))
        }),
        Address::Unix(_) => Err(io::Error::other("a Unix socket has no port")),
    };
    reserved.map_err(|e| BindError::new(address, name, &e))
}

/// A port of the kernel's choice is given back as soon as its socket stops listening, so the number
/// is taken and then asked for by itself.
fn resolve_port(host: &str, port: u16) -> io::Result<u16> {
    if port != 0 {
        return Ok(port);
    }
    let chosen = tcp(host, 0)?.local_addr()?.as_socket().map_or(0, |address| address.port());
    Ok(chosen)
}

impl BindError {
    fn new(address: &Address, listener: &str, error: &io::Error) -> Self {
        let cause = match error.kind() {
            io::ErrorKind::AddrInUse => "address already in use".to_owned(),
            io::ErrorKind::NotFound => "its directory does not exist".to_owned(),
            io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
            _ => error.to_string(),
        };
        Self { address: address.to_string(), listener: listener.to_owned(), cause }
    }
}

/// The same address with its host resolved, so that opening it waits for nobody. This may wait for long.
///
/// # Errors
///
/// When nobody knows the name.
pub fn resolve(address: &Address, name: &str) -> Result<Address, BindError> {
    let Address::Tcp { host, port } = address else { return Ok(address.clone()) };
    let resolved = look_up(host, *port).map(Address::from);
    resolved.map_err(|e| BindError::new(address, name, &e))
}

fn look_up(host: &str, port: u16) -> io::Result<SocketAddr> {
    let mut addresses = (host, port).to_socket_addrs()?;
    addresses.next().ok_or_else(|| io::Error::other("the name has no address"))
}

fn tcp(host: &str, port: u16) -> io::Result<Socket> {
    let address = look_up(host, port)?;
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    // A restart must not wait for old connections to leave TIME_WAIT. On Linux this does not let
    // two sockets listen on one port.
    socket.set_reuse_address(true)?;
    if let SocketAddr::V6(v6) = address {
        socket.set_only_v6(!v6.ip().is_unspecified())?;
    }
    socket.bind(&address.into())?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// Binds where nobody else can go and renames into place, so that the socket never stands there, or
/// anywhere, with other permissions, and never not at all.
fn unix(path: &Path, access: Access) -> io::Result<(Listener, Address)> {
    let _turn = take_turn(path)?;
    if let Ok(there) = std::fs::symlink_metadata(path) {
        if !there.file_type().is_socket() {
            return Err(io::Error::other("a file that is not a socket stands there"));
        }
        if UnixStream::connect(path).is_ok() {
            return Err(io::ErrorKind::AddrInUse.into());
        }
    }
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}", std::process::id()));
    let private = PathBuf::from(name);
    // Left over by a process that had this number before.
    let _ = std::fs::remove_dir_all(&private);
    DirBuilder::new().mode(0o700).create(&private)?;
    let placed = place(&private.join("s"), path, access);
    let _ = std::fs::remove_dir_all(&private);
    let (listener, file) = placed?;
    Ok((Listener::Unix(listener, Some(file)), Address::Unix(path.to_owned())))
}

/// Keeps other sidecars from taking a place in the same directory until it is dropped: of two that start at once, the
/// second must meet the first one's socket.
fn take_turn(path: &Path) -> io::Result<Option<File>> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
    // Where there is no such directory, that is found out soon enough; one that cannot be read has no turns.
    let Ok(dir) = File::open(dir.unwrap_or_else(|| Path::new("."))) else { return Ok(None) };
    for _ in 0..TURNS {
        match dir.try_lock() {
            Ok(()) => return Ok(Some(dir)),
            Err(TryLockError::WouldBlock) => std::thread::sleep(TURN),
            // Nor has a file system without locks.
            Err(TryLockError::Error(_)) => return Ok(None),
        }
    }
    Err(io::Error::other("another process keeps its directory locked"))
}

/// How long a start waits for its turn: many times what others need.
const TURNS: u32 = 200;
const TURN: Duration = Duration::from_millis(10);

fn place(temporary: &Path, path: &Path, access: Access) -> io::Result<(Socket, SocketFile)> {
    let listener = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)?;
    listener.bind(&SockAddr::unix(temporary)?)?;
    listener.listen(BACKLOG)?;
    if access.group.is_some() {
        std::os::unix::fs::chown(temporary, None, access.group)?;
    }
    std::fs::set_permissions(temporary, PermissionsExt::from_mode(access.mode))?;
    std::fs::rename(temporary, path)?;
    Ok((listener, SocketFile::at(path)?))
}

/// Who may connect to a Unix socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// The permissions of its file.
    pub mode: u32,
    /// The group of its file; `None` for the process's own.
    pub group: Option<u32>,
}

impl Access {
    /// These permissions, for the process's own group.
    #[must_use]
    pub const fn mode(mode: u32) -> Self {
        Self { mode, group: None }
    }
}

/// The file of a Unix socket; removed at the end, unless another has taken its place.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    inode: u64,
}

impl SocketFile {
    fn at(path: &Path) -> io::Result<Self> {
        let inode = std::fs::symlink_metadata(path)?.ino();
        Ok(Self { path: path.to_owned(), inode })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if std::fs::symlink_metadata(&self.path).is_ok_and(|there| there.ino() == self.inode) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Address {
        Address::parse(text).unwrap()
    }

    #[test]
    fn a_taken_address_is_named() {
        let (_first, bound) = bind(&address("127.0.0.1:0"), "agent", Access::mode(0o666)).unwrap();
        let error = bind(&bound, "health", Access::mode(0o666)).unwrap_err().to_string();
        assert_eq!(error, format!("cannot listen on {bound} for health: address already in use"));
        let error =
            bind(&address("unix:/nonexistent/dir/s"), "agent", Access::mode(0o666)).unwrap_err();
        assert!(error.to_string().ends_with("its directory does not exist"), "{error}");
    }

    #[test]
    fn of_those_who_want_a_place_at_once_one_has_it() {
        let dir = tempfile::tempdir().unwrap();
        let at = Address::Unix(dir.path().join("s"));
        for _ in 0..50 {
            let had = std::thread::scope(|scope| {
                let bind = || bind(&at, "admin", Access::mode(0o660));
                let wanting: Vec<_> = (0..4).map(|_| scope.spawn(bind)).collect();
                wanting.into_iter().map(|one| one.join().unwrap()).collect::<Vec<_>>()
            });
            assert_eq!(had.iter().filter(|had| had.is_ok()).count(), 1);
        }
    }

    #[test]
    fn a_unix_socket_is_placed_with_its_mode_and_goes_with_its_listener() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let at = Address::Unix(path.clone());
        let (first, _) = bind(&at, "agent", Access::mode(0o660)).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
        assert!(bind(&at, "agent", Access::mode(0o660)).is_err(), "somebody listens there");
        drop(first);
        assert!(!path.exists());
        // A socket that nobody listens on is left over, and is replaced.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let (second, _) = bind(&at, "agent", Access::mode(0o660)).unwrap();
        drop(second);
        std::fs::write(&path, "precious").unwrap();
        assert!(bind(&at, "agent", Access::mode(0o660)).is_err());
        assert_eq!(std::fs::read(&path).unwrap(), b"precious");
    }
}
