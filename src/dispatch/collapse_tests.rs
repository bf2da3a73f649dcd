use std::collections::BTreeMap;
use std::time::Duration;

use pushyard_providers::address::{Field, Need};
use pushyard_providers::{Address, Kind, Push};

use super::{Age, Collapse, StubRef};
use crate::clock::Utc;
use crate::model::{Durability, IdGenerator, Message, OnAmbiguous, Recipient};

static KIND: Kind = Kind {
    name: "test",
    fields: &[Field { name: "token", need: Need::Required }],
    check_address: |_| Ok(()),
    settings: &[],
    build: |_| Err(Vec::new()),
};

fn recipient(tokens: &[&str]) -> Recipient {
    let addresses = tokens.iter();
    let addresses = addresses.map(|t| Address::new(&KIND, &[("token", *t)], None, None).unwrap());
    let addresses = addresses.collect();
    Recipient { reference: None, user: None, region: None, addresses, no_route: false }
}

fn messages<const N: usize>(key: Option<&str>) -> [Message; N] {
    let mut ids = IdGenerator::default();
    std::array::from_fn(|_| Message {
        id: ids.next(Utc::from_ms(1_760_000_000_000), &mut rand::rng()),
        client: "client".into(),
        route: "default".into(),
        deliver_at: None,
        ttl: Duration::from_secs(60),
        on_ambiguous: OnAmbiguous::Resend,
        durability: Durability::Disk,
        push: Push { collapse_key: key.map(str::to_owned), ..Push::default() },
        recipients: Vec::new(),
        metadata: BTreeMap::new(),
        idempotency: None,
        warnings: Vec::new(),
        unresolved: Vec::new(),
        trace: None,
    })
}

#[test]
fn age_is_that_of_the_message_and_not_the_order_of_joining() {
    let [older, newer] = messages(Some("key"));
    let mut collapse = Collapse::default();
    collapse.join(StubRef(2), &newer, &recipient(&["a"]));
    collapse.join(StubRef(1), &older, &recipient(&["a"]));
    assert_eq!(collapse.others(StubRef(2))[..], [(StubRef(1), Age::Older)]);
    assert_eq!(collapse.others(StubRef(1))[..], [(StubRef(2), Age::Newer)]);
}

#[test]
fn one_shared_address_is_enough_and_two_name_the_other_once() {
    let [older, newer] = messages(Some("key"));
    let mut collapse = Collapse::default();
    collapse.join(StubRef(1), &older, &recipient(&["a", "b", "c"]));
    collapse.join(StubRef(2), &newer, &recipient(&["c", "b"]));
    assert_eq!(collapse.others(StubRef(2))[..], [(StubRef(1), Age::Older)]);
}

#[test]
fn two_deliveries_of_a_message_to_one_address_do_not_take_each_others_place() {
    let [message] = messages(Some("key"));
    let mut collapse = Collapse::default();
    collapse.join(StubRef(1), &message, &recipient(&["a"]));
    collapse.join(StubRef(2), &message, &recipient(&["a"]));
    assert_eq!(collapse.others(StubRef(2))[..], [(StubRef(1), Age::Same)]);
}

#[test]
fn without_a_key_or_after_leaving_nothing_is_kept() {
    let [plain] = messages(None);
    let mut collapse = Collapse::default();
    collapse.join(StubRef(1), &plain, &recipient(&["a"]));
    assert!(collapse.is_empty());
    let [message] = messages(Some("key"));
    collapse.join(StubRef(1), &message, &recipient(&["a", "a"]));
    collapse.leave(StubRef(1));
    assert!(collapse.is_empty());
}
