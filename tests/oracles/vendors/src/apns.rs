//! Payloads and options: `a2`'s builders against ours.

use a2::request::notification::{
    CollapseId, NotificationOptions, Priority as TheirPriority, PushType, WebPushAlert,
};
use a2::request::payload::PayloadLike;
use a2::{DefaultNotificationBuilder, NotificationBuilder, WebNotificationBuilder};
use pushyard_providers::{Notification, Provider};
use serde_json::{Value, json};

use crate::Report;
use crate::ours::{self, BUNDLE, EXPIRES, TOKEN};

pub fn compare(report: &mut Report) {
    let provider = ours::apns(None, None);
    let text = |text: &str| Some(text.to_owned());
    let shown =
        Notification { title: text("Paid"), body: text("Order 7"), ..Notification::default() };
    let base = || DefaultNotificationBuilder::new().set_title("Paid").set_body("Order 7");
    let patch = |aps: Value| Some(("apns", json!({ "aps": aps })));
    let alert = |alert: Value| patch(json!({ "alert": alert }));

    let mut same = |what: &str, push, theirs: Value| {
        let (_, ours) = ours::request(&*provider, &push, &[("token", TOKEN)]);
        report.same(what, &without_ours(ours), &without_theirs(theirs));
    };
    same("title and body", ours::push(Some(shown.clone()), &[], None), json_of(base()));
    same(
        "a body alone",
        ours::push(Some(Notification { title: None, ..shown.clone() }), &[], None),
        json_of(DefaultNotificationBuilder::new().set_body("Order 7")),
    );
    same(
        "sound, badge, category, an image",
        ours::push(
            Some(Notification {
                sound: text("ping.caf"),
                badge: Some(3),
                category: text("order"),
                image: text("https://example.com/7.png"),
                ..shown.clone()
            }),
            &[],
            None,
        ),
        with(
            json_of(
                base()
                    .set_sound("ping.caf")
                    .set_badge(3)
                    .set_category("order")
                    .set_mutable_content(),
            ),
            // Ours tells the extension what to fetch.
            json!({"image": "https://example.com/7.png"}),
        ),
    );
    same(
        "a badge of 0",
        ours::push(Some(Notification { badge: Some(0), ..Notification::default() }), &[], None),
        json_of(DefaultNotificationBuilder::new().set_badge(0)),
    );
    same(
        "data alone",
        ours::push(None, &[("order", "7")], None),
        with(
            json_of(DefaultNotificationBuilder::new().set_content_available()),
            json!({"order": "7"}),
        ),
    );
    let mut custom = base().build(TOKEN, NotificationOptions::default());
    custom.add_custom_data("order", &"7").expect("a text serialises");
    same(
        "data beside a notification",
        ours::push(Some(shown.clone()), &[("order", "7")], None),
        serde_json::to_value(&custom).expect("it serialises"),
    );
    same(
        "a critical sound",
        ours::push(
            Some(shown.clone()),
            &[],
            patch(json!({"sound": {"critical": 1, "name": "alarm.caf", "volume": 0.5}})),
        ),
        json_of(base().set_sound("alarm.caf").set_critical(true, Some(0.5))),
    );
    same(
        "localised texts",
        ours::push(
            Some(shown.clone()),
            &[],
            alert(
                json!({"subtitle": "S", "title-loc-key": "T", "title-loc-args": ["a"], "loc-key": "L",
                         "loc-args": ["b", "c"], "action-loc-key": "A", "launch-image": "l.png"}),
            ),
        ),
        json_of(
            base()
                .set_subtitle("S")
                .set_title_loc_key("T")
                .set_title_loc_args(&["a"])
                .set_loc_key("L")
                .set_loc_args(&["b", "c"])
                .set_action_loc_key("A")
                .set_launch_image("l.png"),
        ),
    );
    let web = WebPushAlert { title: "Paid", body: "Order 7", action: "View" };
    same(
        "a website push",
        ours::push(
            Some(shown.clone()),
            &[],
            patch(json!({"alert": {"action": "View"}, "url-args": ["7"]})),
        ),
        json_of(WebNotificationBuilder::new(web, &["7"])),
    );
    options(report, &*provider);
}

/// Their options against our headers.
fn options(report: &mut Report, provider: &dyn Provider) {
    let shown = Notification { title: Some("Paid".into()), ..Notification::default() };
    let id = ours::DELIVERY.as_hyphenated().to_string();
    let theirs = NotificationOptions {
        apns_id: Some(&id),
        apns_push_type: Some(PushType::Alert),
        apns_expiration: Some(EXPIRES),
        apns_priority: Some(TheirPriority::High),
        apns_topic: Some(BUNDLE),
        apns_collapse_id: CollapseId::new("order-7").ok(),
    };
    let mut push = ours::push(Some(shown.clone()), &[], None);
    push.collapse_key = Some("order-7".into());
    let (request, _) = ours::request(provider, &push, &[("token", TOKEN)]);
    report.same("headers of an alert", &headers(&request.headers), &their_headers(&theirs));
    report.same("the path", &request.uri.path().into(), &format!("/3/device/{TOKEN}").into());
    // What `a2` would refuse, ours shortens; both stay within 64 bytes.
    push.collapse_key = Some("x".repeat(65));
    let (request, _) = ours::request(provider, &push, &[("token", TOKEN)]);
    let fits =
        request.headers["apns-collapse-id"].to_str().is_ok_and(|id| CollapseId::new(id).is_ok());
    report.same("a collapse key of 65 bytes", &fits.into(), &true.into());

    let silent = NotificationOptions {
        apns_push_type: Some(PushType::Background),
        apns_priority: Some(TheirPriority::Normal),
        apns_collapse_id: CollapseId::new(&id).ok(),
        ..theirs.clone()
    };
    let (request, _) =
        ours::request(provider, &ours::push(None, &[("a", "b")], None), &[("token", TOKEN)]);
    report.same(
        "headers of a background push",
        &headers(&request.headers),
        &their_headers(&silent),
    );

    // The topic's suffix is left to the sender there; the type is one word in both.
    for (push_type, suffix) in [
        (PushType::Alert, ""),
        (PushType::Background, ""),
        (PushType::Location, ".location-query"),
        (PushType::Voip, ".voip"),
        (PushType::FileProvider, ".pushkit.fileprovider"),
        (PushType::Mdm, ""),
        (PushType::LiveActivity, ".push-type.liveactivity"),
        (PushType::PushToTalk, ".voip-ptt"),
    ] {
        let word = push_type.to_string();
        let patch = json!({"headers": {"apns-push-type": word}});
        let push = ours::push(Some(shown.clone()), &[], Some(("apns", patch)));
        let (request, _) = ours::request(provider, &push, &[("token", TOKEN)]);
        let header = |name: &str| request.headers[name].to_str().unwrap_or_default().to_owned();
        report.same(
            &format!("push type {word}"),
            &json!([header("apns-push-type"), header("apns-topic")]),
            &json!([word, format!("{BUNDLE}{suffix}")]),
        );
    }
}

fn json_of<'a>(builder: impl NotificationBuilder<'a>) -> Value {
    let payload = builder.build(TOKEN, NotificationOptions::default());
    let text = payload.to_json_string().expect("it serialises");
    serde_json::from_str(&text).expect("it is JSON")
}

fn with(mut value: Value, more: Value) -> Value {
    let (Value::Object(root), Value::Object(more)) = (&mut value, more) else { return value };
    root.extend(more);
    value
}

/// The string that every payload of ours carries.
fn without_ours(mut body: Value) -> Value {
    let carried = body.as_object_mut().and_then(|root| root.remove("pushyard"));
    assert_eq!(carried, Some("id.secret".into()));
    body
}

/// Two forms that Apple ("Generating a remote notification") takes for the same. The
/// default builder always writes `mutable-content`, 0 where it was not asked for; and it
/// writes an alert of nothing but a body as a string.
fn without_theirs(mut body: Value) -> Value {
    if let Some(text) = body["aps"]["alert"].as_str() {
        body["aps"]["alert"] = json!({ "body": text });
    }
    if body["aps"]["mutable-content"] == json!(0)
        && let Some(aps) = body["aps"].as_object_mut()
    {
        aps.remove("mutable-content");
    }
    body
}

fn headers(map: &http::HeaderMap) -> Value {
    let apns = map.iter().filter(|(name, _)| name.as_str().starts_with("apns-"));
    apns.map(|(name, value)| (name.to_string(), Value::from(value.to_str().unwrap_or_default())))
        .collect()
}

/// As `a2`'s client writes them (its `client.rs`, `build_request`).
fn their_headers(options: &NotificationOptions<'_>) -> Value {
    let all = [
        ("apns-id", options.apns_id.map(str::to_owned)),
        ("apns-push-type", options.apns_push_type.map(|word| word.to_string())),
        ("apns-expiration", options.apns_expiration.map(|at| at.to_string())),
        ("apns-priority", options.apns_priority.as_ref().map(|one| one.to_string())),
        ("apns-topic", options.apns_topic.map(str::to_owned)),
        ("apns-collapse-id", options.apns_collapse_id.as_ref().map(|id| id.value.to_owned())),
    ];
    all.into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), Value::from(value?))))
        .collect()
}
