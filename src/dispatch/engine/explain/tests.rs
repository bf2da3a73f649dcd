//! What explain says of a push, against what then becomes of it.

use pushyard_providers::{Answer, Outcome, Part, Push};
use rand::SeedableRng;
use rand::rngs::StdRng;

use super::*;
use crate::clock::Clock;
use crate::dispatch::engine::{Effect, Event, Order};
use crate::dispatch::{Limits, Operation, Settings, Token, Wish};
use crate::model::{Durability, IdGenerator, Message, OnAmbiguous, Recipient};
use crate::routing::testing::{catalog, recipient, settings};
use crate::routing::{Budget, Member, Period, ProviderSettings, Rate, Route};

const S: Duration = Duration::from_secs(1);
const FIRST: ProviderIndex = ProviderIndex(0);
const SECOND: ProviderIndex = ProviderIndex(1);

/// An engine with the providers `first` (region eu) before `second` (region us),
/// and the calls that it makes.
struct House {
    engine: Engine,
    now: Now,
    ids: IdGenerator,
    rng: StdRng,
    calls: Vec<Order>,
    written: u64,
    tokens: u64,
}

impl House {
    fn new() -> Self {
        Self::with(|_| {})
    }

    /// The first provider's settings may be others.
    fn with(mend: impl Fn(&mut ProviderSettings)) -> Self {
        let now = Clock::default().now();
        let (mut first, mut second) = (settings("first"), settings("second"));
        (first.region, second.region) = (Some("eu".into()), Some("us".into()));
        first.cost_per_million = 1e6;
        mend(&mut first);
        let tier = |provider| vec![Member { provider, weight: 1.0 }];
        let tiers = vec![tier(FIRST), tier(SECOND)];
        let route = Route { name: "default".into(), tiers, balance: Balance::LeastLatency };
        let catalog = Arc::new(catalog(vec![first, second], vec![route]));
        let engine = Engine::new(catalog, Settings::default(), Limits::default(), now, 7);
        Self {
            engine,
            now,
            ids: IdGenerator::default(),
            rng: StdRng::seed_from_u64(7),
            calls: Vec::new(),
            written: 0,
            tokens: 0,
        }
    }

    fn on(&mut self, event: Event) {
        let mut effects = Vec::new();
        self.engine.on(event, self.now, &mut effects);
        self.engine.pump(self.now, &mut effects);
        let before = self.written;
        for effect in effects {
            if let Effect::Write(_) = effect {
                self.written += 1;
            } else if let Effect::Call(order) = effect {
                self.calls.push(*order);
            }
        }
        if self.written > before {
            self.on(Event::Flushed(self.written));
        }
    }

    fn pass(&mut self, time: Duration) {
        self.now = self.now.plus(time);
        self.on(Event::Tick);
    }

    fn body(&mut self, recipient: &Recipient) -> Arc<Body> {
        Body::new(Message {
            id: self.ids.next(self.now.utc, &mut self.rng),
            client: "client".into(),
            route: "default".into(),
            deliver_at: None,
            ttl: 3600 * S,
            on_ambiguous: OnAmbiguous::Resend,
            durability: Durability::Disk,
            push: Push::default(),
            recipients: vec![recipient.clone()],
            metadata: Default::default(),
            trace: None,
            idempotency: None,
            warnings: Vec::new(),
            unresolved: Vec::new(),
        })
    }

    fn push(&mut self, recipient: &Recipient) {
        let body = self.body(recipient);
        self.tokens += 1;
        self.on(Event::Submitted(Token(self.tokens), body));
    }

    /// What would become of a push, which is not made.
    fn explain(&mut self, recipient: &Recipient) -> Explained {
        let asked = Asked { body: self.body(recipient), n: 0, record: None, unable: Vec::new() };
        self.engine.explain(&asked, self.now)
    }

    /// A push goes out, and each of its calls ends so, whoever they go to.
    fn push_and_answer(&mut self, recipient: &Recipient, answers: &[Answer]) {
        self.push(recipient);
        for answer in answers {
            let order = self.calls.pop().expect("a call to answer");
            self.on(Event::Answered(order.attempt, answer.clone()));
        }
    }

    fn operate(&mut self, operation: Operation) {
        self.tokens += 1;
        self.on(Event::Operate(Token(self.tokens), operation));
    }

    fn order(&mut self, wish: Wish) {
        let (id, reason) = ("first".into(), Some("keys are changed".to_owned()));
        self.operate(Operation::Provider { id, wish, reason, until: None });
    }
}

fn phone() -> Recipient {
    recipient(&[("phone", "")])
}

fn accepted() -> Answer {
    Answer::new(Outcome::Accepted)
}

fn throttled(part: Part) -> Answer {
    let mut answer = Answer::new(Outcome::Throttled).about(part);
    answer.retry_after = Some(60 * S);
    answer
}

/// A situation, whom it is asked for, and why the first provider is then left out.
type Situation = (&'static str, fn() -> (House, Recipient), Option<(&'static str, &'static str)>);

const SITUATIONS: &[Situation] = &[
    ("all healthy", || (House::new(), phone()), None),
    (
        "the first is ejected",
        || {
            let mut house = House::new();
            for _ in 0..5 {
                let fails = Answer::new(Outcome::Unavailable);
                house.push_and_answer(&phone(), &[fails, accepted()]);
            }
            (house, phone())
        },
        Some(("ejected", "5 failures in a row")),
    ),
    (
        "one of its apps is ejected",
        || {
            let mut house = House::new();
            let app = recipient(&[("phone", "shop")]);
            let refuses = Answer::new(Outcome::AuthFailed).about(Part::app("shop"));
            house.push_and_answer(&app, &[refuses, accepted()]);
            (house, app)
        },
        Some(("ejected", "it refused the credential (app:shop)")),
    ),
    (
        "an operator has ejected it",
        || {
            let mut house = House::new();
            house.order(Wish::Eject);
            (house, phone())
        },
        Some(("ejected", "ejected by an operator")),
    ),
    (
        "its canary is out",
        || {
            let mut house = House::new();
            house.order(Wish::Eject);
            house.order(Wish::Resume);
            house.push(&phone());
            assert_eq!(house.calls.pop().map(|order| order.permit.provider()), Some(FIRST));
            (house, phone())
        },
        Some(("probing", "on probation: one canary at a time, one a second")),
    ),
    (
        "the vendor asked to wait",
        || {
            let mut house = House::new();
            house.push_and_answer(&phone(), &[throttled(Part::Provider), accepted()]);
            (house, phone())
        },
        Some(("throttled", "the vendor asked to wait")),
    ),
    (
        "the vendor asked to wait with this device",
        || {
            let mut house = House::new();
            house.push_and_answer(&phone(), &[throttled(Part::Device), accepted()]);
            (house, phone())
        },
        Some(("address_paused", "the vendor asked to wait with this device")),
    ),
    (
        "it is drained",
        || {
            let mut house = House::new();
            house.order(Wish::Drain);
            (house, phone())
        },
        Some(("drained", "drained by an operator")),
    ),
    (
        "its hard budget is spent",
        || {
            let budget = Budget { amount: 1.0, period: Period::Day, hard: true };
            let mut house = House::with(|settings| settings.budget = Some(budget));
            house.push_and_answer(&phone(), &[accepted()]);
            (house, phone())
        },
        Some(("budget", "its budget is spent, and hard")),
    ),
    (
        "the recipient's data must not go there",
        || (House::new(), Recipient { region: Some("us".to_owned()), ..phone() }),
        Some(("region", "the recipient is in region \"us\", this provider in \"eu\"")),
    ),
    (
        "the address is gone there",
        || {
            let mut house = House::new();
            house.push_and_answer(&phone(), &[Answer::new(Outcome::AddressGone), accepted()]);
            // That it takes others proves its word.
            house.push_and_answer(&recipient(&[("other", "")]), &[accepted()]);
            (house, phone())
        },
        Some(("address_gone", "the vendor declared it gone at ")),
    ),
    (
        "one would wait there",
        || {
            let rate = Rate { per_second: 1.0, burst: 1.0 };
            let mut house = House::with(|settings| settings.rate = Some(rate));
            for _ in 0..4 {
                house.push(&Recipient { region: Some("eu".to_owned()), ..phone() });
            }
            house.calls.clear();
            (house, phone())
        },
        Some(("saturated", "a call would wait longer than 1 s for a permit")),
    ),
];

#[test]
fn a_push_goes_where_explain_said_that_it_would() {
    for (name, arrange, left_out) in SITUATIONS {
        let (mut house, to) = arrange();
        let explained = house.explain(&to);
        let first = &explained.candidates[0];
        let expected = if left_out.is_some() { SECOND } else { FIRST };
        assert_eq!((first.seen.provider, first.share), (expected, 1.0), "{name}");
        let barred = &explained.excluded[..];
        let told = barred.first().map(|barred| (barred.reason, &*barred.detail));
        match (told, left_out) {
            (None, None) => {}
            (Some((reason, detail)), Some((wanted, words))) => {
                assert_eq!((barred.len(), reason), (1, *wanted), "{name}");
                assert!(detail.starts_with(words), "{name}: {detail}");
                assert!(!detail.contains("keys are changed"), "an operator's words: {detail}");
                assert_eq!(barred[0].seen.provider, FIRST, "{name}");
            }
            (_, _) => panic!("{name}: {barred:?}"),
        }
        house.push(&to);
        let went = house.calls.last().map(|order| order.permit.provider());
        assert_eq!(went, Some(first.seen.provider), "{name}");
    }
}

#[test]
fn asking_changes_nothing() {
    for (name, arrange, _) in SITUATIONS {
        let (mut house, to) = arrange();
        // A part that nobody has named must not get a key.
        let to = [to, recipient(&[("tablet", "another app")])];
        let asked = to.each_ref().map(|to| house.body(to));
        let before = format!("{:?}", house.engine);
        for body in asked {
            house
                .engine
                .explain(&Asked { body, n: 0, record: None, unable: Vec::new() }, house.now);
        }
        assert_eq!(before, format!("{:?}", house.engine), "{name}");
    }
}

#[test]
fn it_says_until_when_where_time_alone_will_do() {
    for (name, time) in [
        ("the first is ejected", Some(30)),
        ("its canary is out", None),
        ("the vendor asked to wait", Some(60)),
        ("the vendor asked to wait with this device", Some(60)),
        ("it is drained", None),
    ] {
        let (_, arrange, _) = SITUATIONS.iter().find(|(other, ..)| *other == name).unwrap();
        let (mut house, to) = arrange();
        let until = house.explain(&to).excluded[0].until;
        let left = until.map(|until| until.since(house.now.utc).as_secs());
        // Ejections and pauses are drawn out a little.
        match (left, time) {
            (Some(left), Some(time)) => assert!((time..=time * 3 / 2).contains(&left), "{name}"),
            (left, time) => assert_eq!(left, time, "{name}"),
        }
    }
}

#[test]
fn an_app_that_nobody_has_named_yet_is_shown_healthy() {
    let mut house = House::new();
    let explained = house.explain(&recipient(&[("phone", "shop")]));
    let keys: Vec<_> =
        explained.candidates[0].seen.keys.iter().map(|key| (&*key.0, key.1)).collect();
    assert_eq!(keys, [("", "healthy"), ("app:shop", "healthy")]);
}

#[test]
fn an_app_that_the_account_does_not_have_and_an_address_bound_elsewhere_are_told() {
    let mut house = House::new();
    let reasons = |explained: &Explained| -> Vec<(u16, u8, &'static str)> {
        let barred = explained.excluded.iter();
        barred.map(|b| (b.seen.provider.0, b.seen.address, b.reason)).collect()
    };
    let explained = house.explain(&recipient(&[("phone", "unknown"), ("tablet", "")]));
    assert_eq!(reasons(&explained), [(0, 0, "app"), (1, 0, "app")]);
    let kind = recipient(&[("phone", "")]).addresses[0].kind();
    let bound = Address::new(kind, &[("token", "phone")], Some("second"), None).unwrap();
    let explained = house.explain(&Recipient { addresses: vec![bound], ..phone() });
    assert_eq!(reasons(&explained), [(0, 0, "kind")]);
    assert!(explained.excluded[0].detail.contains("\"second\""));
}

#[test]
fn a_provider_that_cannot_take_the_message_is_left_out_with_what_is_wrong() {
    let mut house = House::new();
    let body = house.body(&phone());
    let unable = vec![(0, "too large".to_owned())];
    let asked = Asked { body, n: 0, record: None, unable };
    let explained = house.engine.explain(&asked, house.now);
    let barred = &explained.excluded[0];
    assert_eq!((barred.reason, &*barred.detail), ("excluded_by_delivery", "too large"));
    assert_eq!(explained.candidates[0].seen.provider, SECOND);
}

#[test]
fn a_delivery_on_its_way_tells_where_it_has_been_in_this_round() {
    let mut house = House::new();
    let body = house.body(&phone());
    house.on(Event::Submitted(Token(9), body.clone()));
    let fails = Answer::new(Outcome::Unavailable);
    let order = house.calls.pop().unwrap();
    house.on(Event::Answered(order.attempt, fails));
    let record = house.engine.live(body.message().id, house.now).pop().map(|(_, live)| live);
    let asked = Asked { body, n: 0, record, unable: Vec::new() };
    let explained = house.engine.explain(&asked, house.now);
    let barred = &explained.excluded[0];
    assert_eq!(
        (barred.seen.provider, barred.reason, &*barred.detail),
        (FIRST, "excluded_by_delivery", "tried in this round already")
    );
    assert_eq!(explained.candidates[0].seen.provider, SECOND);
}

#[test]
fn a_delivery_keeps_in_mind_who_was_passed_over_when_it_was_tried_first() {
    for (name, arrange, left_out) in SITUATIONS {
        let (mut house, to) = arrange();
        let body = house.body(&to);
        house.on(Event::Submitted(Token(9_000), body.clone()));
        let order = house.calls.pop().unwrap();
        house.on(Event::Answered(order.attempt, Answer::new(Outcome::Throttled)));
        let live = house.engine.live(body.message().id, house.now).pop().map(|(_, live)| live);
        let passed_over = live.and_then(|live| live.passed_over);
        // What never was a candidate of the delivery is not passed over.
        let reason = left_out.map(|(reason, _)| reason);
        let reason = reason.filter(|reason| !["region", "address_gone"].contains(reason));
        let told = passed_over.as_ref().map(|over| (&*over.provider, &*over.reason));
        assert_eq!(told, reason.map(|reason| ("first", reason)), "{name}");
    }
}

#[test]
fn with_everyone_ejected_the_canary_of_panic_is_told() {
    let mut house = House::new();
    let only = Recipient { region: Some("eu".to_owned()), ..phone() };
    for _ in 0..5 {
        house.push_and_answer(&only, &[Answer::new(Outcome::Unavailable)]);
    }
    let explained = house.explain(&only);
    assert!(explained.panic, "{explained:?}");
    assert_eq!(explained.candidates[0].seen.state.0, "ejected");
}

#[test]
fn what_an_operator_has_paused_is_told() {
    let mut house = House::new();
    assert_eq!(house.explain(&phone()).paused, None);
    house.operate(Operation::ClientPause { client: "client".into(), paused: true });
    assert_eq!(house.explain(&phone()).paused, Some("client"));
    house.operate(Operation::RoutePause { route: "default".into(), paused: true });
    assert_eq!(house.explain(&phone()).paused, Some("route"));
}

#[test]
fn slow_start_shows_in_the_shares_and_the_ramp() {
    let mut house = House::new();
    house.order(Wish::Eject);
    house.order(Wish::Resume);
    for _ in 0..3 {
        house.push_and_answer(&phone(), &[accepted()]);
        house.pass(S);
    }
    house.pass(8 * S);
    let explained = house.explain(&phone());
    let of = |provider| explained.candidates.iter().find(|c| c.seen.provider == provider).unwrap();
    // Nine seconds after its last canary: a ramp of 0.3, times 1.4.
    assert!((of(FIRST).share - 0.42).abs() < 0.01, "{explained:?}");
    assert!((of(FIRST).score.ramp - 0.3).abs() < 0.01, "{explained:?}");
    assert_eq!(explained.candidates[0].seen.provider, SECOND, "it carries more");
}

#[test]
fn a_copy_goes_back_to_where_it_may_have_been_taken_or_nowhere() {
    for (on_ambiguous, repeat, order) in [
        (OnAmbiguous::Resend, Some((SECOND, 0)), vec![SECOND, FIRST]),
        (OnAmbiguous::Resend, None, vec![FIRST, SECOND]),
        (OnAmbiguous::Stop, Some((SECOND, 0)), vec![SECOND, FIRST]),
        (OnAmbiguous::Stop, None, vec![]),
    ] {
        let mut house = House::new();
        house.operate(Operation::RoutePause { route: "default".into(), paused: true });
        let message = house.body(&phone()).message().clone();
        let body = Body::new(Message { on_ambiguous, ..message });
        let id = body.message().id;
        house.on(Event::Submitted(Token(9_000), body.clone()));
        let at = house.engine.deliveries.find_delivery(id.delivery(0)).unwrap();
        let track = house.engine.track(at);
        (track.repeat, track.progress.ambiguous) = (repeat, 1);
        let record = house.engine.live(id, house.now).pop().map(|(_, live)| live);
        let asked = Asked { body, n: 0, record, unable: Vec::new() };
        let explained = house.engine.explain(&asked, house.now);
        let told: Vec<_> = explained.candidates.iter().map(|c| c.seen.provider).collect();
        assert_eq!(told, order, "{on_ambiguous:?} {repeat:?}");
        let words: Vec<_> = explained.excluded.iter().map(|barred| &*barred.detail).collect();
        let forbids = "an attempt may have been accepted, and the message forbids a copy";
        assert_eq!(words, vec![forbids; 2 - order.len()]);
        let first = explained.candidates.first().map(|first| first.share);
        assert_eq!(first, (!order.is_empty()).then_some(1.0));
    }
}
