//! APNs: what is taken, what is refused and how, what a token asks for.

use http::StatusCode;

use crate::harness::{Client, Login, Sim, bearer, hex, now, until};

const DELIVERY: &str = "01970000-0000-7000-8000-0000000000a1";
const TOKEN: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

#[tokio::test]
async fn good_push_is_taken_and_its_id_echoed() {
    let sim = Sim::start().await;
    let id = "6f9619ff-8b86-4d01-b42d-00cf4fc964ff";
    let push = sim.push(TOKEN).header("apns-id", id).delivery(DELIVERY);
    let answer = sim.apns().await.answer(&push).await;
    assert_eq!((answer.status, answer.body.as_str()), (StatusCode::OK, ""));
    assert_eq!(answer.header("apns-id"), id);
    let arrivals = sim.control().arrivals(0, 10);
    assert_eq!(arrivals.items[0].delivery, DELIVERY);
    assert_eq!(arrivals.items[0].vendor, "apns");
}

#[tokio::test]
async fn push_without_delivery_is_counted_by_its_apns_id() {
    let sim = Sim::start().await;
    let id = "6f9619ff-8b86-4d01-b42d-00cf4fc964ff";
    let client = sim.apns().await;
    for _ in 0..2 {
        client.answer(&sim.push(TOKEN).header("apns-id", id)).await;
    }
    client.answer(&sim.push(TOKEN)).await;
    let arrivals = sim.control().arrivals(0, 10).items;
    assert_eq!((arrivals.len(), arrivals[0].copies), (2, 2));
    assert_eq!(arrivals[0].delivery, id);
}

#[tokio::test]
async fn faults_of_a_request_have_apples_words() {
    let sim = Sim::start().await;
    let client = sim.apns().await;
    let good = || sim.push(TOKEN);
    let mut path = good();
    path.path = "/3/devices/00".into();
    let mut no_token = good();
    no_token.path = "/3/device/".into();
    let table = [
        (path, 404, "BadPath"),
        (no_token, 400, "MissingDeviceToken"),
        (good().method("PUT"), 405, "MethodNotAllowed"),
        (good().without("authorization"), 403, "MissingProviderToken"),
        (good().header("authorization", "bearer a.b.c"), 403, "InvalidProviderToken"),
        (good().without("apns-topic"), 400, "MissingTopic"),
        (good().header("apns-push-type", "shout"), 400, "InvalidPushType"),
        (good().header("apns-priority", "3"), 400, "BadPriority"),
        (good().header("apns-id", "7"), 400, "BadMessageId"),
        (good().body(""), 400, "PayloadEmpty"),
        (good().body("x".repeat(4097)), 413, "PayloadTooLarge"),
        (good().body("x".repeat(300_000)), 413, "PayloadTooLarge"),
        (good().body("not json"), 400, "BadRequestPayload"),
        (sim.push("abc"), 400, "BadDeviceToken"),
        (sim.push("xyz0"), 400, "BadDeviceToken"),
    ];
    for (push, status, reason) in table {
        let answer = client.answer(&push).await;
        assert_eq!((answer.status.as_u16(), answer.reason().as_str()), (status, reason));
        assert_eq!(answer.header("apns-id").len(), 36, "{reason}");
    }
    assert_eq!(sim.control().summary().unique, 0);
}

#[tokio::test]
async fn repeated_header_is_refused() {
    let sim = Sim::start().await;
    let mut push = sim.push(TOKEN);
    push.headers.push(("apns-topic".into(), "com.example.app".into()));
    let answer = sim.apns().await.answer(&push).await;
    assert_eq!(answer.reason(), "DuplicateHeaders");
}

#[tokio::test]
async fn provider_token_has_an_age() {
    let sim = Sim::start().await;
    let key = sim.file("AuthKey_SIMKEY0001.p8");
    for (issued, reason) in
        [(now() - 3700, "ExpiredProviderToken"), (now() + 1000, "InvalidProviderToken")]
    {
        let push = sim.push(TOKEN).header("authorization", &bearer(&key, "SIMKEY0001", issued));
        assert_eq!(sim.apns().await.answer(&push).await.reason(), reason);
    }
}

#[tokio::test]
async fn unknown_key_is_refused() {
    let sim = Sim::start().await;
    let key = sim.file("AuthKey_SIMKEY0001.p8");
    let push = sim.push(TOKEN).header("authorization", &bearer(&key, "OTHERKEY01", now()));
    assert_eq!(sim.apns().await.answer(&push).await.reason(), "InvalidProviderToken");
}

#[tokio::test]
async fn sloppy_tokens_are_taken_only_where_that_is_asked_for() {
    for (lenient, status) in [(false, 403), (true, 200)] {
        let sim = Sim::with(|settings| settings.apns_lenient_tokens = lenient).await;
        let strict = bearer(&sim.file("AuthKey_SIMKEY0001.p8"), "SIMKEY0001", now());
        // The signature has 64 bytes, which padded base64 ends with two signs.
        let push = sim.push(TOKEN).header("authorization", &format!("{strict}=="));
        assert_eq!(sim.apns().await.answer(&push).await.status, status);
    }
}

#[tokio::test]
async fn second_token_within_twenty_minutes_is_an_update_too_many() {
    let sim = Sim::start().await;
    let key = sim.file("AuthKey_SIMKEY0001.p8");
    let client = sim.apns().await;
    let first = sim.push(TOKEN);
    let second = sim.push(TOKEN).header("authorization", &bearer(&key, "SIMKEY0001", now() - 1200));
    assert_eq!(client.answer(&first).await.status, 200);
    let refused = client.answer(&second).await;
    assert_eq!(
        (refused.status.as_u16(), refused.reason().as_str()),
        (429, "TooManyProviderTokenUpdates")
    );
    assert_eq!(client.answer(&first).await.status, 200, "the first one still counts");
    assert_eq!(sim.apns().await.answer(&second).await.status, 200, "another connection is new");
}

#[tokio::test]
async fn connection_is_bound_to_its_key() {
    let sim = Sim::with(|settings| {
        // A second key is registered by its file.
        let first = settings.dir.join("AuthKey_SIMKEY0001.p8");
        std::fs::copy(first, settings.dir.join("AuthKey_SIMKEY0002.p8")).unwrap();
    })
    .await;
    let client = sim.apns().await;
    assert_eq!(client.answer(&sim.push(TOKEN)).await.status, 200);
    let key = sim.file("AuthKey_SIMKEY0002.p8");
    let other = sim.push(TOKEN).header("authorization", &bearer(&key, "SIMKEY0002", now()));
    let refused = client.answer(&other).await;
    assert_eq!(
        (refused.status.as_u16(), refused.reason().as_str()),
        (403, "UnrelatedKeyIdInToken")
    );
    assert_eq!(sim.apns().await.answer(&other).await.status, 200);
}

#[tokio::test]
async fn certificate_stands_in_for_a_token() {
    let sim = Sim::start().await;
    let login =
        Login::Certificate { chain: sim.file("apns-client.pem"), key: sim.file("apns-client.key") };
    let client = Client::connect(&sim, "apns", login, &[b"h2"]).await.unwrap();
    let push = sim.push(TOKEN).without("authorization");
    assert_eq!(client.answer(&push).await.status, 200);
    assert_eq!(client.stream_limit(), 1000, "a certificate has nothing left to prove");
    assert_eq!(client.answer(&push.clone().without("apns-topic")).await.status, 200);
    let other = client.answer(&push.clone().header("apns-topic", "com.example.other")).await;
    assert_eq!(other.reason(), "TopicDisallowed");
    let location = client.answer(&push.header("apns-push-type", "location")).await;
    assert_eq!(location.reason(), "InvalidPushType");
}

#[tokio::test]
async fn probe_address_shows_a_good_credential_and_is_no_arrival() {
    let sim = Sim::start().await;
    let answer = sim.apns().await.answer(&sim.push(&"0".repeat(64))).await;
    assert_eq!(answer.reason(), "BadDeviceToken");
    assert_eq!(sim.vendor("apns").probes, 1);
    assert_eq!(sim.control().summary().unique, 0);
}

#[tokio::test]
async fn tokens_ask_for_answers() {
    let sim = Sim::start().await;
    let client = sim.apns().await;
    let table = [
        (hex("gone-1"), 410, "Unregistered"),
        (hex("bad-1"), 400, "BadDeviceToken"),
        (hex("429-1"), 429, "TooManyRequests"),
        (hex("429ra5-1"), 429, "TooManyRequests"),
        (hex("500-1"), 500, "InternalServerError"),
        (hex("503-1"), 503, "ServiceUnavailable"),
        (hex("401-1"), 403, "InvalidProviderToken"),
        ("fa170410".into(), 410, "Unregistered"),
        ("fa171410".into(), 410, "Unregistered"),
        ("fa172410".into(), 410, "ExpiredToken"),
        ("fa170400".into(), 400, "BadDeviceToken"),
        ("fa171400".into(), 400, "DeviceTokenNotForTopic"),
        ("fa170429".into(), 429, "TooManyRequests"),
        ("fa170500".into(), 500, "InternalServerError"),
        ("fa170503".into(), 503, "ServiceUnavailable"),
        ("fa17000a".into(), 400, "NoReasonThatAppleKnows"),
    ];
    for (token, status, reason) in table {
        let answer = client.answer(&sim.push(&token)).await;
        assert_eq!((answer.status.as_u16(), answer.reason().as_str()), (status, reason), "{token}");
        let retry_after = if token == hex("429ra5-1") { "5" } else { "" };
        assert_eq!(answer.header("retry-after"), retry_after, "{token}");
    }
    for token in [hex("html502-1"), "fa170502".into()] {
        let answer = client.answer(&sim.push(&token)).await;
        assert_eq!(answer.status, 502);
        assert!(answer.body.starts_with("<html>"));
    }
    assert_eq!(sim.control().summary().unique, 0);
}

#[tokio::test]
async fn gone_has_a_time_in_milliseconds() {
    let sim = Sim::start().await;
    let client = sim.apns().await;
    let at = |answer: crate::harness::Answer| answer.json()["timestamp"].as_u64();
    let recent = at(client.answer(&sim.push("fa170410")).await).unwrap();
    assert!(recent.abs_diff(now() * 1000) < 60_000);
    assert_eq!(at(client.answer(&sim.push("fa171410")).await), Some(1_000_000_000_000));
    assert_eq!(at(client.answer(&sim.push("fa172410")).await), None);
}

#[tokio::test]
async fn slow_token_is_taken_late() {
    let sim = Sim::start().await;
    let client = sim.apns().await;
    for token in [hex("slow120-"), "fa17000b0078".into()] {
        let taken = sim.vendor("apns").accepted;
        let answer = client.begin(&sim.push(&token));
        until("the request is there", || sim.vendor("apns").in_flight == 1).await;
        assert_eq!(sim.vendor("apns").accepted, taken, "{token}");
        assert_eq!(answer.end().await.unwrap().status, 200);
        assert_eq!(sim.vendor("apns").accepted, taken + 1);
    }
}

#[tokio::test]
async fn each_environment_knows_its_own_tokens() {
    let sim = Sim::start().await;
    let production = sim.apns().await;
    let sandbox = Client::connect(&sim, "apns-sandbox", Login::None, &[b"h2"]).await.unwrap();
    let own = hex("sandbox-phone");
    assert_eq!(production.answer(&sim.push(&own)).await.reason(), "BadDeviceToken");
    assert_eq!(sandbox.answer(&sim.push(TOKEN)).await.reason(), "BadDeviceToken");
    let taken = sandbox.answer(&sim.push(&own)).await;
    assert_eq!((taken.status.as_u16(), taken.header("apns-unique-id").len()), (200, 36));
    assert_eq!(sandbox.answer(&sim.push(&hex("sandbox-gone-1"))).await.reason(), "Unregistered");
    assert_eq!((sim.vendor("apns").accepted, sim.vendor("apns-sandbox").accepted), (0, 1));
}

#[tokio::test]
async fn key_of_one_environment_is_refused_in_the_other() {
    let sim = Sim::with(|settings| {
        let first = settings.dir.join("AuthKey_SIMKEY0001.p8");
        std::fs::copy(first, settings.dir.join("AuthKey_SIMKEY0002.sandbox.p8")).unwrap();
    })
    .await;
    let key = sim.file("AuthKey_SIMKEY0002.sandbox.p8");
    let token = bearer(&key, "SIMKEY0002", now());
    let push = sim.push(&hex("sandbox-phone")).header("authorization", &token);
    let refused = sim.apns().await.answer(&push).await;
    assert_eq!(
        (refused.status.as_u16(), refused.reason().as_str()),
        (403, "BadEnvironmentKeyIdInToken")
    );
    let sandbox = Client::connect(&sim, "apns-sandbox", Login::None, &[b"h2"]).await.unwrap();
    assert_eq!(sandbox.answer(&push).await.status, 200);
}
