use std::sync::Arc;
use std::time::Duration;

use pushyard_providers::{Answer, Outcome, Part, Processed};

use super::{Board, Ended, KeyIndex, Keys, LeftOut, Permit, Remembered};
use crate::clock::{Clock, Now};
use crate::routing::testing::{catalog, settings};
use crate::routing::{Cause, GoneVerdict, Pass, ProviderIndex, ProviderSettings, Rate, Status};

const S: Duration = Duration::from_secs(1);
const P: ProviderIndex = ProviderIndex(0);

/// A board over one provider, and the moment.
struct Desk {
    board: Board,
    now: Now,
    /// Whom a call goes to.
    address: u64,
}

impl Desk {
    fn new() -> Self {
        Self::of(settings("p"))
    }

    fn of(settings: ProviderSettings) -> Self {
        let now = Clock::default().now();
        let board = Board::new(&catalog(vec![settings], Vec::new()), now.instant);
        Self { board, now, address: 7 }
    }

    fn whole(&self) -> Keys {
        Keys::from_slice(&[self.board.lane(P).key])
    }

    /// The keys of an address of an app.
    fn app(&mut self, name: &str) -> Keys {
        let key = self.board.key(P, &Part::app(name), self.now.instant);
        Keys::from_slice(&[self.board.lane(P).key, key])
    }

    fn admit(&mut self, keys: &Keys) -> Option<Permit> {
        self.board.admit(P, keys, Pass::Usual, self.now.instant)
    }

    fn answer(&mut self, permit: &Permit, keys: &Keys, answer: &Answer) {
        let ended = Ended { permit, keys, answer, elapsed: S / 10, address: self.address };
        self.board.answered(&ended, self.now, &mut || 0.0);
    }

    fn call(&mut self, keys: &Keys, answer: &Answer) {
        let permit = self.admit(keys).expect("a permit is free");
        self.answer(&permit, keys, answer);
    }

    fn pass(&mut self, time: Duration) {
        self.now = self.now.plus(time);
        self.board.tick(self.now.instant);
    }

    fn why(&self, keys: &Keys) -> Option<LeftOut> {
        self.board.open(keys, Pass::Usual, self.now.instant).err().map(|closed| closed.why)
    }

    fn status(&self, key: KeyIndex) -> Status {
        self.board.key_at(key).health.status()
    }
}

fn throttled(after: Option<Duration>) -> Answer {
    let mut answer = Answer::new(Outcome::Throttled);
    answer.retry_after = after;
    answer
}

#[test]
fn an_outage_of_one_app_leaves_the_others_alone() {
    let mut desk = Desk::new();
    let (ill, well) = (desk.app("ill"), desk.app("well"));
    for _ in 0..5 {
        desk.call(&ill, &Answer::new(Outcome::Unavailable).about(Part::app("ill")));
    }
    assert_eq!(desk.why(&ill), Some(LeftOut::Ejected));
    assert_eq!(desk.why(&well), None);
    for _ in 0..5 {
        desk.call(&well, &Answer::new(Outcome::Unavailable));
    }
    assert_eq!(desk.why(&well), Some(LeftOut::Ejected));
}

#[test]
fn a_failure_about_the_device_is_no_sample() {
    let mut desk = Desk::new();
    let keys = desk.whole();
    for _ in 0..50 {
        desk.call(&keys, &Answer::new(Outcome::Unavailable).about(Part::Device));
    }
    assert_eq!(desk.why(&keys), None);
    assert_eq!(desk.board.key_at(keys[0]).health.counts(desk.now.instant).samples(), 0);
}

#[test]
fn a_refused_credential_ejects_its_part_at_once_and_is_remembered_until_it_is_taken() {
    let mut desk = Desk::new();
    let keys = desk.whole();
    desk.call(&keys, &Answer::new(Outcome::AuthFailed));
    assert_eq!(desk.why(&keys), Some(LeftOut::Ejected));
    let kept = |desk: &mut Desk| desk.board.take_remembered(desk.now).pop().and_then(|r| r.ejected);
    assert_eq!(kept(&mut desk).as_deref(), Some("auth"));
    desk.pass(60 * S);
    assert!(matches!(desk.status(keys[0]), Status::Probing { cause: Cause::Auth, .. }));
    assert_eq!(kept(&mut desk).as_deref(), Some("auth"), "a restart must not heal it");
    for _ in 0..3 {
        desk.call(&keys, &Answer::new(Outcome::Accepted));
        desk.pass(S);
    }
    assert_eq!(kept(&mut desk), None);
}

#[test]
fn a_throttle_pauses_its_part_for_the_time_the_vendor_names() {
    let mut desk = Desk::new();
    let (busy, calm) = (desk.app("busy"), desk.app("calm"));
    desk.call(&busy, &throttled(Some(20 * S)).about(Part::app("busy")));
    assert_eq!(desk.why(&busy), Some(LeftOut::Throttled));
    assert_eq!(desk.why(&calm), None);
    assert_eq!(desk.board.wake_at(desk.now.instant), Some(desk.now.instant + 20 * S));
    desk.pass(20 * S);
    assert_eq!(desk.why(&busy), None);
}

#[test]
fn throttles_without_a_time_double_from_a_second_to_a_minute() {
    for zero in [None, Some(Duration::ZERO)] {
        let mut desk = Desk::new();
        let keys = desk.whole();
        for pause in [1, 2, 4, 8, 16, 32, 60, 60] {
            desk.call(&keys, &throttled(zero));
            desk.pass(S * pause - S / 1000);
            assert_eq!(desk.why(&keys), Some(LeftOut::Throttled), "{pause} s");
            desk.pass(S / 1000);
            assert_eq!(desk.why(&keys), None, "{pause} s");
        }
        desk.call(&keys, &Answer::new(Outcome::Accepted));
        // Its pace is that of one who lets nothing through.
        desk.pass(2 * S);
        desk.call(&keys, &throttled(zero));
        desk.pass(S);
        assert_eq!(desk.why(&keys), None, "a success starts anew");
    }
}

#[test]
fn pauses_over_half_a_minute_are_kept_and_go_on_after_a_restart() {
    let mut desk = Desk::new();
    let keys = desk.whole();
    desk.call(&keys, &throttled(Some(30 * S)));
    assert_eq!(desk.board.take_remembered(desk.now), []);
    desk.pass(30 * S);
    desk.call(&keys, &throttled(Some(100 * S)));
    let kept = desk.board.take_remembered(desk.now);
    let until = desk.now.utc.plus(100 * S);
    let remembered = Remembered {
        provider: Arc::from("p"),
        part: String::new(),
        paused_until: Some(until),
        ejected: None,
    };
    assert_eq!(kept[..], *std::slice::from_ref(&remembered));

    let mut desk = Desk::new();
    let utc = until;
    desk.now.utc = crate::clock::Utc::from_ms(utc.ms() - 40_000);
    desk.board.restore(P, &remembered, desk.now);
    desk.pass(39 * S);
    let keys = desk.whole();
    assert_eq!(desk.why(&keys), Some(LeftOut::Throttled));
    desk.pass(S);
    assert_eq!(desk.why(&keys), None);
}

#[test]
fn throttled_device_pauses_only_that_address() {
    let mut desk = Desk::new();
    let keys = desk.whole();
    desk.call(&keys, &throttled(Some(5 * S)).about(Part::Device));
    let at = desk.now.instant;
    assert_eq!(desk.board.address_paused(P, || 7, at), Some(at + 5 * S));
    assert_eq!(desk.board.address_paused(P, || 8, at), None);
    assert_eq!(desk.board.address_paused(P, || 7, at + 5 * S), None);
    assert_eq!(desk.why(&keys), None);
}

#[test]
fn an_ejection_wakes_the_board_at_its_end_and_not_never() {
    let mut desk = Desk::new();
    let keys = desk.whole();
    for _ in 0..5 {
        desk.call(&keys, &Answer::new(Outcome::Unavailable));
    }
    let ejected = desk.now.instant;
    desk.now = desk.now.plus(10 * S);
    assert_eq!(desk.board.wake_at(desk.now.instant), Some(ejected + 30 * S));
}

#[test]
fn calls_in_flight_stay_within_the_limit_and_the_pace() {
    let rate = Some(Rate { per_second: 2.0, burst: 3.0 });
    let mut desk = Desk::of(ProviderSettings { rate, ..settings("p") });
    let keys = desk.whole();
    let began = (0..10).filter(|_| desk.admit(&keys).is_some()).count();
    assert_eq!(began, 3);
    desk.pass(S + S / 100);
    assert_eq!((0..10).filter(|_| desk.admit(&keys).is_some()).count(), 2);

    let mut desk = Desk::of(ProviderSettings { max_in_flight: 6, ..settings("p") });
    let keys = desk.whole();
    assert_eq!((0..10).filter(|_| desk.admit(&keys).is_some()).count(), 6);
    desk.board.capacity(P, Some(1), desk.now.instant);
    assert_eq!(desk.board.allowed(P, desk.now.instant), 4, "never less than four");
}

#[test]
fn a_permit_that_was_not_used_is_void_after_an_ejection_or_a_pause() {
    let mut desk = Desk::new();
    let keys = desk.whole();
    let held = desk.admit(&keys).unwrap();
    assert!(desk.board.holds(&held, &keys, desk.now.instant));
    desk.call(&keys, &throttled(Some(S)));
    assert!(!desk.board.holds(&held, &keys, desk.now.instant));
    desk.pass(S);
    assert!(desk.board.holds(&held, &keys, desk.now.instant));
    desk.call(&keys, &Answer::new(Outcome::AuthFailed));
    assert!(!desk.board.holds(&held, &keys, desk.now.instant));
    desk.board.withdraw(&held, &keys, desk.now.instant);
    assert_eq!(desk.board.lane(P).in_flight, 0);
}

#[test]
fn a_provider_from_which_no_permit_comes_back_is_known_to_be_full() {
    let mut desk = Desk::of(ProviderSettings { max_in_flight: 4, ..settings("p") });
    let keys = desk.whole();
    let permits: Vec<Permit> = (0..4).filter_map(|_| desk.admit(&keys)).collect();
    let began = desk.now.instant;
    desk.pass(3 * S);
    assert_eq!(desk.board.full(P, desk.now.instant), Some((began, 0)));
    // One comes back and is taken at once: still full, but it moves.
    desk.answer(&permits[0], &keys, &Answer::new(Outcome::Accepted));
    assert_eq!(desk.board.full(P, desk.now.instant), None);
    desk.admit(&keys).unwrap();
    assert_eq!(desk.board.full(P, desk.now.instant), Some((began, 1)));
    // One that nobody wants for a while ends it.
    desk.answer(&permits[1], &keys, &Answer::new(Outcome::Accepted));
    desk.pass(S);
    desk.admit(&keys).unwrap();
    assert_eq!(desk.board.full(P, desk.now.instant), Some((desk.now.instant, 0)));
}

#[test]
fn misconfigured_ejects_after_three_addresses_without_an_accepted_between() {
    let wrong = || Answer::new(Outcome::Misconfigured);
    for (addresses, answer, accepted_at, ejected) in [
        (&[1, 2, 3][..], wrong(), None, true),
        (&[1, 2, 2, 1][..], wrong(), None, false),
        (&[1, 2, 3][..], wrong(), Some(2), false),
        (&[1, 2, 3, 4][..], wrong().about(Part::Device), None, false),
    ] {
        let mut desk = Desk::new();
        let keys = desk.whole();
        for (n, address) in addresses.iter().enumerate() {
            if accepted_at == Some(n) {
                desk.call(&keys, &Answer::new(Outcome::Accepted));
            }
            desk.address = *address;
            desk.call(&keys, &answer);
        }
        let cause = match desk.status(keys[0]) {
            Status::Ejected { cause, .. } => Some(cause),
            Status::Healthy { .. } | Status::Degraded { .. } | Status::Probing { .. } => None,
        };
        let expected = ejected.then_some(Cause::Misconfigured);
        assert_eq!(cause, expected, "{addresses:?} {:?}", answer.part);
    }
}

#[test]
fn a_credential_bound_to_an_origin_is_out_after_three_of_its_addresses() {
    let mut desk = Desk::new();
    let part = Part::origin("https://push.example");
    let key = desk.board.key(P, &part, desk.now.instant);
    let keys = Keys::from_slice(&[desk.board.lane(P).key, key]);
    for address in [1, 2] {
        desk.address = address;
        desk.call(&keys, &Answer::new(Outcome::AuthFailed).about(part.clone()));
        assert_eq!(desk.why(&keys), None, "address {address}");
    }
    desk.address = 3;
    desk.call(&keys, &Answer::new(Outcome::AuthFailed).about(part.clone()));
    assert!(matches!(desk.status(key), Status::Ejected { cause: Cause::Auth, .. }));
    assert_eq!(desk.why(&desk.whole()), None, "other origins go on");
}

#[test]
fn when_most_devices_are_gone_nothing_is_believed_and_the_key_is_ejected() {
    let mut desk = Desk::new();
    let (keys, gone) = (desk.app("shop"), Answer::new(Outcome::AddressGone).about(Part::Device));
    for address in 0..19 {
        desk.address = address;
        desk.call(&keys, &gone);
        let verdict = desk.board.gone(P, &keys, address, desk.now.instant);
        assert_eq!((verdict, desk.board.mass_gone()), (GoneVerdict::Hold, false), "{address}");
    }
    desk.call(&keys, &gone);
    assert_eq!(desk.board.gone(P, &keys, 19, desk.now.instant), GoneVerdict::Refuse);
    assert!(desk.board.mass_gone(), "someone should look");
    assert!(matches!(desk.status(keys[1]), Status::Ejected { cause: Cause::Misconfigured, .. }));
    assert_eq!(desk.why(&desk.whole()), None, "other apps go on");
    assert_eq!(desk.board.take_confirmed(), []);
}

#[test]
fn an_address_that_was_held_comes_back_when_its_key_has_proved_good() {
    let mut desk = Desk::new();
    let keys = desk.whole();
    desk.call(&keys, &Answer::new(Outcome::AddressGone).about(Part::Device));
    assert_eq!(desk.board.gone(P, &keys, 7, desk.now.instant), GoneVerdict::Hold);
    desk.call(&keys, &Answer::new(Outcome::Unavailable));
    assert_eq!(desk.board.take_confirmed(), []);
    desk.call(&keys, &Answer::new(Outcome::Accepted));
    assert_eq!(desk.board.take_confirmed(), [(P, 7)], "one of two, and it works now");
    assert_eq!(desk.board.take_confirmed(), []);
    for _ in 0..18 {
        desk.call(&keys, &Answer::new(Outcome::Accepted));
    }
    desk.call(&keys, &Answer::new(Outcome::AddressGone).about(Part::Device));
    assert_eq!(desk.board.gone(P, &keys, 8, desk.now.instant), GoneVerdict::Mark);
}

#[test]
fn our_own_network_is_down_when_no_provider_with_traffic_can_be_reached() {
    let unreachable = Answer::new(Outcome::Unavailable).processed(Processed::No).code("dns");
    let refused = Answer::new(Outcome::Unavailable).code("503");
    let accepted = Answer::new(Outcome::Accepted);
    for (answers, wait, down) in [
        ([Some(&unreachable), Some(&unreachable)], 0, true),
        ([Some(&unreachable), Some(&unreachable)], 31, false),
        ([Some(&unreachable), Some(&accepted)], 0, false),
        ([Some(&unreachable), Some(&refused)], 0, false),
        ([Some(&unreachable), None], 0, false),
        ([None, None], 0, false),
    ] {
        let now = Clock::default().now();
        let providers = vec![settings("p"), settings("q")];
        let mut board = Board::new(&catalog(providers, Vec::new()), now.instant);
        for (n, answer) in answers.iter().enumerate() {
            let Some(answer) = answer else { continue };
            let index = ProviderIndex(n as u16);
            let keys = Keys::from_slice(&[board.lane(index).key]);
            let permit = board.admit(index, &keys, Pass::Usual, now.instant).unwrap();
            let ended = Ended { permit: &permit, keys: &keys, answer, elapsed: S, address: 7 };
            board.answered(&ended, now, &mut || 0.0);
        }
        assert_eq!(board.network_down(now.instant + S * wait), down, "{answers:?} {wait}");
    }
}

#[test]
fn a_pause_is_up_to_a_tenth_longer_than_asked_for() {
    let mut desk = Desk::new();
    let keys = desk.whole();
    let (permit, answer) = (desk.admit(&keys).unwrap(), throttled(Some(20 * S)));
    let ended =
        Ended { permit: &permit, keys: &keys, answer: &answer, elapsed: S / 10, address: 7 };
    desk.board.answered(&ended, desk.now, &mut || 1.0);
    assert_eq!(desk.board.wake_at(desk.now.instant), Some(desk.now.instant + 22 * S));
}

#[test]
fn each_ejection_of_a_provider_halves_its_limit() {
    let mut desk = Desk::new();
    let keys = desk.whole();
    desk.call(&keys, &Answer::new(Outcome::AuthFailed));
    assert_eq!(desk.board.lane(P).limit.get(), 10);
}

#[test]
fn ten_thousand_parts_are_remembered_and_those_that_matter_longest() {
    let mut desk = Desk::new();
    let [out, paused, used] = ["out", "paused", "used"].map(|name| desk.app(name));
    desk.call(&out, &Answer::new(Outcome::AuthFailed).about(Part::app("out")));
    desk.call(&paused, &throttled(Some(3600 * S)).about(Part::app("paused")));
    for n in 0..9_998 {
        assert!(!desk.board.is_crowded(desk.now.instant), "{n}");
        desk.app(&format!("app-{n}"));
    }
    assert!(desk.board.is_crowded(desk.now.instant));
    desk.pass(S);
    let (old, recent) = (desk.app("app-1"), desk.app("app-2"));
    desk.board.drop_parts(&|key| key == used[1], desk.now.instant);
    assert_eq!(desk.board.keys_of(P).count(), 9_002, "a thousand and what is in use are kept");
    for (name, keys) in [("out", out), ("paused", paused), ("used", used), ("app-1", old)] {
        assert_eq!(desk.app(name), keys, "{name}");
    }
    assert_eq!(desk.app("app-2"), recent);
    // Its place is taken by another one, which knows nothing of it.
    let fresh = desk.app("fresh");
    assert_eq!(desk.board.key_at(fresh[1]).part, Part::app("fresh"));
    assert!(!desk.board.is_crowded(desk.now.instant));
}
