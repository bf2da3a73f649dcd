//! APNs' broadcasts and the management of their channels.

use crate::harness::{Client, Login, Push, Sim, bearer, now};

const CHANNEL: &str = "c2ltLWNoYW5uZWw="; // sim-channel
const UPDATE: &str = r#"{"aps":{"event":"update","timestamp":1,"content-state":{"score":"1:0"}}}"#;
const ID: &str = "6f9619ff-8b86-4d01-b42d-00cf4fc964ff";

async fn connect(sim: &Sim, host: &str) -> Client {
    Client::connect(sim, host, Login::None, &[b"h2"]).await.unwrap()
}

fn base64(text: &str) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(text)
}

/// A request to one of the hosts that is right in everything.
fn request(sim: &Sim, path: &str) -> Push {
    let token = bearer(&sim.file("AuthKey_SIMKEY0001.p8"), "SIMKEY0001", now());
    Push { path: path.into(), ..Push::default() }.header("authorization", &token)
}

fn broadcast(sim: &Sim, channel: &str) -> Push {
    request(sim, "/4/broadcasts/apps/com.example.app")
        .header("apns-channel-id", channel)
        .header("apns-push-type", "liveactivity")
        .header("apns-priority", "10")
        .header("apns-expiration", "1900000000")
        .body(UPDATE)
}

#[tokio::test]
async fn a_broadcast_is_taken_by_either_host_and_its_id_echoed() {
    let sim = Sim::start().await;
    for host in ["apns-broadcast", "apns"] {
        let push = broadcast(&sim, CHANNEL).header("apns-request-id", ID);
        let answer = connect(&sim, host).await.answer(&push).await;
        assert_eq!((answer.status.as_u16(), answer.header("apns-request-id")), (200, ID));
    }
    let arrivals = sim.control().arrivals(0, 10).items;
    assert_eq!((arrivals.len(), arrivals[0].copies, arrivals[0].vendor), (1, 2, "apns-broadcast"));
    // The host of broadcasts knows no devices.
    let answer = connect(&sim, "apns-broadcast").await.answer(&sim.push("ab")).await;
    assert_eq!(answer.reason(), "BadPath");
}

#[tokio::test]
async fn faults_of_a_broadcast_have_apples_words() {
    let sim = Sim::with(|settings| {
        settings.apns_topics = vec!["com.example.app".into(), "com.example.mute".into()];
        settings.apns_without_broadcast = vec!["com.example.mute".into()];
    })
    .await;
    let client = connect(&sim, "apns-broadcast").await;
    let good = || broadcast(&sim, CHANNEL);
    let to = |app: &str| Push { path: format!("/4/broadcasts/apps/{app}"), ..good() };
    let table = [
        (to("com.example.app/x"), 404, "BadPath"),
        (good().method("GET"), 405, "MethodNotAllowed"),
        (good().without("authorization"), 403, "MissingProviderToken"),
        (good().header("authorization", "bearer a.b.c"), 403, "InvalidProviderToken"),
        (to("com.example.app.push-type.liveactivity"), 400, "TopicDisallowed"),
        (to("com.example.other"), 400, "TopicDisallowed"),
        (to("com.example.mute"), 400, "FeatureNotEnabled"),
        (good().header("apns-topic", "com.example.app"), 400, "BadRequestParams"),
        (good().header("apns-request-id", "7"), 400, "BadRequestParams"),
        (good().without("apns-push-type"), 400, "MissingPushType"),
        (good().header("apns-push-type", "alert"), 400, "InvalidPushType"),
        (good().without("apns-priority"), 400, "BadPriority"),
        (good().without("apns-expiration"), 400, "BadExpirationDate"),
        (good().without("apns-channel-id"), 400, "MissingChannelId"),
        (good().header("apns-channel-id", "not base64!"), 400, "BadChannelId"),
        (good().header("apns-channel-id", "bm9ib2R5"), 400, "ChannelNotRegistered"),
        (good().body(""), 400, "PayloadEmpty"),
        (good().body("x".repeat(5121)), 413, "PayloadTooLarge"),
        (good().body(r#"{"aps":{"alert":"hi"}}"#), 400, "BadRequestPayload"),
        (good().body(r#"{"aps":{"event":"start"}}"#), 400, "BadRequestPayload"),
    ];
    for (push, status, reason) in table {
        let answer = client.answer(&push).await;
        assert_eq!((answer.status.as_u16(), answer.reason().as_str()), (status, reason));
        assert_eq!(answer.header("apns-request-id").len(), 36, "{reason}");
    }
    assert_eq!(sim.control().summary().unique, 0);
}

#[tokio::test]
async fn a_channel_that_stores_nothing_takes_expiration_zero_alone() {
    let sim = Sim::start().await;
    let client = connect(&sim, "apns-broadcast").await;
    let push = broadcast(&sim, &base64("sim0-channel"));
    assert_eq!(client.answer(&push).await.reason(), "BadExpirationDate");
    let push = push.header("apns-expiration", "0");
    assert_eq!(client.answer(&push).await.status, 200);
}

#[tokio::test]
async fn channels_ask_for_answers() {
    let sim = Sim::start().await;
    let client = connect(&sim, "apns-broadcast").await;
    for (text, status, reason) in [
        ("gone-1", 400, "ChannelNotRegistered"),
        ("bad-1", 400, "BadChannelId"),
        ("429-1", 429, "TooManyRequests"),
        ("500-1", 500, "InternalServerError"),
        ("503-1", 503, "ServiceUnavailable"),
        ("401-1", 403, "InvalidProviderToken"),
    ] {
        let answer = client.answer(&broadcast(&sim, &base64(text))).await;
        assert_eq!((answer.status.as_u16(), answer.reason().as_str()), (status, reason), "{text}");
    }
    let lost = client.send(&broadcast(&sim, &base64("lost-1"))).await;
    assert!(lost.is_err());
    assert_eq!(sim.vendor("apns-broadcast").accepted, 1);
}

#[tokio::test]
async fn channels_are_made_read_listed_and_deleted_in_their_environment() {
    let sim = Sim::start().await;
    let manage = connect(&sim, "apns-channels").await;
    let path = "/1/apps/com.example.app/channels";
    let body = r#"{"message-storage-policy":1,"push-type":"LiveActivity"}"#;
    let made = manage.answer(&request(&sim, path).header("apns-request-id", ID).body(body)).await;
    assert_eq!((made.status.as_u16(), made.header("apns-request-id")), (201, ID));
    let channel = made.header("apns-channel-id").to_owned();
    let of =
        |method| request(&sim, path).method(method).header("apns-channel-id", &channel).body("");
    let read = manage.answer(&of("GET")).await;
    assert_eq!((read.status.as_u16(), read.body.as_str()), (200, body));
    let list = request(&sim, "/1/apps/com.example.app/all-channels").method("GET").body("");
    let listed = manage.answer(&list).await.json();
    assert_eq!(listed["channels"], serde_json::json!([channel]));

    let push = broadcast(&sim, &channel);
    assert_eq!(connect(&sim, "apns-broadcast").await.answer(&push).await.status, 200);
    let sandbox = connect(&sim, "apns-sandbox-broadcast").await.answer(&push).await;
    assert_eq!(sandbox.reason(), "ChannelNotRegistered", "it is production's");

    assert_eq!(manage.answer(&of("DELETE")).await.status, 204);
    for gone in [manage.answer(&of("GET")).await, manage.answer(&of("DELETE")).await] {
        assert_eq!((gone.status.as_u16(), gone.reason().as_str()), (400, "ChannelNotRegistered"));
    }
    assert_eq!(manage.answer(&list).await.json()["channels"], serde_json::json!([]));
}

#[tokio::test]
async fn faults_of_managing_have_apples_words() {
    let sim = Sim::start().await;
    let manage = connect(&sim, "apns-channels").await;
    let good = || {
        request(&sim, "/1/apps/com.example.app/channels")
            .body(r#"{"message-storage-policy":0,"push-type":"LiveActivity"}"#)
    };
    let table = [
        (request(&sim, "/1/apps/com.example.app/chanels"), 404, "BadPath"),
        (good().method("PUT"), 405, "MethodNotAllowed"),
        (good().without("authorization"), 403, "MissingProviderToken"),
        (good().body("{"), 400, "BadRequestPayload"),
        (good().body(r#"{"message-storage-policy":0}"#), 400, "MissingPushType"),
        (good().body(r#"{"push-type":"alert"}"#), 400, "InvalidPushType"),
        (
            good().body(r#"{"message-storage-policy":2,"push-type":"LiveActivity"}"#),
            400,
            "MissingChannelQueueSize",
        ),
        (good().method("GET").body(""), 400, "MissingChannelId"),
        (good().method("DELETE").header("apns-channel-id", "!").body(""), 400, "BadChannelId"),
    ];
    for (push, status, reason) in table {
        let answer = manage.answer(&push).await;
        assert_eq!((answer.status.as_u16(), answer.reason().as_str()), (status, reason));
    }
}

#[tokio::test]
async fn a_certificate_broadcasts_for_its_own_app() {
    let sim = Sim::start().await;
    let login =
        Login::Certificate { chain: sim.file("apns-client.pem"), key: sim.file("apns-client.key") };
    let client = Client::connect(&sim, "apns-broadcast", login, &[b"h2"]).await.unwrap();
    let push = broadcast(&sim, CHANNEL).without("authorization");
    assert_eq!(client.answer(&push).await.status, 200);
    let other = Push { path: "/4/broadcasts/apps/com.example.other".into(), ..push };
    let answer = client.answer(&other).await;
    assert_eq!((answer.status.as_u16(), answer.reason().as_str()), (403, "TopicMismatch"));
}
