//! A webhook of the operator's own, signed by Standard Webhooks: whatever the
//! receiver makes of a push (another chat system, a bridge, a queue).
//!
//! `webhook-id` is the delivery id, the same for every attempt. A receiver that
//! follows the specification drops a repeat, hence [`Dedup::Full`]. The endpoint is
//! the operator's and trusted; redirects are not followed. Nothing in the protocol
//! asks after health, so there is no probe: real calls tell.

mod answer;
mod payload;

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};

use crate::address::{Field, FieldError, Need};
use crate::auth::standard_webhooks::{ID, SIGNATURE, Signer, TIMESTAMP};
use crate::http::channel::{Channel, CredentialSeen, INSECURE_HTTP, gauge, invalid};
use crate::registry::{Context, Kind};
use crate::settings::{Setting, SettingError, Shape};
use crate::{
    Address, Answer, Call, Dedup, Gauge, Invalid, Outcome, Payload, ProbeProfile, Processed,
    Profile, Proves, Provider, Push, VendorRequest,
};

/// The kind.
pub static KIND: Kind = Kind {
    name: "webhook",
    fields: &[Field { name: "id", need: Need::Optional }],
    check_address,
    settings: &[Setting { name: "secret", shape: Shape::Secrets, required: true }, INSECURE_HTTP],
    build: |context| Ok(Arc::new(Webhook::new(&context)?)),
};

/// Our own bound: an id names a recipient to the receiver, and is not content.
const MAX_ID: usize = 255;

static PROFILE: Profile = Profile {
    kind: "webhook",
    dedup: Dedup::Full,
    min_retry: Duration::ZERO,
    probe: ProbeProfile {
        proves: Proves::Nothing,
        min_interval: Duration::from_secs(60),
        only_when_quiet: true,
    },
    ping_interval: None,
};

struct Webhook {
    channel: Channel,
    uri: Uri,
    signer: Signer,
    /// Whether the signature was taken the last time.
    credential: CredentialSeen,
}

impl Webhook {
    fn new(context: &Context) -> Result<Self, Vec<SettingError>> {
        let mut errors = Vec::new();
        let signer = Signer::new(context.values.secrets("secret"))
            .map_err(|detail| errors.push(SettingError::new("secret", detail)));
        let channel = Channel::new(context, "https://example.com/push").and_then(|channel| {
            // The endpoint itself, with its slash at the end if it has one.
            let uri = context.endpoint.as_ref().map_or_else(String::new, ToString::to_string);
            let uri = Uri::try_from(uri);
            let uri = uri.map_err(|error| SettingError::new("endpoint", error.to_string()))?;
            Ok((channel, uri))
        });
        match (channel, signer) {
            (Ok((channel, uri)), Ok(signer)) => {
                Ok(Self { channel, uri, signer, credential: CredentialSeen::new() })
            }
            (Ok(_), Err(())) => Err(errors),
            (Err(error), _) => {
                errors.push(error);
                Err(errors)
            }
        }
    }

    /// Signs the bytes that go out, with the time of this attempt.
    fn sign(&self, call: &Call, mut request: VendorRequest) -> VendorRequest {
        let now = self.channel.clock.unix_s();
        let mut signature = self.signer.sign(&call.delivery.to_string(), now, &request.body);
        signature.set_sensitive(true);
        request.headers.insert(TIMESTAMP, HeaderValue::from(now));
        request.headers.insert(SIGNATURE, signature);
        request
    }
}

impl Provider for Webhook {
    fn profile(&self) -> &Profile {
        &PROFILE
    }

    fn encode(&self, push: &Push) -> Result<Payload, Invalid> {
        payload::encode(push)
    }

    fn request(&self, call: &Call) -> Result<VendorRequest, Invalid> {
        let mut headers: HeaderMap = call.payload.headers.iter().cloned().collect();
        let id = HeaderValue::try_from(call.delivery.to_string())
            .map_err(|_| invalid("internal", "the delivery id cannot stand in a header"))?;
        headers.insert(ID, id);
        let body = payload::body(call)?;
        Ok(VendorRequest { method: Method::POST, uri: self.uri.clone(), headers, body })
    }

    fn credential_headers(&self) -> Vec<HeaderName> {
        vec![TIMESTAMP, SIGNATURE]
    }

    fn send<'a>(&'a self, call: &'a Call) -> BoxFuture<'a, Answer> {
        async move {
            let request = match self.request(call) {
                Ok(request) => self.sign(call, request),
                Err(invalid) => return Answer::from(&invalid),
            };
            self.credential.note(self.channel.push(request, &call.written, answer::classify).await)
        }
        .boxed()
    }

    fn probe(&self) -> BoxFuture<'_, Answer> {
        // Never asked for: the profile says that a probe proves nothing.
        async { Answer::new(Outcome::Unavailable).code("no_probe").processed(Processed::No) }
            .boxed()
    }

    fn gauge(&self) -> Gauge {
        gauge("secret", self.credential.ok())
    }
}

fn check_address(address: &Address) -> Result<(), FieldError> {
    match address.get("id") {
        Some(id) if id.len() > MAX_ID => Err(FieldError::new("id", "must have at most 255 bytes")),
        Some(_) | None => Ok(()),
    }
}
