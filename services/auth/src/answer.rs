//! What is answered to a server that asks who may come in: the format of the auth callout (ADR-26 of NATS). Pure: one
//! question in, one answer out.

use roam_nats::{ClientLimits, PermissionTables, Permissions};
use roam_schemas::TokenId;
use serde::{Deserialize, Serialize};

use crate::{
    jwt::{KeyError, Parts, SigningKey, VerifyingKey},
    oidc::Providers,
    revoked::Revoked,
    token::{Token, TokenError, Tokens},
};

/// What a question is for, in its claims.
const AUDIENCE: &str = "nats-authorization-request";
/// The account that clients are let into, as the servers' configuration names it.
const ACCOUNT: &str = "ROAM";

/// Answers questions.
pub(crate) struct Answerer {
    pub(crate) tables: PermissionTables,
    pub(crate) issuer: SigningKey,
    pub(crate) tokens: Tokens,
    pub(crate) providers: Providers,
    pub(crate) revoked: Revoked,
}

/// A question, as it came from a server.
#[derive(Debug)]
pub(crate) struct Question {
    /// The server that asks.
    server: String,
    /// The key that the server made up for this connection.
    user: String,
    /// What was shown; never logged.
    shown: String,
    /// Who shows it.
    pub(crate) client: Asker,
}

/// The connection that is asked about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Asker {
    /// Its address.
    pub(crate) host: String,
    /// Its number on the server.
    pub(crate) id: u64,
    /// The name of the server.
    pub(crate) server: String,
}

#[derive(Deserialize)]
struct RequestClaims {
    iss: String,
    aud: String,
    nats: Request,
}

#[derive(Deserialize)]
struct Request {
    server_id: Server,
    user_nkey: String,
    client_info: ClientInfo,
    connect_opts: ConnectOptions,
}

#[derive(Deserialize)]
struct Server {
    id: String,
    #[serde(default)]
    name: String,
}

#[derive(Deserialize)]
struct ClientInfo {
    #[serde(default)]
    host: String,
    #[serde(default)]
    id: u64,
}

#[derive(Deserialize)]
struct ConnectOptions {
    #[serde(default)]
    auth_token: String,
    #[serde(default)]
    pass: String,
}

#[derive(Serialize)]
struct Header {
    typ: &'static str,
    alg: &'static str,
}

const HEADER: Header = Header { typ: "JWT", alg: "ed25519-nkey" };

#[derive(Serialize)]
struct Claims<'a, N> {
    jti: TokenId,
    iat: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    exp: Option<u64>,
    iss: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    sub: &'a str,
    aud: &'a str,
    nats: N,
}

#[derive(Serialize)]
struct Response<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    jwt: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
    #[serde(rename = "type")]
    kind: &'static str,
    version: u8,
}

#[derive(Serialize)]
struct User {
    #[serde(rename = "pub")]
    publish: Allowed,
    #[serde(rename = "sub")]
    subscribe: Allowed,
    subs: i64,
    data: i64,
    payload: i64,
    #[serde(rename = "type")]
    kind: &'static str,
    version: u8,
}

#[derive(Serialize)]
struct Allowed {
    allow: Vec<String>,
}

impl Question {
    /// Reads a question; none if no server could have asked it.
    pub(crate) fn read(payload: &[u8]) -> Option<Self> {
        let parts = Parts::of(std::str::from_utf8(payload).ok()?)?;
        let RequestClaims { iss, aud, nats } = parts.claims()?;
        let server = VerifyingKey::of_any_kind(&iss).filter(|key| key.as_str().starts_with('N'))?;
        if aud != AUDIENCE || nats.server_id.id != iss || !parts.is_signed_by(&server) {
            return None;
        }
        let ConnectOptions { auth_token, pass } = nats.connect_opts;
        // A client that knows of no tokens shows it as its password.
        let shown = if auth_token.is_empty() { pass } else { auth_token };
        let client = Asker { host: nats.client_info.host, id: nats.client_info.id, server: nats.server_id.name };
        Some(Self { server: nats.server_id.id, user: nats.user_nkey, shown, client })
    }
}

impl Answerer {
    /// Whether whoever is asked about may come in at `now`, in seconds since 1970.
    pub(crate) fn decide(&self, question: &Question, now: u64) -> Result<Token, TokenError> {
        let foreign = self.providers.verify(&question.shown, now);
        let token = foreign.unwrap_or_else(|| self.tokens.verify(&question.shown, now))?;
        self.revoked.check(&token.id)?;
        Ok(token)
    }

    /// Writes the answer.
    pub(crate) fn write(
        &self,
        question: &Question,
        decided: &Result<Token, TokenError>,
        now: u64,
    ) -> Result<String, KeyError> {
        let (jwt, reason) = match decided {
            Ok(token) => (Some(self.user(question, token, now)?), None),
            Err(refused) => (None, Some(refused.to_string())),
        };
        let nats = Response { jwt, error: reason.as_deref(), kind: "authorization_response", version: 2 };
        let claims = self.claims(&question.user, &question.server, now, nats);
        self.issuer.sign(&HEADER, &claims)
    }

    /// What makes the server let the client in, for as long as its token is good.
    fn user(&self, question: &Question, token: &Token, now: u64) -> Result<String, KeyError> {
        let Permissions { publish, subscribe, .. } = self.tables.of_grant(&token.grant);
        let ClientLimits { subscriptions, payload } = self.tables.limits();
        let nats = User {
            publish: Allowed { allow: publish },
            subscribe: Allowed { allow: subscribe },
            subs: subscriptions,
            data: -1,
            payload,
            kind: "user",
            version: 2,
        };
        let claims = self.claims(&question.user, ACCOUNT, now, nats);
        // The name is how the connections of a token are found again.
        let claims = Claims { exp: Some(token.expires), name: Some(token.id.to_string()), ..claims };
        self.issuer.sign(&HEADER, &claims)
    }

    fn claims<'a, N>(&self, sub: &'a str, aud: &'a str, now: u64, nats: N) -> Claims<'a, N> {
        Claims {
            jti: TokenId::random(),
            iat: now,
            exp: None,
            iss: self.issuer.public_key(),
            name: None,
            sub,
            aud,
            nats,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use nkeys::KeyPair;
    use serde_json::json;

    use super::*;

    fn asked_by(server: &KeyPair, claims: &serde_json::Value) -> Vec<u8> {
        use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as B64};
        let signed =
            format!("{}.{}", B64.encode(r#"{"typ":"JWT","alg":"ed25519-nkey"}"#), B64.encode(claims.to_string()));
        format!("{signed}.{}", B64.encode(server.sign(signed.as_bytes()).unwrap())).into_bytes()
    }

    fn claims(server: &KeyPair) -> serde_json::Value {
        json!({
            "iss": server.public_key(), "aud": AUDIENCE, "sub": "x",
            "nats": {
                "server_id": {"id": server.public_key(), "name": "nats-1"}, "user_nkey": "UUSER",
                "client_info": {"host": "10.0.0.1", "id": 7}, "connect_opts": {"auth_token": "shown", "protocol": 1},
            },
        })
    }

    #[test]
    fn a_question_of_a_server_is_read() {
        let server = KeyPair::new_server();
        let question = Question::read(&asked_by(&server, &claims(&server))).unwrap();
        assert_eq!((question.user.as_str(), question.shown.as_str()), ("UUSER", "shown"));
        assert_eq!(question.client, Asker { host: "10.0.0.1".to_owned(), id: 7, server: "nats-1".to_owned() });
    }

    #[test]
    fn what_no_server_asked_is_not_answered() {
        let (server, other) = (KeyPair::new_server(), KeyPair::new_server());
        let mut elsewhere = claims(&server);
        elsewhere["aud"] = json!("something else");
        let mut another = claims(&server);
        another["nats"]["server_id"]["id"] = json!(other.public_key());
        let user = KeyPair::new_user();
        for payload in [
            asked_by(&other, &claims(&server)),
            asked_by(&server, &elsewhere),
            asked_by(&server, &another),
            asked_by(&user, &claims(&user)),
            b"rubbish".to_vec(),
            Vec::new(),
            vec![0xff; 100],
        ] {
            assert!(Question::read(&payload).is_none());
        }
    }

    #[test]
    fn fuzz_question() {
        bolero::check!().for_each(|payload: &[u8]| assert!(Question::read(payload).is_none(), "nobody signed it"));
    }
}
