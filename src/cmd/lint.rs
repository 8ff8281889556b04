//! `hcf snippet --lint`: the traps in an existing haproxy.cfg. HAProxy itself accepts most of them without a word.
//!
//! Pure: text in, traps out. [`parse`] reads the file, this module holds the rules.

use self::parse::{File, Probe, Proxy, Server};

mod parse;

/// How bad a trap is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Severity {
    /// Slow, fragile, or wrong on some versions.
    Warning,
    /// Traffic goes where it must not, or never comes back, or HAProxy does not start.
    Error,
}

/// One trap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Trap {
    /// The line of the file, from 1.
    pub line: usize,
    /// How bad it is.
    pub severity: Severity,
    /// A stable name.
    pub code: &'static str,
    /// What is wrong, what it does, and what to write instead.
    pub message: String,
}

/// The longest time that hcf holds a question, in microseconds.
const HOLD_MAX: u64 = 60_000_000;
/// A delayed acknowledgement, in microseconds.
const DELAYED_ACK: u64 = 200_000;
/// `agent-inter` where it is not set, in microseconds.
const AGENT_INTER: u64 = 2_000_000;

/// Finds the traps of a haproxy.cfg, in the order of its lines.
#[must_use]
pub(super) fn lint(text: &str) -> Vec<Trap> {
    let file = parse::parse(text);
    let mut found = Findings(Vec::new());
    let mixed = file
        .proxies
        .iter()
        .flat_map(|p| &p.servers)
        .any(|s| s.agent && s.agent_send.as_deref().is_some_and(|send| !send.is_empty()));
    for proxy in &file.proxies {
        let agents: Vec<&Server> = proxy.servers.iter().filter(|s| s.agent).collect();
        if agents.is_empty() {
            continue;
        }
        found.section(proxy, &agents);
        for server in agents {
            found.question(proxy, server, mixed);
            found.state(proxy, server);
            found.check(&file, proxy, server);
        }
    }
    found.elsewhere(&file);
    found.0.sort_by_key(|trap| trap.line);
    found.0
}

struct Findings(Vec<Trap>);

impl Findings {
    fn error(&mut self, line: usize, code: &'static str, message: String) {
        self.0.push(Trap { line, severity: Severity::Error, code, message });
    }

    fn warning(&mut self, line: usize, code: &'static str, message: String) {
        self.0.push(Trap { line, severity: Severity::Warning, code, message });
    }

    /// What is set once for a section.
    fn section(&mut self, proxy: &Proxy, agents: &[&Server]) {
        let name = &proxy.name;
        match &proxy.balance {
            None => self.warning(
                proxy.line,
                "no-balance",
                format!("{name} names no balance algorithm, and HAProxy 3.3 changed the default from roundrobin to random: write \"balance roundrobin\""),
            ),
            Some((line, algorithm)) if is_static(algorithm, proxy.consistent) => self.warning(
                *line,
                "static-balance",
                format!("balance {algorithm} takes no weight from an agent but 0% and 100%, so a degraded node of {name} keeps its full share: {}", if algorithm == "static-rr" { "write \"balance roundrobin\"" } else { "add \"hash-type consistent\"" }),
            ),
            Some(_) => {}
        }
        let holds = agents.iter().any(|s| s.option("hold").is_some());
        if proxy.timeout_check.is_none() && !holds {
            self.warning(
                proxy.line,
                "no-timeout-check",
                format!("{name} has no \"timeout check\", so each agent check must be over within agent-inter and a short one cuts off slow answers: write \"timeout check 1s\""),
            );
        }
    }

    /// What is asked, where, and how often.
    fn question(&mut self, proxy: &Proxy, server: &Server, mixed: bool) {
        let Server { line, ref name, .. } = *server;
        if server.agent_port.is_none() {
            self.error(line, "no-agent-port", format!("server {name} has agent-check but no agent-port, which HAProxy refuses to start with: add \"agent-port 5290\", the port of hcf's agent listener"));
        }
        match server.agent_send.as_deref() {
            None | Some("") => {
                self.warning(line, "no-agent-send", format!("server {name} has no agent-send, so hcf waits 30 ms and answers for its default service, and if any other server has one, HAProxy delays each check of this one by 200 ms: add agent-send \"write\\n\" (or \"read\\n\")"));
                let inter = server.agent_inter.unwrap_or(AGENT_INTER);
                if mixed && inter <= DELAYED_ACK && proxy.timeout_check.is_none() {
                    self.error(line, "agent-inter-short", format!("server {name} is asked every 200 ms or more often and has no agent-send while others have: the 200 ms delay makes every check of it time out, and its state never changes: add agent-send \"write\\n\""));
                }
            }
            Some(send) if send.contains("%[") => {
                self.error(line, "agent-send-format", format!("agent-send of server {name} holds %[...], which HAProxy sends as it stands, and hcf answers \"down\" for a service of that name: write the service out: agent-send \"write\\n\""));
            }
            Some(_) => {}
        }
        let Some((text, hold)) = server.option("hold").and_then(|t| Some((t, parse::micros(t)?)))
        else {
            return;
        };
        if hold > HOLD_MAX {
            self.warning(line, "hold-long", format!("hold={text} of server {name} is more than the 60 s that hcf holds a question: write hold=9s with \"timeout check 10s\""));
        }
        if proxy.timeout_check.is_none_or(|limit| limit <= hold) {
            self.error(line, "timeout-check-hold", format!("hcf holds a question of server {name} for {text}, but \"timeout check\" of {} is {}: held checks time out and changes are lost; set it above hold=, as in hold=9s with \"timeout check 10s\"", proxy.name, if proxy.timeout_check.is_none() { "not set" } else { "not longer" }));
        }
    }

    /// What the server starts as, and what a weight does to it.
    fn state(&mut self, proxy: &Proxy, server: &Server) {
        let Server { line, ref name, .. } = *server;
        let weight = server.weight.unwrap_or(1);
        if weight < 100 {
            self.error(line, "weight-low", format!("server {name} has weight {weight}, and HAProxy rounds hcf's percentages of it down: {}% of it is 0, which takes the node out: write \"weight 100\"", if weight <= 1 { 99 } else { 99 / weight }));
        }
        if server.inline && !proxy.has_default_server {
            self.warning(line, "agent-inline", format!("agent-check of server {name} stands on its own line and {} has no default-server: HAProxy 3.3 and 3.4 then start the agent's health at 0 and a server may stay down: move it: \"default-server agent-check agent-inter 500ms\"", proxy.name));
        }
        let keeps = server.option("admin") == Some("keep");
        if server.disabled && keeps {
            self.error(line, "disabled-keep", format!("server {name} is disabled and its agent-send says admin=keep: hcf then never says \"ready\" and the server stays out for ever: drop one of the two"));
        } else if !server.disabled && !server.init_state && !keeps {
            self.warning(line, "open-start", format!("server {name} gets traffic from HAProxy's start on until hcf has first answered, and for ever if there is no hcf: add \"disabled\", which hcf's \"ready\" lifts"));
        }
    }

    /// Whether anything notices that the sidecar is gone: a failing agent check changes nothing.
    fn check(&mut self, file: &File, proxy: &Proxy, server: &Server) {
        let Server { line, ref name, .. } = *server;
        let why = "a failing agent check changes nothing, so a dead or frozen hcf leaves its last word standing for ever";
        let write = format!(
            "write \"option httpchk GET /livez\", \"http-check expect status 200\" and \"check port {}\"",
            server.agent_port.as_deref().unwrap_or("5290")
        );
        // A tracked server's check counts for this one, and may itself track a further one.
        let (mut at, mut checker) = (proxy, server);
        for _ in 0..8 {
            let Some(path) = checker.track.as_deref() else { break };
            // A server that is not in this file cannot be judged from it.
            let Some(next) = file.find(path, &at.name) else { return };
            (at, checker) = next;
        }
        if !checker.check {
            self.error(
                line,
                "no-health-check",
                format!("server {name} has no health check: {why}: {write}"),
            );
            return;
        }
        let asks_hcf = match &at.probe {
            Probe::Http(path) => {
                ["/livez", "/readyz", "/health"].iter().any(|known| path.starts_with(known))
            }
            Probe::Connect | Probe::Other => false,
        };
        let agent_port = Some(checker.check_port()) == server.agent_port.as_deref();
        if agent_port && at.probe == Probe::Connect {
            self.error(line, "connect-check", format!("the health check of server {name} only connects to hcf's port, and a frozen process still accepts connections: {why}: {write}"));
        } else if !agent_port && !asks_hcf {
            self.warning(
                line,
                "check-elsewhere",
                format!("the health check of server {name} does not ask hcf, and {why}: {write}"),
            );
        }
    }

    /// What may stand anywhere in the file.
    fn elsewhere(&mut self, file: &File) {
        for &line in &file.retry_gone {
            self.error(line, "retry-on-410", "HAProxy has no \"retry-on 410\" and refuses to start: write 500 in its place, or see haproxy/retry-gone.cfg for reads that are answered 410".to_owned());
        }
        for (line, here, path) in &file.is_up {
            if file.find(path, here).is_some_and(|(_, s)| s.agent && !s.check) {
                self.error(*line, "srv-is-up", format!("srv_is_up({path}) does not look at the agent of a server without \"check\" and is true whatever hcf says: ask nbsrv() of a backend with this server alone"));
            }
        }
    }
}

/// Algorithms whose weights are fixed at the start.
fn is_static(algorithm: &str, consistent: bool) -> bool {
    match algorithm {
        "static-rr" => true,
        "source" | "uri" | "url_param" | "hdr" | "rdp-cookie" | "hash" => !consistent,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file without a trap; each test spoils one thing of it.
    const CLEAN: &str = r#"
defaults
    mode http
    timeout check 1s
frontend web
    default_backend be
backend be
    balance roundrobin
    option httpchk GET /livez
    http-check expect status 200
    default-server weight 100 disabled check inter 1s agent-check agent-inter 500ms
    server gw1 127.0.0.1:3456 port 5290 agent-port 5290 agent-send "read\n"
    server gw2 127.0.0.1:3457 port 5390 agent-port 5390 agent-send "read\n" # agent-send
"#;

    fn codes(text: &str) -> Vec<&'static str> {
        lint(text).into_iter().map(|trap| trap.code).collect()
    }

    fn spoilt(from: &str, to: &str) -> Vec<&'static str> {
        assert!(CLEAN.contains(from), "{from} is not in the clean file");
        codes(&CLEAN.replacen(from, to, 1))
    }

    #[test]
    fn the_clean_file_has_no_trap() {
        assert_eq!(lint(CLEAN), []);
        assert_eq!(lint(""), []);
    }

    #[test]
    fn the_shipped_files_have_no_trap() {
        for text in [
            include_str!("../../haproxy/last-resort.cfg"),
            include_str!("../../haproxy/longpoll.cfg"),
            include_str!("../../haproxy/no-traffic.cfg"),
            include_str!("../../haproxy/recommended.cfg"),
            include_str!("../../haproxy/refuse-uri.cfg"),
            include_str!("../../haproxy/refuse-writes.cfg"),
            include_str!("../../haproxy/retry-gone.cfg"),
            include_str!("../../haproxy/retry.cfg"),
            include_str!("../../haproxy/status-only.cfg"),
        ] {
            assert_eq!(lint(text), [], "{text}");
            // A linter that saw no server in them would find nothing either.
            assert!(codes(&text.replace("weight 100", "weight 1")).contains(&"weight-low"));
        }
    }

    #[test]
    fn every_trap_is_found_alone() {
        for (from, to, code) in [
            (r#" 5290 agent-send "read\n""#, " 5290", "no-agent-send"),
            ("agent-port 5290", "", "no-agent-port"),
            (r"read\n", "%[be_name]", "agent-send-format"),
            ("balance roundrobin", "", "no-balance"),
            ("balance roundrobin", "balance static-rr", "static-balance"),
            ("balance roundrobin", "balance hdr(host)", "static-balance"),
            ("timeout check 1s", "", "no-timeout-check"),
            (r"read\n", r"read hold=1s\n", "timeout-check-hold"),
            ("timeout check 1s\n", "timeout check 2m\n retry-on 500 410\n", "retry-on-410"),
            (r"read\n", r"read admin=keep\n", "disabled-keep"),
            ("3456 port", "3456 enabled port", "open-start"),
            ("3456 port", "3456 weight 50 port", "weight-low"),
            ("3456 port", "3456 no-check port", "no-health-check"),
        ] {
            assert_eq!(spoilt(from, to), [code], "{from} -> {to}");
        }
    }

    #[test]
    fn checks_that_a_frozen_sidecar_passes() {
        let connect = CLEAN.replace("    option httpchk GET /livez\n", "");
        assert_eq!(codes(&connect), ["connect-check"; 2]);
        let talk =
            connect.replace("balance", "option tcp-check\n tcp-check expect string x\n balance");
        assert_eq!(codes(&talk), [""; 0]);
        // On hcf's own port any HTTP answer is hcf's; on the node's port it is not.
        let other = CLEAN.replace("GET /livez", "GET /");
        assert_eq!(codes(&other), [""; 0]);
        assert_eq!(codes(&other.replacen("3456 port 5290", "3456", 1)), ["check-elsewhere"]);
    }

    #[test]
    fn a_hold_needs_a_longer_timeout() {
        let hold = |hold: &str, timeout: &str| {
            let text = CLEAN.replace("timeout check 1s", &format!("timeout check {timeout}"));
            codes(&text.replacen(r"read\n", &format!(r"read as=a hold={hold}\n"), 1))
        };
        assert_eq!(hold("9s", "10s"), [""; 0]);
        assert_eq!(hold("9s", "10000"), [""; 0]);
        assert_eq!(hold("9s", "9s"), ["timeout-check-hold"]);
        assert_eq!(hold("2m", "3m"), ["hold-long"]);
        assert_eq!(hold("9s", "\"$CHECK\""), [""; 0]);
        assert_eq!(hold("soon", "1s"), [""; 0]);
        assert_eq!(hold("99999999999999999999s", "1s"), [""; 0]);
    }

    #[test]
    fn the_delayed_acknowledgement_needs_others_that_send() {
        let text =
            CLEAN.replace("agent-inter 500ms", "agent-inter 200").replace("timeout check 1s", "");
        let mixed = text.replacen(r#"5290 agent-send "read\n""#, "5290", 1);
        assert!(codes(&mixed).contains(&"agent-inter-short"));
        let silent = mixed.replace(r#"agent-send "read\n""#, "");
        assert!(!codes(&silent).contains(&"agent-inter-short"));
    }

    #[test]
    fn inheritance() {
        // Named defaults, default-server in them, and a later section that starts from nothing.
        let text = CLEAN.replace(
            "defaults\n",
            "defaults a\n balance first\n default-server agent-check weight 100\n",
        );
        let text = text
            .replace("backend be\n", "defaults b\nbackend be from a\n")
            .replace("balance roundrobin\n", "");
        assert_eq!(codes(&text), [""; 0]);
        let lost = text.replace("be from a", "be");
        assert_eq!(codes(&lost), ["no-balance", "no-timeout-check"]);
        let inline = "backend b\n server s 1.1.1.1:1 agent-check agent-port 2 cookie check\n";
        let found = codes(inline);
        for code in ["agent-inline", "weight-low", "no-health-check", "open-start", "no-agent-send"]
        {
            assert!(found.contains(&code), "{code}: {found:?}");
        }
        let off = CLEAN.replace("server gw1", "server gw0 1.1.1.1:1 no-agent-check\n server gw1");
        assert_eq!(codes(&off), [""; 0]);
        assert_eq!(
            codes("peers p\n server a 1:1 agent-check\nring r\n server b 2:2 agent-check\n"),
            [""; 0]
        );
    }

    #[test]
    fn a_tracked_server_counts_as_the_check() {
        let alive = "backend alive\n option httpchk GET /livez\n server gw1 127.0.0.1:5290 check\n";
        let text = format!(
            "{}{alive}",
            CLEAN.replacen("3456 port", "3456 no-check track alive/gw1 port", 1)
        );
        assert_eq!(codes(&text), [""; 0]);
        assert_eq!(codes(&text.replace("5290 check", "5290")), ["no-health-check"]);
        assert_eq!(codes(&text.replace(alive, "")), [""; 0]);
        // Two servers that track each other: HAProxy refuses it, and this must end.
        let ring =
            "backend r\n balance first\n server a 1:1 track b agent-check\n server b 1:1 track a\n";
        assert!(codes(ring).contains(&"no-health-check"));
    }

    #[test]
    fn srv_is_up_is_blind_to_an_agent_alone() {
        let text = CLEAN
            .replace("mode http\n", "mode http\n monitor fail if !{ srv_is_up(be/gw1) -m bool }\n");
        assert_eq!(codes(&text), [""; 0]);
        let blind = text.replacen("3456 port", "3456 no-check port", 1);
        assert_eq!(codes(&blind), ["srv-is-up", "no-health-check"]);
    }

    #[test]
    fn quotes_comments_and_rubbish() {
        assert_eq!(codes(&CLEAN.replace(r#""read\n""#, r"'read\n'")), [""; 0]);
        assert_eq!(
            codes(&CLEAN.replace(r#""read\n""#, r"read\ hold=9s\n")),
            ["timeout-check-hold"; 2]
        );
        assert_eq!(codes(&CLEAN.replace("mode http", "# retry-on 410")), [""; 0]);
        for rubbish in [
            "\\",
            "'",
            "\"",
            "server",
            "backend",
            "defaults from",
            "server s",
            "é\u{0}\u{7f}",
            "backend x\n server \\",
            "backend b\n server s : agent-check weight agent-send",
        ] {
            let _ = lint(rubbish);
            for cut in 0..CLEAN.len() {
                let _ = lint(&format!("{}{rubbish}", CLEAN.get(..cut).unwrap_or_default()));
            }
        }
    }

    #[test]
    fn lines_and_words() {
        let traps = lint(&CLEAN.replacen("3456 port", "3456 weight 10 port", 1));
        assert_eq!((traps[0].line, traps[0].severity), (12, Severity::Error));
        assert!(traps[0].message.contains("9% of it is 0"), "{}", traps[0].message);
        assert!(traps[0].message.contains("weight 100"));
    }
}
