//! What is written is what is read, and old files stay readable.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use pushyard_providers::{Address, Notification, Push, registry};
use rand::SeedableRng;
use rand::rngs::StdRng;

use super::*;
use crate::model::{
    Attempt, Excluded, IdGenerator, Idempotency, Message, PassedOver, Recipient, Trace, TraceId,
    Unresolved, Warning,
};

proptest! {
    #[test]
    fn a_message_is_read_as_it_was_written(message in any_message()) {
        let mut bytes = b"what stands before".to_vec();
        let before = bytes.len();
        encode_message(&message, &mut bytes);
        let read = decode_message(message.id, &bytes[before..]).unwrap();
        // `Debug` of an address shows its kind alone, so these are compared apart.
        prop_assert_eq!(format!("{read:?}"), format!("{message:?}"));
        prop_assert_eq!(addresses(&read), addresses(&message));
        let head = decode_message_head(&bytes[before..]).unwrap();
        prop_assert_eq!(head.ttl_ms, crate::clock::millis(message.ttl));
        prop_assert_eq!(head.key, message.idempotency.map(|known| known.key));
    }

    #[test]
    fn progress_is_read_as_it_was_written(progress in any_progress()) {
        let mut bytes = Vec::new();
        encode_progress(&progress, &mut bytes);
        prop_assert_eq!(&decode_progress(&bytes).unwrap(), &progress);
        let head = decode_progress_head(&bytes).unwrap();
        prop_assert_eq!(head, ProgressHead { state: progress.state, at: progress.at });
    }

    #[test]
    fn damage_is_an_error_and_never_a_panic(
        message in any_message(), progress in any_progress(), at: usize, byte: u8, cut in 1_usize..9
    ) {
        let (mut one, mut other) = (Vec::new(), Vec::new());
        encode_message(&message, &mut one);
        encode_progress(&progress, &mut other);
        for bytes in [&mut one, &mut other] {
            let cut = &bytes[..bytes.len() - cut.min(bytes.len())];
            prop_assert!(decode_message(message.id, cut).is_err());
            prop_assert!(decode_progress(cut).is_err());
            let at = at % bytes.len();
            bytes[at] ^= byte;
            let _ = decode_message(message.id, bytes);
            let _ = decode_progress(bytes);
            let _ = decode_intent(bytes);
        }
    }
}

/// When this fails, files that were written before can no longer be read: add a
/// version instead. (`message` has the like for addresses.)
#[test]
fn the_bytes_of_each_record_are_as_they_have_always_been() {
    let id = IdGenerator::default().next(Utc::from_ms(0), &mut StdRng::seed_from_u64(1));
    let mut bytes = Vec::new();
    let mut message = sample_message(id);
    encode_message(&message, &mut bytes);
    assert_eq!(hex(&bytes), format!("02{MESSAGE}010003657665"));
    assert_eq!(format!("{:?}", decode_message(id, &bytes).unwrap()), format!("{message:?}"));
    // One that names no user stands without the last part.
    bytes.truncate(bytes.len() - 6);
    bytes[0] = 1;
    message.recipients[0].user = None;
    assert_eq!(format!("{:?}", decode_message(id, &bytes).unwrap()), format!("{message:?}"));
    message.unresolved.clear();
    bytes.clear();
    encode_message(&message, &mut bytes);
    assert_eq!(bytes[0], 1);
    // One with a trace has it at its end, with or without users.
    let plain = hex(&bytes[1..]);
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    message.trace = Trace::parse(trace.as_bytes());
    let stored = "4bf92f3577b34da6a3ce929d0e0e473600f067aa0ba902b701";
    for (user, users) in [(None, "00"), (Some("eve"), "010003657665")] {
        message.recipients[0].user = user.map(str::to_owned);
        bytes.clear();
        encode_message(&message, &mut bytes);
        assert_eq!(hex(&bytes), format!("02{plain}{users}{stored}"));
        assert_eq!(format!("{:?}", decode_message(id, &bytes).unwrap()), format!("{message:?}"));
    }

    bytes.clear();
    let progress = sample_progress();
    encode_progress(&progress, &mut bytes);
    assert_eq!(hex(&bytes), PROGRESS);
    assert_eq!(decode_progress(&bytes).unwrap(), progress);

    bytes.clear();
    let intent = Intent {
        n: 3,
        provider: "fcm".into(),
        address: 1,
        at: Utc::from_ms(1_000_000),
        alone: false,
    };
    encode_intent(&intent, &mut bytes);
    assert_eq!(hex(&bytes), INTENT);
    assert_eq!(decode_intent(&bytes).unwrap(), intent);
}

const MESSAGE: &str = "80dddb010107070707070707070707070707070707080808080808080808080808080808080473\
    686f700764656661756c740180d095ffbc310100010101017401016201016901017501017301ac02\
    010163010168010167010464617461017601016b01096f7665727269646573017601086d65746164\
    617461017601022f700164010203626f620172010105616c696365010265750100";
const PROGRESS: &str = "0102e0c65b0103010366636d010269640180897a01020304050200046e746679010461706e730101\
    01c08db70101010461706e730461706e73010701f403010163010164c0843dac02";
const INTENT: &str = "01030366636d01c0843d";

#[test]
fn a_version_that_this_build_does_not_know_is_named() {
    let error = decode_progress(&[3, 0, 0]).unwrap_err();
    assert_eq!(error, Undecodable("version 3, this build reads 1 and 2".to_owned()));
}

#[test]
fn bytes_that_are_left_over_are_damage() {
    let mut bytes = Vec::new();
    encode_progress(&sample_progress(), &mut bytes);
    bytes.push(0);
    assert!(decode_progress(&bytes).is_err());
}

fn sample_message(id: MessageId) -> Message {
    let map = |name: &str| BTreeMap::from([(name.to_owned(), "v".to_owned())]);
    let text = |text: &str| Some(text.to_owned());
    Message {
        id,
        client: "shop".into(),
        route: "default".into(),
        deliver_at: Some(Utc::from_ms(1_700_000_000_000)),
        ttl: Duration::from_secs(3600),
        on_ambiguous: OnAmbiguous::Stop,
        durability: Durability::Disk,
        push: Push {
            notification: Some(Notification {
                title: text("t"),
                body: text("b"),
                image: text("i"),
                url: text("u"),
                sound: text("s"),
                badge: Some(300),
                category: text("c"),
                thread: text("h"),
                tag: text("g"),
            }),
            data: map("data"),
            priority: Priority::High,
            collapse_key: text("k"),
            overrides: map("overrides"),
        },
        recipients: vec![Recipient {
            reference: text("alice"),
            user: text("eve"),
            region: text("eu"),
            addresses: Vec::new(),
            no_route: true,
        }],
        metadata: map("metadata"),
        idempotency: Some(Idempotency { key: [7; 16], body: [8; 16] }),
        warnings: vec![Warning { pointer: "/p".to_owned(), detail: "d".to_owned() }],
        unresolved: vec![Unresolved { index: 2, user: "bob".to_owned(), reason: "r".to_owned() }],
        trace: None,
    }
}

fn sample_progress() -> Progress {
    Progress {
        state: State::Waiting,
        reason: Some(Reason::Backoff),
        provider: Some("fcm".into()),
        provider_message_id: Some("id".into()),
        next_at: Some(Utc::from_ms(2_000_000)),
        attempts: vec![Attempt {
            n: 1,
            provider: "apns".into(),
            kind: "apns".into(),
            address: 1,
            outcome: Outcome::Ambiguous,
            status: Some(500),
            code: Some("c".into()),
            detail: Some("d".into()),
            started_at: Utc::from_ms(1_000_000),
            latency_ms: 300,
        }],
        counted: 1,
        tries: 2,
        rounds: 3,
        ambiguous: 4,
        crashes: 5,
        alone: 0,
        replayed_at: None,
        passed_over: None,
        excluded: vec![
            Excluded::Kind("ntfy".into()),
            Excluded::Candidate {
                provider: "apns".into(),
                address: 1,
                gone: true,
                until: Some(Utc::from_ms(3_000_000)),
            },
        ],
        at: Utc::from_ms(1_500_000),
    }
}

fn addresses(message: &Message) -> Vec<String> {
    let shown = |address: &Address| {
        let values: Vec<_> = address.values().collect();
        let (provider, registered_at) = (address.provider(), address.registered_at());
        format!("{} {values:?} {provider:?} {registered_at:?}", address.kind().name)
    };
    message.recipients.iter().flat_map(|recipient| &recipient.addresses).map(shown).collect()
}

fn any_message() -> impl Strategy<Value = Message> {
    let about = (".*", ".*", option::of(any_utc()), 0_u64..3_000_000_000, any::<(bool, bool)>());
    let rest = (
        any_push(),
        vec(any_recipient(), 0..5),
        any_map(),
        option::of(any::<([u8; 16], [u8; 16])>()),
        vec((".*", ".*"), 0..3),
        vec((any::<u32>(), ".*", ".*"), 0..3),
        option::of(any::<([u8; 16], [u8; 8], u8)>()),
    );
    (about, rest, any::<u64>()).prop_map(|(about, rest, seed)| {
        let (client, route, deliver_at, ttl_ms, (stop, memory)) = about;
        let (push, recipients, metadata, idempotency, warnings, unresolved, trace) = rest;
        Message {
            id: IdGenerator::default()
                .next(Utc::from_ms(seed >> 20), &mut StdRng::seed_from_u64(seed)),
            client: client.into(),
            route: route.into(),
            deliver_at,
            ttl: Duration::from_millis(ttl_ms),
            on_ambiguous: if stop { OnAmbiguous::Stop } else { OnAmbiguous::Resend },
            durability: if memory { Durability::Memory } else { Durability::Disk },
            push,
            recipients,
            metadata,
            idempotency: idempotency.map(|(key, body)| Idempotency { key, body }),
            warnings: warnings
                .into_iter()
                .map(|(pointer, detail)| Warning { pointer, detail })
                .collect(),
            unresolved: unresolved
                .into_iter()
                .map(|(index, user, reason)| Unresolved { index, user, reason })
                .collect(),
            trace: trace.map(|(id, parent, flags)| Trace { id: TraceId(id), parent, flags }),
        }
    })
}

fn any_push() -> impl Strategy<Value = Push> {
    let texts = vec(option::of(".*"), 8);
    let notification = option::of((texts, option::of(any::<u32>())));
    (notification, any_map(), any::<bool>(), option::of(".*"), any_map()).prop_map(
        |(notification, data, high, collapse_key, overrides)| Push {
            notification: notification.map(|(mut texts, badge)| {
                let mut text = || texts.pop().flatten();
                Notification {
                    title: text(),
                    body: text(),
                    image: text(),
                    url: text(),
                    sound: text(),
                    badge,
                    category: text(),
                    thread: text(),
                    tag: text(),
                }
            }),
            data,
            priority: if high { Priority::High } else { Priority::Normal },
            collapse_key,
            overrides,
        },
    )
}

fn any_recipient() -> impl Strategy<Value = Recipient> {
    (option::of(".*"), option::of(".*"), option::of(".*"), vec(any_address(), 0..3), any::<bool>())
        .prop_map(|(reference, user, region, addresses, no_route)| Recipient {
            reference,
            user,
            region,
            addresses,
            no_route,
        })
}

/// Of the kinds that have simple tokens; what they do not know they leave out.
fn any_address() -> impl Strategy<Value = Address> {
    let apns =
        ("[0-9a-f]{64}", option::of("com[.]example[.][a-z]{1,8}")).prop_map(|(token, app)| {
            let app = app.map(|app| ("app", app));
            ("apns", std::iter::once(("token", token)).chain(app).collect::<Vec<_>>())
        });
    let fcm = "[A-Za-z0-9_-]{100,160}".prop_map(|token| ("fcm", vec![("token", token)]));
    (prop_oneof![apns, fcm], option::of("[a-z]{1,8}"), option::of(any::<u64>())).prop_map(
        |((kind, values), provider, registered_at)| {
            let values: Vec<(&str, &str)> = values.iter().map(|(n, v)| (*n, &**v)).collect();
            let kind = registry::kind(kind).unwrap();
            Address::new(kind, &values, provider.as_deref(), registered_at).unwrap()
        },
    )
}

fn any_progress() -> impl Strategy<Value = Progress> {
    let where_it_is = (
        proptest::sample::select(State::DELIVERY.to_vec()),
        option::of((0_u8..14).prop_map(|n| reason_from(n).unwrap())),
        option::of(any_text()),
        option::of(any_text()),
        option::of(any_utc()),
        any_utc(),
    );
    let counts = any::<(u16, u32, u16, u16, u8)>();
    (where_it_is, counts, vec(any_attempt(), 0..17), vec(any_excluded(), 0..4)).prop_map(
        |(where_it_is, counts, attempts, excluded)| {
            let (state, reason, provider, provider_message_id, next_at, at) = where_it_is;
            let (counted, tries, rounds, ambiguous, crashes) = counts;
            Progress {
                state,
                reason,
                provider,
                provider_message_id,
                next_at,
                attempts,
                counted,
                tries,
                rounds,
                ambiguous,
                crashes,
                alone: crashes / 2,
                replayed_at: next_at.filter(|_| crashes % 2 == 1),
                passed_over: (rounds % 2 == 1)
                    .then(|| PassedOver { provider: "apns".into(), reason: "ejected".into() }),
                excluded,
                at,
            }
        },
    )
}

fn any_attempt() -> impl Strategy<Value = Attempt> {
    let call = (any::<u32>(), any_text(), any_text(), any::<u8>(), any_utc(), any::<u32>());
    let answer = (
        proptest::sample::select(Outcome::ALL.to_vec()),
        option::of(any::<u16>()),
        option::of(any_text()),
        option::of(any_text()),
    );
    (call, answer).prop_map(|(call, (outcome, status, code, detail))| {
        let (n, provider, kind, address, started_at, latency_ms) = call;
        Attempt {
            n,
            provider,
            kind,
            address,
            outcome,
            status,
            code,
            detail,
            started_at,
            latency_ms,
        }
    })
}

fn any_excluded() -> impl Strategy<Value = Excluded> {
    prop_oneof![
        any_text().prop_map(Excluded::Kind),
        (any_text(), any::<u8>(), any::<bool>(), option::of(any_utc())).prop_map(
            |(provider, address, gone, until)| Excluded::Candidate {
                provider,
                address,
                gone,
                until
            }
        ),
    ]
}

fn any_map() -> impl Strategy<Value = BTreeMap<String, String>> {
    btree_map(".*", ".*", 0..6)
}

fn any_text() -> impl Strategy<Value = Arc<str>> {
    ".*".prop_map(Arc::from)
}

fn any_utc() -> impl Strategy<Value = Utc> {
    any::<u64>().prop_map(Utc::from_ms)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
