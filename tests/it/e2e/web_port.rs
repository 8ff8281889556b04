//! Every form of a gateway's `web.port` that hcf reads from the node's directory: any free port, TLS with a
//! certificate of its own, a Unix socket; and TLS by `node.tls.pin` and `node.tls.ca`, which accept nothing else.

use std::path::Path;

use super::farm::{beside, wait_line};
use crate::lab::certificates;
use crate::lab::hcf::Hcf;
use crate::lab::place;
use crate::lab::ports::free_port;
use crate::lab::tahoe::{Gateway, Grid};
use crate::lab::wait::{LONG, wait_until};

/// Gives the node another `web.port` and starts it anew.
fn serve_on(gateway: &mut Gateway, web_port: &str) {
    let config = std::fs::read_to_string(gateway.dir().join("tahoe.cfg")).expect("it can be read");
    let line = config.lines().find(|line| line.starts_with("web.port")).expect("a web.port");
    let changed = config.replacen(line, &format!("web.port = {web_port}"), 1);
    gateway.node.term();
    // Left from the last run: some forms write a new one, and some do not.
    let _ = std::fs::remove_file(gateway.dir().join("node.url"));
    gateway.node.write("tahoe.cfg", &changed);
    gateway.node.start();
}

fn up(hcf: &Hcf) {
    for service in ["read\n", "write\n"] {
        wait_line(hcf, service, "up ready 100%\n");
    }
}

#[test]
fn every_form_of_web_port() {
    let mut grid = Grid::builder().storage(2).gateways(1).shares(1, 2, 2).start();
    grid.wait_ready();
    let gateway = &mut grid.gateways[0];
    any_free_port(gateway);
    unix_socket(gateway);
    let folder = place::folder("certificates");
    certificates::make(folder.path());
    own_certificate(gateway, folder.path());
    signed_certificate(gateway, folder.path());
}

/// The node says in `node.url` which port it got, and gets another one when it starts again.
fn any_free_port(gateway: &mut Gateway) {
    serve_on(gateway, "tcp:0:interface=127.0.0.1");
    let url = gateway.dir().join("node.url");
    let read = || std::fs::read_to_string(&url).ok().filter(|text| text.contains("127.0.0.1"));
    wait_until("node.url to be written", LONG, || read().is_some());
    let first = read();
    let hcf = beside(gateway, &[]);
    up(&hcf);
    gateway.node.kill();
    wait_line(&hcf, "write\n", "down ready 100% #refused: ");
    gateway.node.start();
    wait_until("node.url to be written again", LONG, || {
        read().is_some_and(|text| Some(text) != first)
    });
    up(&hcf);
}

fn unix_socket(gateway: &mut Gateway) {
    // Such a path has little room, so it cannot stand in the node's directory.
    let folder = place::folder("web");
    let socket = folder.path().join("w");
    serve_on(gateway, &format!("unix:{}", socket.display()));
    wait_until("the socket", LONG, || socket.exists());
    let hcf = beside(gateway, &[]);
    up(&hcf);
    gateway.node.kill();
    wait_line(&hcf, "read\n", "down ready 100% #refused: ");
    gateway.node.start();
    up(&hcf);
    gateway.node.term();
}

/// A certificate that vouches for itself: taken from the node's own configuration, or named.
fn own_certificate(gateway: &mut Gateway, folder: &Path) {
    let port = free_port();
    serve_tls(gateway, port, folder, "own");
    up(&beside(gateway, &[]));
    let url = format!("https://127.0.0.1:{port}");
    up(&by(&url, folder, "pin", "own"));
    refuses(&by(&url, folder, "pin", "other"));
    refuses(&by(&url, folder, "ca", "ca"));
    // Another certificate on the port than the one that the node is configured with: not this node.
    let hcf = beside(gateway, &[]);
    up(&hcf);
    let own = folder.join("own.pem");
    let kept = std::fs::read(&own).expect("it can be read");
    std::fs::copy(folder.join("other.pem"), &own).expect("it can be written");
    let new = beside(gateway, &[]);
    refuses(&new);
    std::fs::write(&own, kept).expect("it can be written");
    up(&new);
}

fn signed_certificate(gateway: &mut Gateway, folder: &Path) {
    let port = free_port();
    serve_tls(gateway, port, folder, "named");
    let url = format!("https://127.0.0.1:{port}");
    up(&by(&url, folder, "ca", "ca"));
    up(&by(&url, folder, "pin", "named"));
    refuses(&by(&url, folder, "ca", "other"));
    up(&beside(gateway, &[]));
}

fn serve_tls(gateway: &mut Gateway, port: u16, folder: &Path, name: &str) {
    let folder = folder.display();
    serve_on(
        gateway,
        &format!(
            "ssl:{port}:privateKey={folder}/{name}.key:certKey={folder}/{name}.pem:interface=127.0.0.1"
        ),
    );
}

/// An hcf that knows the node by its URL and `node.tls` alone.
fn by(url: &str, folder: &Path, key: &str, name: &str) -> Hcf {
    let file = folder.join(format!("{name}.pem"));
    let config = format!(
        "node: {{url: \"{url}\", every: 200ms, tls: {{{key}: \"{}\"}}}}\n\
         services:\n  read: {{criteria: {{servers: {{min: 1}}}}}}\n  write: {{criteria: {{servers: {{min: 2}}}}}}\n",
        file.display()
    );
    Hcf::configured(&config, &[])
}

fn refuses(hcf: &Hcf) {
    for service in ["read\n", "write\n"] {
        wait_line(hcf, service, "down ready 100% #wrong-node: ");
    }
}
