//! TLS on the health, status and grpc listeners: who may ask by their certificate, asked by curl, HAProxy and Envoy.

use std::fmt::Write as _;
use std::io::Read as _;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

use super::operator::Desk;
use crate::lab::eds::Eds;
use crate::lab::envoy::{self, Envoy};
use crate::lab::fake::FakeNode;
use crate::lab::haproxy::{Haproxy, Version};
use crate::lab::hcf::{Hcf, port};
use crate::lab::http::get;
use crate::lab::wait::{LONG, wait_until};
use crate::lab::{certificates, place};
use crate::program::hcf;

/// A sidecar beside a good node, all of whose listeners that can speak TLS do, to those whom `ca` knows.
struct Secured {
    hcf: Hcf,
    desk: Desk,
    node: FakeNode,
    folder: TempDir,
}

impl Secured {
    fn start() -> Self {
        let (folder, desk, node) = (place::folder("tls"), Desk::new(), FakeNode::healthy());
        certificates::make(folder.path());
        let path = |name: &str| folder.path().join(name).display().to_string();
        for kind in ["pem", "key"] {
            std::fs::copy(path(&format!("named.{kind}")), path(&format!("mine.{kind}"))).unwrap();
        }
        let tls = format!(
            "tls: {{cert: {}, key: {}, client_ca: {}}}",
            path("mine.pem"),
            path("mine.key"),
            path("ca.pem")
        );
        let mut config = "listen:\n  agent: '127.0.0.1:0'\n".to_owned();
        for listener in ["health", "grpc", "status"] {
            writeln!(config, "  {listener}: {{at: '127.0.0.1:0', {tls}}}").unwrap();
        }
        let hcf = desk.sidecar(&node, &config);
        super::operator::wait_up(&hcf);
        Self { hcf, desk, node, folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn file(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    /// What curl gets there with this client's certificate; nothing where no TLS comes about.
    fn curl(&self, address: &str, path: &str, client: Option<&str>) -> String {
        let mut curl = Command::new("curl");
        curl.args(["-sS", "--max-time", "20", "--cacert", &self.file("ca.pem")]);
        if let Some(client) = client {
            let (cert, key) = (format!("{client}.pem"), format!("{client}.key"));
            curl.args(["--cert", &self.file(&cert), "--key", &self.file(&key)]);
        }
        let run = curl.arg(format!("https://{address}{path}")).output().expect("curl runs");
        String::from_utf8_lossy(&run.stdout).into_owned()
    }

    /// The certificate that is shown there, in PEM.
    fn shown(&self) -> String {
        let mut openssl = Command::new("openssl");
        openssl
            .args(["s_client", "-connect", self.hcf.health()])
            .stdin(std::process::Stdio::null());
        let said = openssl.output().expect("openssl runs").stdout;
        let said = String::from_utf8_lossy(&said).into_owned();
        let (begin, end) = ("-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----");
        let (_, rest) = said.split_once(begin).unwrap_or_else(|| panic!("no certificate: {said}"));
        format!("{begin}{}{end}\n", rest.split_once(end).unwrap().0)
    }

    fn content(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap()
    }

    fn failures(&self, listener: &str) -> u64 {
        let page = self.curl(self.hcf.status(), "/metrics", Some("client"));
        let name = format!("hcf_listener_tls_failures_total{{listener=\"{listener}\"}} ");
        let line = page.lines().find_map(|line| line.strip_prefix(&name));
        line.unwrap_or_else(|| panic!("no {name} in: {page}")).parse().unwrap()
    }
}

#[test]
fn a_listener_with_tls_answers_only_those_whose_certificate_it_knows() {
    let mut s = Secured::start();
    let health = s.hcf.health().to_owned();
    for (listener, path) in [("health", "/livez"), ("status", "/v1/status")] {
        let address = s.hcf.address(listener).to_owned();
        assert!(s.curl(&address, path, Some("client")).contains('{'), "{listener}");
        for client in [None, Some("stranger"), Some("own")] {
            assert_eq!(s.curl(&address, path, client), "", "{listener}, {client:?}");
        }
        assert!(get(&address, path).is_err(), "without TLS");
        assert_eq!(s.failures(listener), 4);
    }
    // Who says nothing is not waited for.
    let mut silent = TcpStream::connect(&health).unwrap();
    silent.set_read_timeout(Some(LONG)).unwrap();
    assert_eq!(silent.read(&mut [0; 16]).unwrap_or(0), 0);
    assert_eq!(s.failures("health"), 5);
    let log = s.hcf.process().log();
    let said = log.to_lowercase();
    assert!(
        !["tls", "handshake", "certificate", "private"].iter().any(|word| said.contains(word)),
        "{log}"
    );
}

#[test]
fn a_renewed_certificate_counts_after_a_reload_and_a_bad_one_is_refused() {
    let s = Secured::start();
    assert_eq!(s.shown(), s.content("named.pem"));
    let replace = |kind: &str, from: &str| {
        std::fs::copy(s.path(from), s.path(&format!("mine.{kind}"))).unwrap();
    };
    replace("pem", "renewed.pem");
    let run = s.desk.run(&["reload"]);
    assert_eq!(run.exit, 78, "{run:?}");
    assert!(run.stderr.contains("listen.health.tls.key: the private key in "), "{}", run.stderr);
    assert!(run.stderr.contains(" is not that of "), "{}", run.stderr);
    assert_eq!(s.shown(), s.content("named.pem"), "the old one stays");
    replace("key", "renewed.key");
    let run = s.desk.run(&["reload"]);
    assert_eq!((run.exit, &*run.stdout), (0, "changed: (files that it names)\n"), "{run:?}");
    assert_eq!(s.shown(), s.content("renewed.pem"));
    assert!(s.curl(s.hcf.health(), "/livez", Some("client")).contains("pass"));
    // Other authorities: who was known is a stranger now.
    let ca = s.content("ca.pem");
    std::fs::copy(s.path("other.pem"), s.path("ca.pem")).unwrap();
    assert_eq!(s.desk.run(&["reload"]).exit, 0);
    std::fs::write(s.path("ca.pem"), ca).unwrap();
    assert_eq!(s.curl(s.hcf.health(), "/livez", Some("client")), "");
    assert!(s.curl(s.hcf.health(), "/livez", Some("stranger")).contains("pass"));
}

#[test]
fn what_makes_no_sense_is_said_of_its_file() {
    let folder = place::folder("tls-config");
    certificates::make(folder.path());
    let file = folder.path().join("hcf.yaml");
    let check = |listen: &str| {
        let listen = listen.replace("DIR", &folder.path().display().to_string());
        std::fs::write(&file, format!("listen: {{{listen}}}\n")).unwrap();
        hcf(&["check", "-c", &file.display().to_string()])
    };
    std::fs::write(folder.path().join("cut.key"), "-----BEGIN PRIVATE KEY-----\nTOPSECRET\n")
        .unwrap();
    std::fs::write(folder.path().join("odd.key"), "-----BEGIN PRIVATE KEY TOPSECRET\n").unwrap();
    for (listen, says) in [
        (
            "agent: {tls: {cert: DIR/own.pem, key: DIR/own.key}}",
            ":1:23: listen.agent.tls: HAProxy's agent checks speak no TLS; name who may ask by `allow` instead\n",
        ),
        (
            "health: {tls: {cert: DIR/own.pem}}",
            ":1:24: listen.health.tls: expected `cert` and `key`,",
        ),
        (
            "health: {tls: {cert: DIR/own.pem, key: DIR/other.key}}",
            "listen.health.tls.key: the private key in DIR/other.key is not that of DIR/own.pem\n",
        ),
        (
            "grpc: {tls: {cert: DIR/own.key, key: DIR/own.key}}",
            "listen.grpc.tls.cert: DIR/own.key holds no certificate\n",
        ),
        (
            "status: {tls: {cert: DIR/own.pem, key: DIR/own.pem}}",
            "listen.status.tls.key: DIR/own.pem holds no private key\n",
        ),
        (
            "status: {tls: {cert: DIR/own.pem, key: DIR/cut.key}}",
            "listen.status.tls.key: cannot read a private key from DIR/cut.key: a section has no end\n",
        ),
        (
            "status: {tls: {cert: DIR/own.pem, key: DIR/odd.key}}",
            "listen.status.tls.key: cannot read a private key from DIR/odd.key: a section begins wrongly\n",
        ),
        (
            "status: {tls: {cert: DIR/own.pem, key: DIR/own.key, client_ca: DIR/none}}",
            "listen.status.tls.client_ca: cannot read DIR/none: No such file",
        ),
        (
            "status: {tls: {cert: DIR/own.pem, key: DIR/own.key, client_ca: DIR/own.key}}",
            "listen.status.tls.client_ca: DIR/own.key holds no certificate\n",
        ),
    ] {
        let run = check(listen);
        assert_eq!(run.exit, 78, "{listen}{run:?}");
        let says = says.replace("DIR", &folder.path().display().to_string());
        assert!(run.stderr.contains(&says), "{listen}: {}", run.stderr);
        assert!(!run.stderr.contains("TOPSECRET"), "{}", run.stderr);
    }
    let tls = "tls: {cert: DIR/own.pem, key: DIR/own.key";
    let key = folder.path().join("own.key");
    for (mode, client_ca, open_key, everybody) in
        [(0o644, "", true, true), (0o640, ", client_ca: DIR/ca.pem", false, false)]
    {
        std::fs::set_permissions(&key, PermissionsExt::from_mode(mode)).unwrap();
        let run = check(&format!("status: {{at: '0.0.0.0:1', {tls}{client_ca}}}}}"));
        let said = |text: &str| run.stderr.contains(text);
        let open = "listen.status.tls.key: anybody on this machine may read ";
        assert_eq!((said(open), said("anybody who reaches")), (open_key, everybody), "{run:?}");
    }
}

#[test]
fn the_status_is_asked_over_tls() {
    let s = Secured::start();
    let (url, ca, other) =
        (format!("https://{}", s.hcf.status()), s.file("ca.pem"), s.file("other.pem"));
    let own = ["--cert", &s.file("client.pem"), "--key", &s.file("client.key")];
    let ask = |args: &[&str]| hcf(&[&["status", "--url", &url], args].concat());
    let run = ask(&[&["--ca", &ca], &own[..]].concat());
    assert!(run.exit == 0 && run.stdout.contains("write"), "{run:?}");
    for (args, exit, says) in [
        (&["--ca", &ca][..], 3, "does it want a certificate (--cert and --key)?"),
        (
            &["--ca", &other],
            3,
            "its certificate is not one that the authority has signed for this name",
        ),
        (&["--ca", "/none"], 3, "cannot read /none: "),
        (&[], 2, "https needs the authority that has signed the certificate (--ca)"),
    ] {
        let run = ask(args);
        assert!(run.exit == exit && run.stderr.contains(says), "{args:?}: {run:?}");
    }
    let plain = hcf(&["status", "--url", &url.replace("https", "http")]);
    assert_eq!(plain.exit, 3, "{plain:?}");
}

#[test]
fn a_fleet_is_followed_over_tls() {
    let s = Secured::start();
    let nodes =
        |from| [(format!("{from}0"), s.node.addr.clone(), format!("https://{}", s.hcf.status()))];
    let (cert, key) = (s.file("client.pem"), s.file("client.key"));
    let tls = format!("tls: {{ca: {}, cert: {cert}, key: {key}}}", s.file("ca.pem"));
    let eds = Eds::start(&Eds::config(&tls, &nodes("gw")));
    eds.wait_health(&["HEALTHY"]);
    let tls = format!("tls: {{ca: {}}}", s.file("ca.pem"));
    let eds = Eds::start(&Eds::config(&tls, &nodes("gw")));
    wait_until("it to be refused", LONG, || {
        eds.fleet()["nodes"]["gw0"]["trouble"] == "the connection broke"
    });
    assert_eq!(eds.health(), ["UNHEALTHY"]);
}

#[test]
fn haproxy_checks_over_tls_with_its_certificate_alone() {
    let s = Secured::start();
    for version in Version::ALL {
        let (node, check) = (&s.node.addr, port(s.hcf.health()));
        let known = format!(
            "server known {node} check port {check} check-ssl verify required ca-file {} crt {}",
            s.file("ca.pem"),
            s.file("client.both")
        );
        let proxy = Haproxy::start(
            version,
            &format!(
                "defaults\n  mode http\n  timeout connect 2s\n  timeout client 5s\n  timeout server 5s\n  timeout check 2s\n\
                 frontend unused\n  bind 127.0.0.1:{}\n\
                 backend nodes\n  option httpchk GET /health/write\n  http-check expect status 200\n  \
                 default-server inter 200ms fall 1 rise 1\n  {known}\n  {}\n  {}\n",
                crate::lab::ports::free_port(),
                known
                    .replace("known", "nameless")
                    .replace(&format!(" crt {}", s.file("client.both")), ""),
                known.replace("known", "stranger").replace("client.both", "stranger.both"),
            ),
        );
        let passed = |stat: &crate::lab::haproxy::Stat| stat.check_status() == "L7OK";
        proxy.wait_stat("nodes", "known", "passes its check", passed);
        for server in ["nameless", "stranger"] {
            // With TLS 1.3 a client hears that it is refused after its own handshake is over.
            let stat = proxy.wait_stat("nodes", server, "is out", |stat| !stat.is_up());
            assert!(!stat.check_status().starts_with("L7OK"), "{server}: {}", stat.check_status());
        }
    }
}

#[test]
fn envoy_checks_over_tls_with_its_certificate_alone() {
    let s = Secured::start();
    for version in [envoy::Version::Oldest, envoy::Version::Newest] {
        for (check, listener) in [
            ("http_health_check: {path: /health/write}", "health"),
            ("grpc_health_check: {service_name: write}", "grpc"),
        ] {
            let cluster = |name: &str, client: Option<&str>| {
                let own = client.map(|client| {
                    format!(
                        "\n            tls_certificates:\n            - {{certificate_chain: {{filename: {}}}, private_key: {{filename: {}}}}}",
                        s.file(&format!("{client}.pem")),
                        s.file(&format!("{client}.key"))
                    )
                });
                CLUSTER
                    .replace("NAME", name)
                    .replace("CHECK", check)
                    .replace("OWN", &own.unwrap_or_default())
                    .replace("CA", &s.file("ca.pem"))
                    .replace("NODE", &port(&s.node.addr).to_string())
                    .replace("PORT", &port(s.hcf.address(listener)).to_string())
            };
            let clusters = [
                cluster("known", Some("client")),
                cluster("nameless", None),
                cluster("stranger", Some("stranger")),
            ];
            let config = format!("static_resources:\n  clusters:\n{}", clusters.concat());
            let proxy = Envoy::start_version(version, &config);
            wait_until("the known one to be in", LONG, || proxy.is_up("known", &s.node.addr));
            wait_until("every cluster to be checked", LONG, || {
                let flags = |name: &str| proxy.health(name, &s.node.addr).unwrap_or_default();
                ["nameless", "stranger"].iter().all(|name| !flags(name).is_empty())
            });
            assert!(
                !proxy.is_up("nameless", &s.node.addr) && !proxy.is_up("stranger", &s.node.addr)
            );
        }
    }
}

/// Requests go to the node in the clear, and checks to the sidecar beside it in TLS.
const CLUSTER: &str = r#"
  - name: NAME
    type: STATIC
    connect_timeout: 2s
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        use_downstream_protocol_config: {http_protocol_options: {}, http2_protocol_options: {}}
    transport_socket_matches:
    - name: hcf
      match: {hcf: true}
      transport_socket:
        name: envoy.transport_sockets.tls
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext
          common_tls_context:
            validation_context: {trusted_ca: {filename: CA}}OWN
    health_checks:
    - timeout: 2s
      interval: 0.2s
      no_traffic_interval: 0.2s
      unhealthy_threshold: 1
      healthy_threshold: 1
      transport_socket_match_criteria: {hcf: true}
      CHECK
    load_assignment:
      cluster_name: NAME
      endpoints:
      - lb_endpoints:
        - endpoint:
            address: {socket_address: {address: 127.0.0.1, port_value: NODE}}
            health_check_config: {port_value: PORT}
"#;
