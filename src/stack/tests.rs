//! Each layer alone, in front of a service that is played by hand.

use std::sync::atomic::{AtomicU64, Ordering};

use pushyard_providers::{Outcome, Part, Payload, Processed, Template, Written};
use tower::ServiceExt;
use tower_test::mock::{Handle, Mock, pair};

use super::*;
use crate::clock::Clock;
use crate::routing::testing::{Fake, catalog, recipient, settings};
use crate::routing::{Board, Keys, Pass};

const VENDOR: ProviderIndex = ProviderIndex(0);
const S: Duration = Duration::from_secs(1);

type Inner = tower::util::MapErr<Mock<Attempt, Answer>, fn(tower::BoxError) -> Refused>;

/// What a layer is put around, and the hand that plays it.
fn inner() -> (Inner, Handle<Attempt, Answer>) {
    let (mock, handle) = pair();
    (mock.map_err(|_| Refused), handle)
}

fn attempt() -> Attempt {
    let now = Clock::default().now().instant;
    let catalog = catalog(vec![settings("vendor")], Vec::new());
    let mut board = Board::new(&catalog, now);
    let keys: Keys = std::iter::once(board.key(VENDOR, &Part::Provider, now)).collect();
    let permit = board.admit(VENDOR, &keys, Pass::Usual, now).unwrap();
    let call = Call {
        payload: Arc::new(Payload {
            body: Template::new(&serde_json::json!({})),
            headers: Vec::new(),
            detail: None,
        }),
        address: recipient(&[("token", "")]).addresses[0].clone(),
        delivery: uuid::Uuid::nil(),
        reference: None,
        pushyard: "".into(),
        ttl: S,
        expires_at: 1,
        written: Written::default(),
    };
    Attempt { permit, call }
}

fn refused(credential: u64) -> Answer {
    let mut answer = Answer::new(Outcome::AuthFailed);
    (answer.refreshable, answer.credential) = (true, credential);
    answer
}

/// Plays the service behind a layer: answers its calls in this order, and says how many
/// were made.
async fn played<S>(
    layer: S,
    mut handle: Handle<Attempt, Answer>,
    answers: Vec<Answer>,
) -> (Result<Answer, Refused>, usize)
where
    S: Service<Attempt, Response = Answer, Error = Refused> + Send + 'static,
    S::Future: Send,
{
    let play = async {
        let mut calls = 0;
        for answer in answers {
            let Some((attempt, send)) = handle.next_request().await else { break };
            attempt.call.written.set();
            calls += 1;
            send.send_response(answer);
        }
        // One call more would end as an error, and not as a test without an end.
        drop(handle);
        calls
    };
    tokio::join!(layer.oneshot(attempt()), play)
}

#[tokio::test]
async fn a_permit_of_another_provider_lets_no_call_through() {
    for (provider, passes) in [(VENDOR, true), (ProviderIndex(1), false)] {
        let (inner, handle) = inner();
        let layer = admit::Admit { inner, provider };
        let answers = if passes { vec![Answer::new(Outcome::Accepted)] } else { Vec::new() };
        let (answer, calls) = played(layer, handle, answers).await;
        assert_eq!(answer.is_ok(), passes);
        assert_eq!(calls, usize::from(passes));
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_without_an_answer_is_cut_and_ambiguous_only_where_a_byte_had_left() {
    for (written, outcome, processed) in
        [(true, Outcome::Ambiguous, Processed::Maybe), (false, Outcome::Unavailable, Processed::No)]
    {
        let (inner, mut handle) = inner();
        let layer = deadline::Deadline { inner, timeout: 10 * S };
        let silent = async {
            let request = handle.next_request().await.unwrap();
            if written {
                request.0.call.written.set();
            }
            request
        };
        let (answer, _unanswered) = tokio::join!(layer.oneshot(attempt()), silent);
        let answer = answer.unwrap();
        assert_eq!((answer.outcome, answer.processed), (outcome, processed));
        assert_eq!(answer.code.as_deref(), Some("timeout"));
        assert_eq!(answer.detail.as_deref(), Some("no answer within 10s"));
    }
}

#[tokio::test]
async fn a_refused_credential_is_renewed_once_and_the_call_repeated_once() {
    let accepted = || Answer::new(Outcome::Accepted);
    let not_refreshable = || Answer::new(Outcome::AuthFailed);
    for (renews, answers, outcome, refreshes) in [
        (true, vec![accepted()], Outcome::Accepted, vec![]),
        (true, vec![refused(7), accepted()], Outcome::Accepted, vec![7]),
        (true, vec![refused(7), refused(8)], Outcome::AuthFailed, vec![7]),
        (false, vec![refused(7)], Outcome::AuthFailed, vec![7]),
        (true, vec![not_refreshable()], Outcome::AuthFailed, vec![]),
    ] {
        let (inner, handle) = inner();
        let provider = Arc::new(Fake::new(renews));
        let layer = reauthenticate::Reauthenticate { inner, provider: provider.clone() };
        let expected = answers.len();
        let (answer, calls) = played(layer, handle, answers).await;
        assert_eq!(answer.unwrap().outcome, outcome);
        assert_eq!((calls, &*provider.refused.lock().unwrap()), (expected, &refreshes));
    }
}

#[tokio::test]
async fn what_the_peer_certainly_did_not_process_is_repeated_once_and_nothing_else() {
    let of = |processed| Answer::new(Outcome::Unavailable).processed(processed);
    for (answers, calls) in [
        (vec![of(Processed::No), Answer::new(Outcome::Accepted)], 2),
        (vec![of(Processed::No), of(Processed::No)], 2),
        (vec![of(Processed::Maybe)], 1),
        (vec![of(Processed::Yes)], 1),
    ] {
        let (inner, handle) = inner();
        let layer = repeat::RepeatUnprocessed { inner };
        let last = answers.last().map(|answer| answer.outcome);
        let (answer, made) = played(layer, handle, answers).await;
        assert_eq!((answer.ok().map(|answer| answer.outcome), made), (last, calls));
    }
}

#[tokio::test]
async fn what_never_reached_a_connection_is_left_to_failover() {
    let (inner, mut handle) = inner();
    let layer = repeat::RepeatUnprocessed { inner };
    let play = async {
        let (_, send) = handle.next_request().await.unwrap();
        send.send_response(Answer::new(Outcome::Unavailable).processed(Processed::No));
        drop(handle);
    };
    let (answer, ()) = tokio::join!(layer.oneshot(attempt()), play);
    assert_eq!(answer.unwrap().outcome, Outcome::Unavailable);
}

#[tokio::test]
async fn every_answer_is_measured_once_and_a_refusal_is_no_answer() {
    let measured = Arc::new(AtomicU64::new(0));
    let seen = measured.clone();
    let meter = Meter {
        clock: Arc::new(Clock::default()),
        record: Arc::new(move |outcome, _| {
            assert_eq!(outcome, Outcome::Throttled);
            seen.fetch_add(1, Ordering::Relaxed);
        }),
    };
    let (service, handle) = inner();
    let layer = observe::Observe { inner: service, meter: meter.clone() };
    let (answer, _) = played(layer, handle, vec![Answer::new(Outcome::Throttled)]).await;
    assert_eq!(answer.unwrap().outcome, Outcome::Throttled);
    assert_eq!(measured.load(Ordering::Relaxed), 1);

    let (service, handle) = inner();
    let admits = admit::Admit { inner: service, provider: ProviderIndex(1) };
    let layer = observe::Observe { inner: admits, meter };
    let (answer, _) = played(layer, handle, Vec::new()).await;
    assert_eq!(answer.unwrap_err(), Refused);
    assert_eq!(measured.load(Ordering::Relaxed), 1);
}
