//! Provider tokens: short-lived ES256 JWTs that Apple takes as a credential
//! (Apple, "Establishing a token-based connection to APNs").
//!
//! Apple refuses a token that is older than an hour and punishes a new one
//! sooner than 20 minutes after the last, and it counts by account: a second
//! replica, or a process that restarts every minute, is one more updater. So
//! `iat` is rounded down to a half hour, where replicas agree without talking
//! to each other, and it outlives restarts ([`TokenMint::memo`]). A token signed
//! again with the same claims is the same token to Apple.
//!
//! Signing takes 25 µs and happens under the lock: that is what makes it happen
//! once, whoever asks. When it fails, or is not allowed now, the old token
//! serves on.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair,
    RsaKeyPair,
};
use http::HeaderValue;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rustls_pki_types::PrivatePkcs8KeyDer;
use rustls_pki_types::pem::PemObject;
use serde::Serialize;

use crate::clock::Clock;

/// `iat` is rounded down to this.
const GRID_S: u64 = 30 * 60;

/// Apple takes a new token no sooner than this after the last.
const SPACING_S: u64 = 20 * 60;

/// A token is renewed at this age. With the grid and the spacing, none is used
/// beyond 50 minutes; Apple refuses it at 60.
const RENEW_AT_S: u64 = 45 * 60;

/// The age at which Apple refuses a token.
const DEAD_AT_S: u64 = 60 * 60;

/// A remembered `iat` this far ahead of our clock is still believed: replicas'
/// clocks differ a little.
const AHEAD_S: u64 = 60;

/// The provider tokens of one key.
pub struct TokenMint {
    key: EncodingKey,
    key_id: String,
    team_id: String,
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
}

/// A provider token in use.
#[derive(Clone, Debug)]
pub struct ProviderToken {
    /// `bearer …`, marked sensitive.
    pub authorization: HeaderValue,
    /// Rises with each token; the first is 1.
    pub generation: u64,
}

#[derive(Default)]
struct State {
    present: Option<Minted>,
    /// What `present` replaced: Apple may tell us to go back to it.
    previous: Option<Minted>,
    generation: u64,
    /// The `iat` to begin with, kept over a restart.
    remembered: Option<u64>,
    /// No new `iat` before this, unix seconds.
    not_before: u64,
}

#[derive(Clone)]
struct Minted {
    token: ProviderToken,
    iat: u64,
}

#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    iat: u64,
}

impl TokenMint {
    /// Takes a key over; signs nothing yet. `memo` is what [`TokenMint::memo`]
    /// gave before a restart.
    ///
    /// # Errors
    /// What the key is instead of one, and what to do, without showing it.
    pub fn new(
        key: &str,
        key_id: &str,
        team_id: &str,
        memo: Option<&str>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, String> {
        let state =
            State { remembered: memo.and_then(|text| text.parse().ok()), ..State::default() };
        Ok(Self {
            key: signing_key(key)?,
            key_id: key_id.to_owned(),
            team_id: team_id.to_owned(),
            clock,
            state: Mutex::new(state),
        })
    }

    /// The token to use now.
    ///
    /// # Errors
    /// Why none could be signed when there is no earlier one either.
    pub fn token(&self) -> Result<ProviderToken, String> {
        let now = self.clock.unix_s();
        let mut state = self.state();
        if let Some(present) = &state.present
            && (now < present.iat + RENEW_AT_S || now < state.not_before)
        {
            return Ok(present.token.clone());
        }
        let minted = match &state.present {
            None => self.first(&mut state, now),
            Some(_) => self.mint(&mut state, grid(now), now),
        };
        match (minted, &state.present) {
            (Ok(token), _) => Ok(token),
            (Err(_), Some(old)) => Ok(old.token.clone()),
            (Err(error), None) => Err(error),
        }
    }

    /// Replaces a token that was refused as too old. `used` is the generation
    /// that the refused call carried: when the present one is newer, `true` at
    /// once. `false` when a new one may not be signed yet: then the token was
    /// young, and one of the clocks is wrong.
    pub fn refresh(&self, used: u64) -> bool {
        let now = self.clock.unix_s();
        let mut state = self.state();
        if state.generation > used {
            return true;
        }
        if now < state.not_before {
            return false;
        }
        // Apple does not take the claims of the present one: they must change.
        let same = state.present.as_ref().is_some_and(|present| present.iat == grid(now));
        let iat = if same { now } else { grid(now) };
        self.mint(&mut state, iat, now).is_ok()
    }

    /// Whether [`TokenMint::refresh`] would come to a newer token.
    pub fn can_refresh(&self, used: u64) -> bool {
        let now = self.clock.unix_s();
        let state = self.state();
        state.generation > used || now >= state.not_before
    }

    /// Apple counted too many new tokens when it saw this one: signs none for
    /// 20 minutes, and goes back to the one before while that is good.
    pub fn hold(&self, used: u64) {
        let now = self.clock.unix_s();
        let mut state = self.state();
        if state.generation != used {
            return; // a call of earlier; what it complains of has passed
        }
        state.not_before = now + SPACING_S;
        if let Some(mut previous) = state.previous.take()
            && now < previous.iat + DEAD_AT_S
        {
            state.generation += 1;
            previous.token.generation = state.generation;
            state.present = Some(previous);
        }
    }

    /// What must outlive a restart: the present `iat`, unix seconds.
    pub fn memo(&self) -> Option<String> {
        let state = self.state();
        let iat = state.present.as_ref().map(|present| present.iat).or(state.remembered);
        iat.map(|iat| iat.to_string())
    }

    /// The first token of this process: the one of before the restart, signed
    /// again, while it is not due.
    fn first(&self, state: &mut State, now: u64) -> Result<ProviderToken, String> {
        // It was signed at some time of its half hour, or a moment ago.
        let good = |iat: &u64| *iat <= now + AHEAD_S && now < iat + GRID_S + SPACING_S;
        match state.remembered.filter(good) {
            Some(iat) => self.mint(state, iat, now.min(iat + GRID_S)),
            None => self.mint(state, grid(now), now),
        }
    }

    /// Signs a token whose claims Apple first saw at `signed`.
    fn mint(&self, state: &mut State, iat: u64, signed: u64) -> Result<ProviderToken, String> {
        let text = self.sign(iat)?;
        let mut authorization = HeaderValue::try_from(format!("bearer {text}"))
            .map_err(|_| "the signed token cannot stand in a header".to_owned())?;
        authorization.set_sensitive(true);
        state.generation += 1;
        let token = ProviderToken { authorization, generation: state.generation };
        let minted = Minted { token: token.clone(), iat };
        state.previous = state.present.replace(minted);
        state.not_before = signed + SPACING_S;
        Ok(token)
    }

    fn sign(&self, iat: u64) -> Result<String, String> {
        let mut header = Header::new(Algorithm::ES256);
        header.typ = None;
        header.kid = Some(self.key_id.clone());
        jsonwebtoken::encode(&header, &Claims { iss: &self.team_id, iat }, &self.key)
            .map_err(|error| format!("signing failed: {error}"))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for TokenMint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TokenMint(key {} of team {})", self.key_id, self.team_id)
    }
}

fn grid(now: u64) -> u64 {
    now - now % GRID_S
}

const EXPECTED: &str =
    "expected PKCS#8 PEM (BEGIN PRIVATE KEY), the .p8 file as Apple hands it out";

/// Reads a P-256 key, or says what the text is instead.
fn signing_key(pem: &str) -> Result<EncodingKey, String> {
    for (label, what) in [
        ("BEGIN CERTIFICATE", "is a certificate (that is for `certificate` and `certificate_key`)"),
        (
            "BEGIN EC PRIVATE KEY",
            "is an EC key in SEC1 form (`openssl pkcs8 -topk8 -nocrypt` converts it)",
        ),
        ("BEGIN RSA PRIVATE KEY", "is an RSA key"),
        ("BEGIN ENCRYPTED PRIVATE KEY", "is encrypted"),
        ("BEGIN PUBLIC KEY", "is a public key"),
    ] {
        if pem.contains(label) {
            return Err(format!("{what}; {EXPECTED}"));
        }
    }
    let der = PrivatePkcs8KeyDer::from_pem_slice(pem.as_bytes())
        .map_err(|_| format!("is not readable as PEM; {EXPECTED}"))?;
    let der = der.secret_pkcs8_der();
    if EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der).is_ok() {
        return Ok(EncodingKey::from_ec_der(der));
    }
    let what = if RsaKeyPair::from_pkcs8(der).is_ok() {
        "is an RSA key"
    } else if EcdsaKeyPair::from_pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING, der).is_ok() {
        "is a key on the curve P-384, not P-256"
    } else if Ed25519KeyPair::from_pkcs8_maybe_unchecked(der).is_ok() {
        "is an Ed25519 key"
    } else {
        "holds no P-256 key"
    };
    Err(format!("{what}; {EXPECTED}"))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use aws_lc_rs::signature::{
        ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _,
        UnparsedPublicKey,
    };
    use base64::Engine as _;
    use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64;
    use rustls_pki_types::PrivatePkcs8KeyDer;
    use rustls_pki_types::pem::PemObject;

    use super::TokenMint;
    use crate::clock::Clock;

    /// A key made for tests, with a token that it signed by RFC 6979.
    const KEY: &str = "-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgjXgGwKE4/danoVde
D6ogLi8+XWmO5oxlrsMjxdbs25ihRANCAAS5k70661YQhQTvPqOgr8h12d8ZOH6l
AWGODZloYcDSsbCZ0TgwhiO8O+xBY2cTw/TOYiFrPjDUDbakCzxoSsyz
-----END PRIVATE KEY-----";
    const VECTOR: &str = "eyJhbGciOiJFUzI1NiIsImtpZCI6IkFCQzEyM0RFRkcifQ.eyJpc3MiOiJERUYxMjNHSElKIiwiaWF0IjoxNzAwMDAwMDAwfQ.TsSrS_UibDo-ilIeqaD_BrSZYaPrYTD1ApCqs2840OapnTy_C3NvfSsvtd4D-s5t4E-MlN3SLe1OKpFN3usI9A";

    /// A half hour's beginning, so that tests can count in minutes from it.
    const START: u64 = 1_700_000_000 - 1_700_000_000 % 1800;

    #[derive(Default)]
    struct Minutes(AtomicU64);

    impl Clock for Minutes {
        fn unix_ms(&self) -> u64 {
            (START + self.0.load(Ordering::Relaxed) * 60) * 1000
        }
    }

    impl Minutes {
        fn set(&self, minutes: u64) {
            self.0.store(minutes, Ordering::Relaxed);
        }
    }

    fn mint(memo: Option<&str>) -> (TokenMint, Arc<Minutes>) {
        let clock = Arc::new(Minutes::default());
        let mint = TokenMint::new(KEY, "ABC123DEFG", "DEF123GHIJ", memo, clock.clone()).unwrap();
        (mint, clock)
    }

    /// The present token's `iat`, in minutes after [`START`].
    fn iat(mint: &TokenMint) -> i64 {
        let token = mint.token().unwrap();
        let text = token.authorization.to_str().unwrap();
        let claims = BASE64.decode(text.split('.').nth(1).unwrap()).unwrap();
        let claims: serde_json::Value = serde_json::from_slice(&claims).unwrap();
        (claims["iat"].as_i64().unwrap() - START as i64) / 60
    }

    fn verify(token: &str) {
        let der = PrivatePkcs8KeyDer::from_pem_slice(KEY.as_bytes()).unwrap();
        let pair =
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der.secret_pkcs8_der())
                .unwrap();
        let public = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, pair.public_key().as_ref());
        let (message, signature) = token.rsplit_once('.').unwrap();
        let signature = BASE64.decode(signature).unwrap();
        assert_eq!(signature.len(), 64);
        public.verify(message.as_bytes(), &signature).unwrap();
    }

    #[test]
    fn a_token_has_the_vectors_text_and_a_signature_of_the_same_key() {
        verify(VECTOR);
        let ours = mint(None).0.sign(1_700_000_000).unwrap();
        verify(&ours);
        assert_eq!(ours.rsplit_once('.').unwrap().0, VECTOR.rsplit_once('.').unwrap().0);
    }

    #[test]
    fn tokens_are_kept_renewed_in_time_and_never_within_20_minutes() {
        // (first use, then every minute): how long after `iat` and after the
        // last signing a new one comes.
        for first in 0..60 {
            let (mint, clock) = mint(None);
            let (mut last_iat, mut last_signed, mut generation) = (0, first as i64, 0);
            for minute in first..first + 300 {
                clock.set(minute);
                let (iat, used) = (iat(&mint), mint.token().unwrap().generation);
                let minute = minute as i64;
                assert!(minute - iat <= 50, "{minute}: {iat}");
                if used != generation && generation != 0 {
                    assert!(minute - last_signed >= 20 && minute - last_iat >= 45);
                    last_signed = minute;
                }
                assert!(used == generation || used == generation + 1);
                (last_iat, generation) = (iat, used);
            }
        }
    }

    #[test]
    fn replicas_that_start_within_a_half_hour_agree_on_iat() {
        for minutes in [0, 1, 29] {
            let (mint, clock) = mint(None);
            clock.set(minutes);
            assert_eq!(iat(&mint), 0);
        }
    }

    #[test]
    fn restarts_in_quick_succession_keep_iat_until_it_is_due() {
        let (first, clock) = mint(None);
        assert_eq!(first.memo(), None);
        clock.set(10);
        assert_eq!(iat(&first), 0);
        let memo = first.memo().unwrap();
        assert_eq!(memo, START.to_string());
        for (restarted_at, expected) in [(11, 0), (35, 0), (44, 0), (51, 30), (500, 480)] {
            let (again, clock) = mint(Some(&memo));
            clock.set(restarted_at);
            assert_eq!(again.memo().unwrap(), memo);
            assert_eq!(iat(&again), expected, "{restarted_at}");
        }
        // Of a clock that was set back, or unreadable.
        let ahead = (START + 7200).to_string();
        for memo in [ahead.as_str(), "yesterday", "-1", ""] {
            assert_eq!(iat(&mint(Some(memo)).0), 0);
        }
    }

    #[test]
    fn a_restart_does_not_shorten_the_20_minutes() {
        let (mint, clock) = mint(Some(&START.to_string()));
        clock.set(29);
        assert_eq!(iat(&mint), 0);
        for (minute, expected) in [(45, 0), (48, 0), (49, 30)] {
            clock.set(minute);
            assert_eq!(iat(&mint), expected, "{minute}");
        }
    }

    #[test]
    fn a_refresh_is_made_once_and_not_of_a_young_token() {
        let (mint, clock) = mint(None);
        clock.set(1);
        let old = mint.token().unwrap().generation;
        assert_eq!(old, 1);
        clock.set(20);
        assert!(!mint.can_refresh(old) && !mint.refresh(old));
        clock.set(21);
        assert!(mint.can_refresh(old) && mint.refresh(old));
        assert_eq!((mint.token().unwrap().generation, iat(&mint)), (2, 21));
        // All others that were refused with the old one find the new one.
        assert!(mint.refresh(old));
        assert_eq!(mint.token().unwrap().generation, 2);
        assert!(!mint.refresh(2));
    }

    #[test]
    fn too_many_updates_stop_signing_and_bring_the_earlier_token_back() {
        let (mint, clock) = mint(None);
        let first = mint.token().unwrap();
        clock.set(46);
        let second = mint.token().unwrap();
        assert_eq!((second.generation, iat(&mint)), (2, 30));
        mint.hold(1); // an answer to an earlier call
        assert_eq!(mint.token().unwrap().generation, 2);
        mint.hold(2);
        let back = mint.token().unwrap();
        assert_eq!((back.generation, &back.authorization), (3, &first.authorization));
        clock.set(65);
        assert!(!mint.refresh(3));
        assert_eq!(mint.token().unwrap().generation, 3);
        clock.set(66);
        assert_eq!((mint.token().unwrap().generation, iat(&mint)), (4, 60));
    }

    #[test]
    fn a_key_that_is_none_is_named_and_not_shown() {
        let rsa = rcgen::KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap().serialize_pem();
        let p384 =
            rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap().serialize_pem();
        let ed = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap().serialize_pem();
        for (text, says) in [
            ("c2VjcmV0", "is not readable as PEM"),
            ("", "is not readable as PEM"),
            (rsa.as_str(), "is an RSA key"),
            (&p384, "P-384"),
            (&ed, "Ed25519"),
            ("-----BEGIN CERTIFICATE-----\nc2VjcmV0\n-----END CERTIFICATE-----", "certificate"),
            ("-----BEGIN EC PRIVATE KEY-----\nc2VjcmV0\n-----END EC PRIVATE KEY-----", "SEC1"),
            ("-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----", "no P-256 key"),
        ] {
            let clock = Arc::new(Minutes::default());
            let error = TokenMint::new(text, "ABC123DEFG", "DEF123GHIJ", None, clock).unwrap_err();
            assert!(error.contains(says), "{error}");
            assert!(error.contains("expected PKCS#8 PEM (BEGIN PRIVATE KEY)"), "{error}");
            assert!(!error.contains("c2VjcmV0"), "{error}");
        }
    }
}
