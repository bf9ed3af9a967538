//! An OpenID Connect provider: a server on this machine that says where its keys are, publishes them, and signs tokens. Its keys
//! are changed, withdrawn and kept from everybody as a test wants it.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard},
};

use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use ring::{
    rand::SystemRandom,
    rsa::PublicKeyComponents,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair},
};
use roam_auth::ProviderSettings;
use roam_process::clock;
use rustls::{
    ServerConfig,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;

use crate::tenant;

const RSA: &str = include_str!("provider/rsa.pem");

/// A provider.
#[derive(Debug)]
pub struct Provider {
    issuer: String,
    ca: Option<PathBuf>,
    state: Arc<Mutex<State>>,
    _server: JoinSet<()>,
}

/// What a provider signs with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// RSA with SHA-256.
    RS256,
    /// ECDSA on P-256.
    ES256,
    /// Ed25519.
    EdDSA,
}

#[derive(Debug)]
enum Key {
    Rsa(RsaKeyPair),
    P256(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

#[derive(Debug, Default)]
struct State {
    issuer: String,
    keys: BTreeMap<String, Key>,
    published: Vec<String>,
    silent: bool,
    asked: usize,
}

impl Provider {
    /// Starts one that speaks TLS, with a certificate of its own. Its files are in `dir`.
    ///
    /// # Panics
    /// If it does not start.
    pub async fn start(dir: &Path) -> Provider {
        let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        let ca = dir.join("provider.pem");
        std::fs::write(&ca, made.cert.pem()).unwrap();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
        let builder = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
        let builder = builder.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
        let config = builder.with_single_cert(vec![made.cert.der().clone()], key).unwrap();
        Self::listen("https", Some(ca), Some(TlsAcceptor::from(Arc::new(config)))).await
    }

    /// Starts one that does not encrypt, as on the machine of a developer.
    pub async fn start_plain() -> Provider {
        Self::listen("http", None, None).await
    }

    async fn listen(scheme: &str, ca: Option<PathBuf>, tls: Option<TlsAcceptor>) -> Provider {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let issuer = format!("{scheme}://{}/realms/acme", listener.local_addr().unwrap());
        let state = Arc::new(Mutex::new(State { issuer: issuer.clone(), ..State::default() }));
        let mut server = JoinSet::new();
        server.spawn(serve(listener, tls, Arc::clone(&state)));
        Provider { issuer, ca, state, _server: server }
    }

    /// How an auth service trusts it: for the tenant `acme`, and asks it again after a second.
    pub fn settings(&self) -> ProviderSettings {
        ProviderSettings {
            issuer: self.issuer.clone(),
            audience: "roam".to_owned(),
            tenants: vec![tenant("acme")],
            ca: self.ca.clone(),
            refetch_seconds: 1,
            ..ProviderSettings::default()
        }
    }

    /// Makes a key, which is not published yet.
    pub fn make(&self, kid: &str, kind: Kind) {
        let random = SystemRandom::new();
        let key = match kind {
            Kind::RS256 => {
                let base64: String = RSA.lines().skip(1).filter(|line| !line.starts_with('-')).collect();
                Key::Rsa(RsaKeyPair::from_pkcs8(&STANDARD.decode(base64).unwrap()).unwrap())
            }
            Kind::ES256 => {
                let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
                let made = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
                Key::P256(EcdsaKeyPair::from_pkcs8(algorithm, made.as_ref(), &random).unwrap())
            }
            Kind::EdDSA => {
                let made = Ed25519KeyPair::generate_pkcs8(&random).unwrap();
                Key::Ed25519(Ed25519KeyPair::from_pkcs8(made.as_ref()).unwrap())
            }
        };
        self.state().keys.insert(kid.to_owned(), key);
    }

    /// Publishes these keys and no others.
    pub fn publish(&self, kids: &[&str]) {
        self.state().published = kids.iter().map(|kid| (*kid).to_owned()).collect();
    }

    /// Answers nobody any more, or everybody again.
    pub fn silence(&self, silent: bool) {
        self.state().silent = silent;
    }

    /// How often its keys were asked for.
    pub fn asked(&self) -> usize {
        self.state().asked
    }

    /// The claims of a device of a user, good for ten minutes.
    pub fn claims(&self, user: &str, device: &str) -> Value {
        let now = clock::now_ns() / 1_000_000_000;
        json!({"iss": self.issuer, "aud": "roam", "sub": user, "device": device, "iat": now, "exp": now + 600})
    }

    /// Signs claims.
    ///
    /// # Panics
    /// If there is no such key.
    pub fn token(&self, kid: &str, claims: &Value) -> String {
        let state = self.state();
        let key = &state.keys[kid];
        let header = json!({"alg": key.algorithm(), "typ": "JWT", "kid": kid});
        let text = [header.to_string(), claims.to_string()].map(|part| URL_SAFE_NO_PAD.encode(part)).join(".");
        let signature = key.sign(text.as_bytes());
        format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

impl Key {
    fn algorithm(&self) -> &'static str {
        match self {
            Self::Rsa(_) => "RS256",
            Self::P256(_) => "ES256",
            Self::Ed25519(_) => "EdDSA",
        }
    }

    fn sign(&self, text: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match self {
            Self::Rsa(pair) => {
                let mut signature = vec![0; pair.public().modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random, text, &mut signature).unwrap();
                signature
            }
            Self::P256(pair) => pair.sign(&random, text).unwrap().as_ref().to_vec(),
            Self::Ed25519(pair) => pair.sign(text).as_ref().to_vec(),
        }
    }

    fn published(&self, kid: &str) -> Value {
        let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        match self {
            Self::Rsa(pair) => {
                let PublicKeyComponents { n, e } = PublicKeyComponents::<Vec<u8>>::from(pair.public());
                json!({"kty": "RSA", "kid": kid, "use": "sig", "n": text(&n), "e": text(&e)})
            }
            Self::P256(pair) => {
                let (x, y) = pair.public_key().as_ref()[1..].split_at(32);
                json!({"kty": "EC", "kid": kid, "crv": "P-256", "x": text(x), "y": text(y)})
            }
            Self::Ed25519(pair) => {
                json!({"kty": "OKP", "kid": kid, "crv": "Ed25519", "x": text(pair.public_key().as_ref())})
            }
        }
    }
}

impl State {
    fn page(&mut self, path: &str) -> Option<Value> {
        match path {
            "/realms/acme/.well-known/openid-configuration" => {
                Some(json!({"issuer": self.issuer, "jwks_uri": format!("{}/keys", self.issuer)}))
            }
            "/realms/acme/keys" => {
                self.asked += 1;
                let keys: Vec<_> = self.published.iter().map(|kid| self.keys[kid].published(kid)).collect();
                Some(json!({ "keys": keys }))
            }
            _ => None,
        }
    }
}

async fn serve(listener: TcpListener, tls: Option<TlsAcceptor>, state: Arc<Mutex<State>>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        if !state.lock().unwrap().silent {
            connections.spawn(answer(stream, tls.clone(), Arc::clone(&state)));
        }
    }
}

async fn answer(stream: TcpStream, tls: Option<TlsAcceptor>, state: Arc<Mutex<State>>) {
    // Whoever hangs up is not answered.
    match tls {
        Some(tls) => {
            if let Ok(stream) = tls.accept(stream).await {
                let _ = answer_one(stream, &state).await;
            }
        }
        None => {
            let _ = answer_one(stream, &state).await;
        }
    }
}

async fn answer_one(stream: impl AsyncRead + AsyncWrite + Unpin, state: &Mutex<State>) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut request = String::new();
    while !request.ends_with("\r\n\r\n") {
        if stream.read_line(&mut request).await? == 0 {
            return Ok(());
        }
    }
    let path = request.split(' ').nth(1).unwrap_or_default();
    let (status, body) = match state.lock().unwrap().page(path) {
        Some(page) => ("200 OK", page.to_string()),
        None => ("404 Not Found", String::new()),
    };
    let length = body.len();
    let answer = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}");
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await
}
