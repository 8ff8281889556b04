//! The judge of one service: takes looks, gives verdicts.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::damping::{Counts, Effect};
use super::weighing::Smoothed;
use super::{
    Code, Criterion, Damper, Damping, Else, Facts, Finding, Level, Moment, Observation, Orders,
    Part, Reason, State, Stop, Verdict, Weighing, Weight, Word,
};

/// What a service is judged by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// The criteria, in the order in which they are shown.
    pub criteria: Vec<Criterion>,
    /// How quickly the judge changes its mind.
    pub damping: Damping,
    /// How long the weight takes to grow back after a flip up; zero for at once.
    pub ramp: Duration,
    /// What the weight is made of; all of it for `None`.
    pub weighing: Option<Weighing>,
    /// The most weight while degraded.
    pub degraded_weight: Weight,
    /// How long after a look finished its word still counts.
    pub freshness: Duration,
}

/// Judges one service.
///
/// Everything it says follows from the looks and moments that it was given.
#[derive(Clone, Debug)]
pub struct ServiceJudge {
    rules: Rules,
    damper: Damper,
    seen: Seen,
}

/// What looks have led to so far, apart from what the damper counts.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Seen {
    cause: Cause,
    /// For each level, what the last look that wanted it found: the reasons when it is reached.
    found: [Vec<Finding>; Level::ALL.len()],
    findings: Vec<Finding>,
    latency: Option<Duration>,
    parts: Vec<Part>,
    share: Smoothed,
    finished: Option<Moment>,
    last: Option<Stance>,
    since: Moment,
    seq: u64,
}

/// Everything that a judge knows, for the next process to go on from.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Kept {
    counts: Counts,
    seen: Seen,
}

impl Kept {
    /// Whether it follows from a look that had finished at `now`: from one in the future, or from none, it would never be
    /// stale.
    #[must_use]
    pub fn is_known_at(&self, now: Moment) -> bool {
        self.seen.finished.is_some_and(|finished| finished <= now)
    }
}

/// Why the level is what it is.
#[derive(Clone, Debug, Serialize, Deserialize)]
enum Cause {
    Starting,
    Stale,
    Probe(Code, String),
    Criteria(Vec<Finding>),
}

/// What makes one verdict another one: a changed figure in a sentence does not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Stance {
    standing: Standing,
    weight: Weight,
    codes: Vec<Code>,
}

/// A state, and how far it is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Standing {
    state: State,
    degraded: bool,
    forced: bool,
}

impl Standing {
    const fn plain(state: State) -> Self {
        Self { state, degraded: false, forced: false }
    }
}

/// The share of its full weight with which a service comes back.
const RAMP_FROM: u128 = 10;

impl ServiceJudge {
    /// A judge that has seen nothing yet, at `now`.
    #[must_use]
    pub const fn new(rules: Rules, now: Moment) -> Self {
        let damper = Damper::new(rules.damping);
        let seen = Seen {
            cause: Cause::Starting,
            found: [const { Vec::new() }; Level::ALL.len()],
            findings: Vec::new(),
            latency: None,
            parts: Vec::new(),
            share: Smoothed::NEW,
            finished: None,
            last: None,
            since: now,
            seq: 0,
        };
        Self { rules, damper, seen }
    }

    /// A judge that goes on from what another one knew.
    #[must_use]
    pub fn resumed(rules: Rules, kept: Kept) -> Self {
        let damper = Damper::resumed(rules.damping, kept.counts);
        Self { rules, damper, seen: kept.seen }
    }

    /// Everything that it knows.
    #[must_use]
    pub fn kept(&self) -> Kept {
        Kept { counts: self.damper.counts().clone(), seen: self.seen.clone() }
    }

    /// Judges by other rules from the next look on. What it has said stands until then.
    pub fn rule_by(&mut self, rules: Rules) {
        self.damper = Damper::resumed(rules.damping, self.damper.counts().clone());
        if rules.weighing.is_none() {
            (self.seen.parts, self.seen.share) = (Vec::new(), Smoothed::NEW);
        }
        self.rules = rules;
    }

    /// Takes a finished look into account.
    pub fn look(&mut self, look: &Observation) {
        // A judge that was blind for too long must earn its way back, like one that saw a failure.
        if self.is_stale(look.finished) {
            self.damper.certain();
            self.seen.cause = Cause::Stale;
        }
        self.seen.finished = Some(look.finished);
        match &look.outcome {
            Ok(facts) => self.good(look, facts),
            Err(failure) => {
                let certain = failure.kind.is_certain();
                let effect = if certain { self.damper.certain() } else { self.damper.doubtful() };
                // Where nothing is known, even a doubtful failure says more.
                let blind = matches!(self.seen.cause, Cause::Starting | Cause::Stale);
                if effect == Effect::Applied || blind {
                    self.seen.cause = Cause::Probe(failure.kind.code(), failure.text.clone());
                }
            }
        }
    }

    fn good(&mut self, look: &Observation, facts: &Facts) {
        let latency = self
            .seen
            .latency
            .map_or(look.took, |average| average.mul_f64(0.7) + look.took.mul_f64(0.3));
        self.seen.latency = Some(latency);
        self.seen.findings =
            self.rules.criteria.iter().map(|criterion| criterion.judge(facts, latency)).collect();
        if let Some(weighing) = &self.rules.weighing {
            self.seen.parts = weighing.parts(facts, &self.seen.findings, latency);
            self.seen.share.take(look.finished, &self.seen.parts, weighing);
        }
        let wanted = level(&self.seen.findings);
        for (level, found) in Level::ALL.iter().zip(&mut self.seen.found) {
            if *level == wanted {
                found.clone_from(&self.seen.findings);
            }
        }
        if self.damper.good(look.finished, wanted) == Effect::Waiting {
            return;
        }
        let reached = self.damper.level();
        let found = Level::ALL.iter().zip(&self.seen.found).find(|(level, _)| **level == reached);
        self.seen.cause =
            Cause::Criteria(found.map(|(_, found)| found.clone()).unwrap_or_default());
    }

    /// Whether the last look finished too long before `now` to count.
    fn is_stale(&self, now: Moment) -> bool {
        self.fresh_until().is_some_and(|until| now > until)
    }

    /// Until when the last look counts; `None` before the first has finished.
    #[must_use]
    pub fn fresh_until(&self) -> Option<Moment> {
        self.seen.finished.map(|finished| finished + self.rules.freshness)
    }

    /// The verdict at `now`, under these orders.
    pub fn verdict(&mut self, now: Moment, orders: &Orders) -> Verdict {
        let (standing, reasons) = self.stance(now, orders);
        let weight = self.weight(now, standing.degraded).min(orders.cap());
        let codes = reasons.iter().map(|reason| reason.code).collect();
        let stance = Stance { standing, weight, codes };
        if self.seen.last.as_ref() != Some(&stance) {
            if self.seen.last.as_ref().is_none_or(|last| last.standing != standing) {
                self.seen.since = now;
            }
            self.seen.seq = self.seen.seq.wrapping_add(1);
            self.seen.last = Some(stance);
        }
        Verdict {
            state: standing.state,
            degraded: standing.degraded,
            forced: standing.forced,
            weight,
            reasons,
            findings: self.seen.findings.clone(),
            parts: self.seen.parts.clone(),
            since: self.seen.since,
            seq: self.seen.seq,
        }
    }

    /// The precedence of the design: maintenance, then what says "down" for certain, then the other
    /// orders, then the criteria.
    fn stance(&self, now: Moment, orders: &Orders) -> (Standing, Vec<Reason>) {
        let ordered = orders.reasons();
        let word = orders.word();
        let (judged, judgement) = self.judged(now);
        if word == Some(Word::Maint) {
            return (Standing::plain(State::Maint), [ordered, judgement].concat());
        }
        if !matches!(self.seen.cause, Cause::Criteria(_)) || self.is_stale(now) {
            return (Standing::plain(State::Down), [judgement, ordered].concat());
        }
        let standing = match word {
            Some(Word::Maint | Word::Down) => Standing::plain(State::Down),
            Some(Word::Drain) => Standing::plain(State::Drain),
            Some(Word::Up) => Standing { forced: true, ..Standing::plain(State::Up) },
            Some(Word::Weight(_)) | None => judged,
        };
        let stop = match orders.stop {
            Some(Stop::Down) => Some((State::Down, Else::Down)),
            Some(Stop::Drain) => Some((State::Drain, Else::Drain)),
            None => None,
        };
        let mut reasons = [ordered, judgement].concat();
        match stop {
            Some((state, otherwise)) if state > standing.state => {
                let text = "the sidecar is stopping".to_owned();
                reasons.insert(0, plain(Code::Shutdown, otherwise, text));
                (Standing::plain(state), reasons)
            }
            _ => (standing, reasons),
        }
    }

    /// What the looks alone say.
    fn judged(&self, now: Moment) -> (Standing, Vec<Reason>) {
        let down = |code, text| (Standing::plain(State::Down), vec![plain(code, Else::Down, text)]);
        if self.is_stale(now) || matches!(self.seen.cause, Cause::Stale) {
            return (Standing::plain(State::Down), vec![Reason::stale(self.rules.freshness)]);
        }
        match &self.seen.cause {
            Cause::Starting | Cause::Stale => {
                let (good, rise) = self.damper.progress();
                let text = match self.seen.finished {
                    None => "no look at the node has finished yet".to_owned(),
                    Some(_) => format!("{good} of {rise} good looks at the node"),
                };
                down(Code::Starting, text)
            }
            Cause::Probe(code, text) => down(*code, text.clone()),
            Cause::Criteria(findings) => {
                let standing = match self.damper.level() {
                    Level::Full => Standing::plain(State::Up),
                    Level::Degraded => Standing { degraded: true, ..Standing::plain(State::Up) },
                    Level::Drain => Standing::plain(State::Drain),
                    Level::Down => Standing::plain(State::Down),
                };
                (standing, failures(findings))
            }
        }
    }

    fn weight(&self, now: Moment, degraded: bool) -> Weight {
        let ramp = self.rules.ramp.as_nanos();
        let passed = self.damper.rose().map_or(ramp, |rose| now.since(rose).as_nanos());
        let percent =
            if passed >= ramp { 100 } else { RAMP_FROM + (100 - RAMP_FROM) * passed / ramp };
        let share = u128::from(self.seen.share.share().percent());
        let weight = Weight::clamped(u64::try_from(share * percent / 100).unwrap_or(100));
        if degraded { weight.min(self.rules.degraded_weight) } else { weight }
    }
}

fn level(findings: &[Finding]) -> Level {
    let failed = findings.iter().filter(|finding| !finding.pass);
    failed.map(|finding| finding.otherwise.level()).max().unwrap_or(Level::Full)
}

/// The reasons that findings give, worst first.
fn failures(findings: &[Finding]) -> Vec<Reason> {
    let failed = findings.iter().filter(|finding| !finding.pass);
    let mut reasons: Vec<Reason> = failed
        .map(|finding| Reason {
            code: finding.code,
            criterion: Some(finding.criterion),
            otherwise: finding.otherwise,
            text: finding.text.clone(),
        })
        .collect();
    reasons.sort_by_key(|reason| std::cmp::Reverse(reason.otherwise));
    reasons
}

const fn plain(code: Code, otherwise: Else, text: String) -> Reason {
    Reason { code, criterion: None, otherwise, text }
}

#[cfg(test)]
mod tests {
    use std::num::{NonZeroU32, NonZeroUsize};

    use proptest::prelude::*;

    use super::super::{FailureKind, Floor, Link, Override, ProbeFailure, Rule, Server};
    use super::*;

    const FRESHNESS: Duration = Duration::from_secs(5);

    fn rules() -> Rules {
        let servers = |count, otherwise| Criterion {
            rule: Rule::Servers {
                min: Floor { count: NonZeroUsize::new(count).unwrap(), guessed: None },
                min_space: 0,
                silence: None,
            },
            otherwise,
        };
        Rules {
            // Five servers are full service, four degrade it, three drain it, fewer take it down.
            criteria: vec![
                servers(5, Else::Degrade),
                servers(4, Else::Drain),
                servers(3, Else::Down),
            ],
            damping: Damping {
                rise: NonZeroU32::new(2).unwrap(),
                fall: NonZeroU32::new(3).unwrap(),
                hold: Duration::ZERO,
            },
            ramp: Duration::from_secs(10),
            weighing: None,
            degraded_weight: Weight::clamped(50),
            freshness: FRESHNESS,
        }
    }

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Look {
        Good(usize),
        Bad(FailureKind),
    }

    fn facts(servers: usize) -> Facts {
        let server = |n| Server {
            id: format!("s{n}").into(),
            nickname: "".into(),
            link: Link::Connected,
            versioned: true,
            space: None,
            silent: Some(Duration::ZERO),
            silence_limit: Duration::from_secs(10),
        };
        Facts { servers: (0..servers).map(server).collect(), ..Facts::default() }
    }

    fn observation(at: Moment, look: Look) -> Observation {
        let outcome = match look {
            Look::Good(servers) => Ok(facts(servers)),
            Look::Bad(kind) => Err(ProbeFailure::new(kind, "as asked")),
        };
        Observation { finished: at, took: Duration::from_millis(1), outcome }
    }

    fn secs(secs: u64) -> Moment {
        Moment::after_epoch(Duration::from_secs(secs))
    }

    /// A node that comes and goes ten times a second, for an hour: it is never up where it is never good for `rise` looks in
    /// a row, and no more often than `hold` allows where it is; and nothing grows.
    #[test]
    fn a_node_that_flaps_for_an_hour_is_up_seldom_or_never() {
        for (good, hold, most) in [(1, 0, 0), (3, 30, 120), (3, 0, 6000)] {
            let mut rules = rules();
            rules.damping.hold = Duration::from_secs(hold);
            let mut judge = ServiceJudge::new(rules, secs(0));
            let (mut up, mut rises, mut size) = (false, 0, 0);
            for tick in 0..36_000_u64 {
                let at = Moment::after_epoch(Duration::from_millis(tick * 100));
                let well = tick / good % 2 == 0;
                let look = if well { Look::Good(5) } else { Look::Bad(FailureKind::Refused) };
                judge.look(&observation(at, look));
                let now = judge.verdict(at, &none()).state == State::Up;
                rises += u64::from(now && !up);
                up = now;
                if tick == 100 {
                    size = format!("{judge:?}").len();
                }
            }
            assert!(rises <= most + 1 && (most == 0) == (rises == 0), "{good}, {hold}: {rises}");
            assert!(format!("{judge:?}").len() < size + 200, "it keeps no more than at the start");
        }
    }

    /// Gives the looks, one a second, and returns the verdict after each.
    fn run(rules: Rules, looks: &[Look]) -> Vec<Verdict> {
        let mut judge = ServiceJudge::new(rules, secs(0));
        let mut second = 0;
        looks
            .iter()
            .map(|&look| {
                second += 1;
                judge.look(&observation(secs(second), look));
                judge.verdict(secs(second), &none())
            })
            .collect()
    }

    fn none() -> Orders {
        Orders::default()
    }

    fn ordered(words: &[Word]) -> Orders {
        let order = |word: &Word| Override { word: *word, text: "as ordered".to_owned() };
        Orders { overrides: words.iter().map(order).collect(), ..none() }
    }

    fn codes(verdict: &Verdict) -> Vec<&'static str> {
        verdict.reasons.iter().map(|reason| reason.code.as_str()).collect()
    }

    #[test]
    fn nothing_is_up_before_it_was_seen_to_be() {
        let mut judge = ServiceJudge::new(rules(), secs(0));
        let verdict = judge.verdict(secs(0), &none());
        assert_eq!((verdict.state, codes(&verdict)), (State::Down, vec!["starting"]));
        let verdicts = run(rules(), &[Look::Good(5), Look::Good(5)]);
        assert_eq!(codes(&verdicts[0]), ["starting"]);
        assert_eq!(verdicts[0].reasons[0].text, "1 of 2 good looks at the node");
        assert_eq!((verdicts[1].state, verdicts[1].degraded), (State::Up, false));
    }

    #[test]
    fn a_failing_criterion_counts_at_once_and_the_worst_one_wins() {
        let up = [Look::Good(5), Look::Good(5)];
        for (servers, state, degraded) in
            [(4, State::Up, true), (3, State::Drain, false), (2, State::Down, false)]
        {
            let looks = [&up[..], &[Look::Good(servers)]].concat();
            let last = run(rules(), &looks).pop().unwrap();
            assert_eq!((last.state, last.degraded), (state, degraded), "{servers} servers");
            assert_eq!(last.reasons[0].otherwise.level(), level(&last.findings));
        }
    }

    #[test]
    fn a_certain_failure_counts_at_once_and_doubtful_ones_when_they_add_up() {
        use FailureKind::{Refused, Reset, Timeout};
        let up = [Look::Good(5), Look::Good(5)];
        let looks = [&up[..], &[Look::Bad(Refused)]].concat();
        assert_eq!(codes(&run(rules(), &looks)[2]), ["refused"]);
        let looks = [&up[..], &[Look::Bad(Timeout), Look::Bad(Reset), Look::Bad(Timeout)]].concat();
        let states: Vec<State> = run(rules(), &looks).iter().map(|v| v.state).collect();
        assert_eq!(states[2..], [State::Up, State::Up, State::Down]);
        let looks =
            [&up[..], &[Look::Bad(Timeout), Look::Bad(Timeout), Look::Good(5), Look::Bad(Timeout)]]
                .concat();
        assert_eq!(run(rules(), &looks).pop().unwrap().state, State::Up);
    }

    #[test]
    fn a_rise_goes_only_as_far_as_all_its_looks_allow() {
        let looks = [Look::Good(2), Look::Good(3), Look::Good(5), Look::Good(5)];
        let verdicts = run(rules(), &looks);
        assert_eq!(verdicts[2].state, State::Drain, "one of the two looks wanted no better");
        assert_eq!(verdicts[2].reasons[0].text, "3 of 4 storage servers usable");
        assert_eq!(verdicts[3].state, State::Up);
    }

    #[test]
    fn hold_keeps_a_flapping_service_down() {
        let mut rules = rules();
        rules.damping.hold = Duration::from_secs(6);
        let good = Look::Good(5);
        let looks = [good, good, Look::Good(0), good, good, good, good, good];
        let states: Vec<State> = run(rules, &looks).iter().map(|v| v.state).collect();
        let (up, down) = (State::Up, State::Down);
        // It rose at second 2, so it may rise again at second 8.
        assert_eq!(states, [down, up, down, down, down, down, down, up]);
    }

    #[test]
    fn the_weight_ramps_up_after_a_rise() {
        let mut judge = ServiceJudge::new(rules(), secs(0));
        judge.look(&observation(secs(1), Look::Good(5)));
        judge.look(&observation(secs(2), Look::Good(5)));
        let mut weight = |second| judge.verdict(secs(second), &none()).weight.percent();
        assert_eq!((weight(2), weight(3), weight(7)), (10, 19, 55));
        for second in 3..=12 {
            judge.look(&observation(secs(second), Look::Good(5)));
        }
        judge.look(&observation(secs(13), Look::Good(4)));
        assert_eq!(judge.verdict(secs(13), &none()).weight.percent(), 50, "capped while degraded");
    }

    #[test]
    fn a_blind_judge_says_stale_and_earns_its_way_back() {
        let mut judge = ServiceJudge::new(rules(), secs(0));
        for second in 1..=2 {
            judge.look(&observation(secs(second), Look::Good(5)));
        }
        assert_eq!(judge.verdict(secs(7), &none()).state, State::Up);
        assert_eq!(codes(&judge.verdict(secs(8), &none())), ["stale"]);
        judge.look(&observation(secs(9), Look::Good(5)));
        assert_eq!(codes(&judge.verdict(secs(9), &none())), ["stale"]);
        judge.look(&observation(secs(10), Look::Good(5)));
        assert_eq!(judge.verdict(secs(10), &none()).state, State::Up);
    }

    #[test]
    fn a_shutdown_is_announced_but_never_hides_worse() {
        let mut judge = ServiceJudge::new(rules(), secs(0));
        let order = Orders { stop: Some(Stop::Drain), ..none() };
        assert_eq!(codes(&judge.verdict(secs(0), &order)), ["starting"]);
        for second in 1..=2 {
            judge.look(&observation(secs(second), Look::Good(4)));
        }
        let verdict = judge.verdict(secs(2), &order);
        assert_eq!(
            (verdict.state, codes(&verdict)),
            (State::Drain, vec!["shutdown", "servers-few"])
        );
        judge.look(&observation(secs(3), Look::Good(0)));
        assert_eq!(judge.verdict(secs(3), &order).state, State::Down);
    }

    #[test]
    fn orders_have_their_precedence() {
        let (maint, down, drain, up) = (Word::Maint, Word::Down, Word::Drain, Word::Up);
        let (good, few, dead) = (Look::Good(5), Look::Good(2), Look::Bad(FailureKind::Refused));
        for (last, words, state, forced) in [
            (dead, &[maint, up][..], State::Maint, false),
            (dead, &[drain, up], State::Down, false),
            (dead, &[up], State::Down, false),
            (good, &[down, drain, up], State::Down, false),
            (good, &[drain, up], State::Drain, false),
            (few, &[drain], State::Drain, false),
            (few, &[up], State::Up, true),
            (good, &[up], State::Up, true),
            (few, &[], State::Down, false),
        ] {
            let mut judge = ServiceJudge::new(rules(), secs(0));
            for (second, look) in (1..).zip([good, good, last]) {
                judge.look(&observation(secs(second), look));
            }
            let verdict = judge.verdict(secs(3), &ordered(words));
            let said = (verdict.state, verdict.forced, verdict.degraded);
            assert_eq!(said, (state, forced, false), "{last:?} {words:?}");
            // Every order and every cause is shown, whichever decides.
            let shown = codes(&verdict).iter().filter(|code| **code == "override").count();
            assert_eq!(shown, words.len());
            assert_eq!(verdict.reasons.len() > words.len(), last != good, "{last:?} {words:?}");
        }
    }

    #[test]
    fn lost_orders_drain_and_nothing_less_than_down_beats_that() {
        let mut judge = ServiceJudge::new(rules(), secs(0));
        for second in 1..=2 {
            judge.look(&observation(secs(second), Look::Good(5)));
        }
        for (words, state) in [
            (&[][..], State::Drain),
            (&[Word::Up], State::Drain),
            (&[Word::Down], State::Down),
            (&[Word::Maint], State::Maint),
        ] {
            let orders = Orders { lost: true, ..ordered(words) };
            let verdict = judge.verdict(secs(2), &orders);
            assert_eq!(verdict.state, state, "{words:?}");
            assert!(codes(&verdict).contains(&"overrides-lost"));
        }
        judge.look(&observation(secs(3), Look::Bad(FailureKind::Refused)));
        assert_eq!(
            judge.verdict(secs(3), &Orders { lost: true, ..none() }).state,
            State::Down,
            "a dead node is never up drain"
        );
    }

    #[test]
    fn an_ordered_weight_caps_every_other_one() {
        let mut judge = ServiceJudge::new(Rules { ramp: Duration::ZERO, ..rules() }, secs(0));
        for second in 1..=3 {
            judge.look(&observation(secs(second), Look::Good(5)));
        }
        let mut weight = |percents: &[u64]| {
            let words: Vec<Word> =
                percents.iter().map(|percent| Word::Weight(Weight::clamped(*percent))).collect();
            judge.verdict(secs(3), &ordered(&words)).weight.percent()
        };
        assert_eq!((weight(&[30]), weight(&[70, 20, 50])), (30, 20));
        judge.look(&observation(secs(3), Look::Good(4)));
        let degraded = |words: &[Word]| judge.clone().verdict(secs(3), &ordered(words));
        let most = Word::Weight(Weight::clamped(80));
        assert_eq!(degraded(&[most]).weight.percent(), 50);
        let forced = degraded(&[most, Word::Up]);
        assert_eq!((forced.forced, forced.degraded, forced.weight.percent()), (true, false, 80));
    }

    fn any_look() -> impl Strategy<Value = Look> {
        use FailureKind::{
            BadJson, BadShape, HttpStatus, NotTahoe, Refused, Reset, Timeout, TooLarge, WrongNode,
        };
        prop_oneof![
            6 => (0_usize..7).prop_map(Look::Good),
            2 => prop::sample::select(vec![BadJson, BadShape, HttpStatus, Reset, Timeout, TooLarge])
                .prop_map(Look::Bad),
            1 => prop::sample::select(vec![Refused, WrongNode, NotTahoe]).prop_map(Look::Bad),
        ]
    }

    /// A look and the milliseconds that pass before it.
    fn any_history() -> impl Strategy<Value = Vec<(u64, Look)>> {
        prop::collection::vec((1_u64..8_000, any_look()), 1..60)
    }

    fn any_rules() -> impl Strategy<Value = Rules> {
        (1_u32..5, 1_u32..5, 0_u64..20_000, 0_u64..20_000, 1_u64..101).prop_map(
            |(rise, fall, hold, ramp, degraded)| Rules {
                damping: Damping {
                    rise: NonZeroU32::new(rise).unwrap(),
                    fall: NonZeroU32::new(fall).unwrap(),
                    hold: Duration::from_millis(hold),
                },
                ramp: Duration::from_millis(ramp),
                degraded_weight: Weight::clamped(degraded),
                ..rules()
            },
        )
    }

    /// Every look with its moment and the verdict right after it.
    fn replay(rules: &Rules, history: &[(u64, Look)]) -> Vec<(Moment, Look, Verdict)> {
        let mut judge = ServiceJudge::new(rules.clone(), secs(0));
        let mut now = secs(0);
        history
            .iter()
            .map(|&(pause, look)| {
                now = now + Duration::from_millis(pause);
                judge.look(&observation(now, look));
                (now, look, judge.verdict(now, &none()))
            })
            .collect()
    }

    proptest! {
        #[test]
        fn doubt_needs_fall_in_a_row(rules in any_rules(), history in any_history()) {
            let said = replay(&rules, &history);
            let mut doubts = 0;
            for pair in said.windows(2) {
                let [(before, _, old), (now, look, new)] = pair else { unreachable!() };
                doubts = match look {
                    Look::Bad(kind) if !kind.is_certain() => doubts + 1,
                    _ => 0,
                };
                let fresh = now.since(*before) <= rules.freshness;
                if doubts > 0 && doubts < rules.damping.fall.get() && fresh {
                    prop_assert_eq!((old.state, old.degraded), (new.state, new.degraded));
                }
            }
        }

        #[test]
        fn up_needs_rise_in_a_row(rules in any_rules(), history in any_history()) {
            let said = replay(&rules, &history);
            let mut good = 0;
            let mut was_up = false;
            for (n, (now, look, verdict)) in said.iter().enumerate() {
                let fresh = n == 0 || now.since(said[n - 1].0) <= rules.freshness;
                good = match look {
                    Look::Good(4..) if fresh => good + 1,
                    Look::Good(4..) => 1,
                    _ => 0,
                };
                let is_up = verdict.state == State::Up;
                if is_up && !was_up {
                    prop_assert!(good >= rules.damping.rise.get());
                }
                was_up = is_up;
            }
        }

        #[test]
        fn a_good_look_that_wants_worse_counts_at_once(
            rules in any_rules(), history in any_history(),
        ) {
            for (_, look, verdict) in replay(&rules, &history) {
                match look {
                    Look::Good(0..=2) => prop_assert_eq!(verdict.state, State::Down),
                    Look::Good(3) => prop_assert!(verdict.state != State::Up),
                    Look::Good(4) => prop_assert!(verdict.state != State::Up || verdict.degraded),
                    Look::Bad(kind) if kind.is_certain() => {
                        prop_assert_eq!(verdict.state, State::Down);
                    }
                    _ => {}
                }
            }
        }

        #[test]
        fn weights_stay_within_their_bounds(rules in any_rules(), history in any_history()) {
            for (_, _, verdict) in replay(&rules, &history) {
                prop_assert!((1..=100).contains(&verdict.weight.percent()));
                if verdict.degraded {
                    prop_assert!(verdict.weight <= rules.degraded_weight);
                    prop_assert_eq!(verdict.state, State::Up);
                }
            }
        }

        #[test]
        fn a_stale_observation_never_yields_up(
            rules in any_rules(), history in any_history(), late in 1_u64..100_000,
        ) {
            let mut judge = ServiceJudge::new(rules.clone(), secs(0));
            let mut now = secs(0);
            for (pause, look) in history {
                now = now + Duration::from_millis(pause);
                judge.look(&observation(now, look));
                let then = now + rules.freshness + Duration::from_millis(late);
                prop_assert_eq!(judge.clone().verdict(then, &none()).state, State::Down);
            }
        }

        #[test]
        fn the_same_looks_give_the_same_verdicts(rules in any_rules(), history in any_history()) {
            let (once, again) = (replay(&rules, &history), replay(&rules, &history));
            for ((.., one), (.., two)) in once.iter().zip(&again) {
                prop_assert_eq!(one, two);
            }
        }

        #[test]
        fn the_sequence_counts_changes(rules in any_rules(), history in any_history()) {
            let said = replay(&rules, &history);
            for pair in said.windows(2) {
                let [(.., old), (.., new)] = pair else { unreachable!() };
                let same = (old.state, old.degraded, old.weight, codes(old))
                    == (new.state, new.degraded, new.weight, codes(new));
                prop_assert_eq!(new.seq, old.seq + u64::from(!same));
                prop_assert!(new.since >= old.since);
            }
        }
    }
}
