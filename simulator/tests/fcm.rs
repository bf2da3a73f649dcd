//! FCM: what is taken, what is refused and how, what a token asks for.

use pushyard_simulator::{Behaviour, Mode};
use serde_json::json;

use crate::harness::{Push, Sim, until};

const DELIVERY: &str = "01970000-0000-7000-8000-0000000000f1";

#[tokio::test]
async fn good_push_is_taken_and_named() {
    let sim = Sim::start().await;
    let (client, bearer) = sim.fcm().await;
    let push = Push::fcm(&bearer, "a-token").delivery(DELIVERY);
    let mut names = Vec::new();
    for _ in 0..2 {
        let answer = client.answer(&push).await;
        assert_eq!(answer.status, 200);
        names.push(answer.json()["name"].as_str().unwrap().to_owned());
    }
    assert!(names[0].starts_with("projects/simulated-project/messages/"));
    assert_ne!(names[0], names[1]);
    let arrivals = sim.control().arrivals(0, 10).items;
    assert_eq!((arrivals[0].delivery.as_str(), arrivals[0].copies), (DELIVERY, 2));
    assert_eq!(sim.control().summary().duplicates, 1);
}

#[tokio::test]
async fn push_without_delivery_is_never_lost_from_the_count() {
    let sim = Sim::start().await;
    let (client, bearer) = sim.fcm().await;
    for _ in 0..3 {
        client.answer(&Push::fcm(&bearer, "a-token")).await;
    }
    assert_eq!(sim.control().summary().unique, 3);
}

#[tokio::test]
async fn unknown_bearer_is_unauthenticated() {
    let sim = Sim::start().await;
    let (client, _) = sim.fcm().await;
    for push in [
        Push::fcm("Bearer nobody", "t"),
        Push::fcm("Basic x", "t"),
        Push::fcm("", "t").without("authorization"),
    ] {
        let answer = client.answer(&push).await;
        assert_eq!(answer.status, 401);
        let error = &answer.json()["error"];
        assert_eq!(error["status"], "UNAUTHENTICATED");
        assert_eq!(error["details"][0]["reason"], "ACCESS_TOKEN_EXPIRED");
    }
}

#[tokio::test]
async fn access_token_expires() {
    let sim = Sim::with(|settings| settings.token_expires_in = 1).await;
    let (client, bearer) = sim.fcm().await;
    assert_eq!(client.answer(&Push::fcm(&bearer, "t")).await.status, 200);
    loop {
        let answer = client.answer(&Push::fcm(&bearer, "t")).await;
        if answer.status == 401 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn unknown_project_is_not_found_without_a_word_of_fcm() {
    let sim = Sim::start().await;
    let (client, bearer) = sim.fcm().await;
    let mut push = Push::fcm(&bearer, "t");
    push.path = "/v1/projects/another/messages:send".into();
    let answer = client.answer(&push).await;
    assert_eq!((answer.status.as_u16(), answer.fcm_code()), (404, None));
    push.path = "/v2/elsewhere".into();
    let answer = client.answer(&push).await;
    assert!(answer.status == 404 && answer.body.starts_with("<html>"));
}

#[tokio::test]
async fn invalid_message_names_the_field() {
    let sim = Sim::start().await;
    let (client, bearer) = sim.fcm().await;
    let table = [
        (json!({"message": {"token": "t", "data": {"k": 1}}}), "message.data[0].value"),
        (json!({"message": {"token": "t", "android": {"ttl": "2419201s"}}}), "message.android.ttl"),
        (json!({"message": {"token": "t", "nope": 1}}), "message"),
        (json!({"message": {}}), "message"),
        (json!({"nope": 1, "message": {"token": "t"}}), ""),
    ];
    for (body, field) in table {
        let push = Push::fcm(&bearer, "t").body(body.to_string());
        let answer = client.answer(&push).await;
        assert_eq!(answer.status, 400);
        let error = &answer.json()["error"];
        assert_eq!(error["status"], "INVALID_ARGUMENT");
        let detail = &error["details"][0];
        assert_eq!(detail["@type"], "type.googleapis.com/google.rpc.BadRequest");
        assert_eq!(detail["fieldViolations"][0]["field"], field, "{body}");
    }
    let answer = client.answer(&Push::fcm(&bearer, "t").body("{\"message\":")).await;
    assert_eq!(answer.status, 400);
    let big = json!({"message": {"token": "t", "data": {"k": "x".repeat(5000)}}});
    let answer = client.answer(&Push::fcm(&bearer, "t").body(big.to_string())).await;
    assert_eq!(answer.fcm_code().as_deref(), Some("INVALID_ARGUMENT"));
    assert_eq!(sim.control().summary().unique, 0);
}

#[tokio::test]
async fn dry_run_is_a_probe_and_no_arrival() {
    let sim = Sim::start().await;
    let (client, bearer) = sim.fcm().await;
    let body =
        json!({"validate_only": true, "message": {"topic": "health-probe", "data": {"p": "1"}}});
    let answer = client.answer(&Push::fcm(&bearer, "").body(body.to_string())).await;
    assert_eq!(answer.status, 200);
    let dead = json!({"validate_only": true, "message": {"token": "gone-1"}});
    let answer = client.answer(&Push::fcm(&bearer, "").body(dead.to_string())).await;
    assert_eq!(answer.fcm_code().as_deref(), Some("UNREGISTERED"));
    let status = sim.vendor("fcm");
    assert_eq!((status.probes, status.accepted), (2, 0));
    assert_eq!(sim.control().summary().unique, 0);
}

#[tokio::test]
async fn project_quota_is_the_front_doors() {
    let sim = Sim::with(|settings| settings.fcm_quota_per_minute = Some(2)).await;
    let (client, bearer) = sim.fcm().await;
    for expected in [200, 200, 429] {
        let answer = client.answer(&Push::fcm(&bearer, "t")).await;
        assert_eq!(answer.status, expected);
        if expected == 429 {
            let detail = &answer.json()["error"]["details"][0];
            assert_eq!(detail["reason"], "RATE_LIMIT_EXCEEDED");
            assert_eq!(detail["metadata"]["quota_limit"], "SendsPerMinutePerProject");
        }
    }
}

#[tokio::test]
async fn tokens_ask_for_answers() {
    let sim = Sim::start().await;
    let (client, bearer) = sim.fcm().await;
    let table = [
        ("gone-1", 404, Some("UNREGISTERED"), ""),
        ("bad-1", 400, Some("INVALID_ARGUMENT"), ""),
        ("429-1", 429, Some("QUOTA_EXCEEDED"), ""),
        ("429ra5-1", 429, Some("QUOTA_EXCEEDED"), "5"),
        ("500-1", 500, Some("INTERNAL"), ""),
        ("503-1", 503, Some("UNAVAILABLE"), ""),
        ("401-1", 401, None, ""),
        ("sim-unregistered-1", 404, Some("UNREGISTERED"), ""),
        ("sim-apnsgone-1", 400, Some("INVALID_ARGUMENT"), ""),
        ("sim-badtoken-1", 400, Some("INVALID_ARGUMENT"), ""),
        ("sim-mismatch-1", 403, Some("SENDER_ID_MISMATCH"), ""),
        ("sim-thirdparty-1", 401, Some("THIRD_PARTY_AUTH_ERROR"), ""),
        ("sim-quota-device-1", 429, Some("QUOTA_EXCEEDED"), ""),
        ("sim-429ra5-1", 429, Some("QUOTA_EXCEEDED"), "5"),
        ("sim-500-1", 500, Some("INTERNAL"), ""),
        ("sim-503ra-1", 503, Some("UNAVAILABLE"), "5"),
        ("sim-503ra9-1", 503, Some("UNAVAILABLE"), "9"),
        ("sim-504-1", 504, None, ""),
    ];
    for (token, status, code, retry_after) in table {
        let answer = client.answer(&Push::fcm(&bearer, token)).await;
        assert_eq!(answer.status, status, "{token}");
        assert_eq!(answer.fcm_code().as_deref(), code, "{token}");
        assert_eq!(answer.header("retry-after"), retry_after, "{token}");
    }
    for token in ["html502-1", "sim-html502-1"] {
        let answer = client.answer(&Push::fcm(&bearer, token)).await;
        assert!(answer.status == 502 && answer.body.starts_with("<html>"));
    }
    let dated = client.answer(&Push::fcm(&bearer, "sim-429date-1")).await;
    assert!(dated.header("retry-after").ends_with(" GMT"));
    assert_eq!(sim.control().summary().unique, 0);
}

#[tokio::test]
async fn details_tell_kinds_of_errors_apart() {
    let sim = Sim::start().await;
    let (client, bearer) = sim.fcm().await;
    let details = async |token: &str| {
        let answer = client.answer(&Push::fcm(&bearer, token)).await;
        answer.json()["error"]["details"].to_string()
    };
    assert!(
        details("sim-apnsgone-1").await.contains(r#""reason":"Unregistered","statusCode":410"#)
    );
    assert!(details("sim-badtoken-1").await.contains(r#""field":"message.token""#));
    assert!(details("sim-quota-device-1").await.contains("device:"));
    assert!(!details("429-1").await.contains("QuotaFailure"));
}

#[tokio::test]
async fn slow_token_is_taken_late() {
    let sim = Sim::start().await;
    let (client, bearer) = sim.fcm().await;
    for token in ["slow120-1", "sim-delay120-1"] {
        let taken = sim.vendor("fcm").accepted;
        let begun = client.begin(&Push::fcm(&bearer, token));
        until("it is there", || sim.vendor("fcm").in_flight == 1).await;
        assert_eq!(sim.vendor("fcm").accepted, taken);
        assert_eq!(begun.end().await.unwrap().status, 200);
        assert_eq!(sim.vendor("fcm").accepted, taken + 1);
    }
}

#[tokio::test]
async fn device_has_its_own_limit_a_minute() {
    let sim = Sim::with(|settings| settings.fcm_device_per_minute = Some(2)).await;
    let (client, bearer) = sim.fcm().await;
    for _ in 0..2 {
        assert_eq!(client.answer(&Push::fcm(&bearer, "phone")).await.status, 200);
    }
    let refused = client.answer(&Push::fcm(&bearer, "phone")).await;
    assert_eq!(refused.status, 429);
    assert!(refused.body.contains("device"), "{}", refused.body);
    assert_eq!(client.answer(&Push::fcm(&bearer, "tablet")).await.status, 200);
}

#[tokio::test]
async fn an_api_that_is_not_enabled_says_so() {
    let sim = Sim::start().await;
    let (client, bearer) = sim.fcm().await;
    let mut behaviour = Behaviour::of(Mode::Failing);
    behaviour.status = Some(403);
    sim.control().set("fcm", behaviour).unwrap();
    let answer = client.answer(&Push::fcm(&bearer, "t")).await;
    assert_eq!(answer.status, 403);
    let error = answer.json()["error"].clone();
    assert_eq!(error["status"], "PERMISSION_DENIED");
    assert_eq!(error["details"][0]["reason"], "SERVICE_DISABLED");
}

#[tokio::test]
async fn who_ramps_up_too_fast_is_refused() {
    let sim = Sim::with(|settings| settings.fcm_ramp_per_second = Some(5)).await;
    let (client, bearer) = sim.fcm().await;
    let mut refused = 0;
    for _ in 0..20 {
        refused += u32::from(client.answer(&Push::fcm(&bearer, "t")).await.status == 503);
    }
    // On a machine that is slow enough the burst may span two seconds.
    assert!(refused >= 5, "{refused}");
}
