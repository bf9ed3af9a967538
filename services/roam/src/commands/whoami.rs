//! `roam whoami`: who a command is to the system, as its token says, and whether the system lets it in. A token is read here
//! and believed by the servers alone.

use std::time::Duration;

use roam_client::Identity;
use roam_nats::{Bus, BusSettings, Headers, RequestError, Role, without_secret};
use roam_process::clock::now_ns;
use roam_schemas::{
    App, Apps, Bearer, Device, Encoding, Grant, LatestRequest, NameError, Profile, Timestamp, TokenId, User, encode,
    subjects::{self, Verb},
};
use serde::Serialize;

use crate::{
    cli::Global,
    connect::{bus_settings, not_on_the_bus, this_device, token},
    failure::Failure,
    output::Output,
    show,
};

const WHAT: &str = "whoami";
const SECOND: u64 = 1_000_000_000;
/// How long an answer may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

pub(super) async fn run(global: &Global, out: Output) -> Result<(), Failure> {
    let mut told = Told::of(global);
    // What the token says is told in any case: it may be why nobody gets in.
    let connected = connect(global, told.grant.as_ref()).await.map(|server| told.server = Some(server));
    out.object(&told)?;
    for line in told.lines(Timestamp::from_nanos(now_ns())) {
        out.row(line)?;
    }
    connected
}

/// What is told.
#[derive(Debug, Default, Serialize)]
struct Told {
    /// By what it is signed in: a token, an nkey or credentials; none if not at all, or if nobody can tell.
    by: Option<&'static str>,
    /// The file that this is in.
    file: Option<String>,
    /// Who the token says that its bearer is; none without one, and of one that another provider made.
    grant: Option<Grant>,
    /// The id of the token.
    token: Option<TokenId>,
    /// Until when the token is good.
    expires: Option<Timestamp>,
    /// The device that is named as the writer of changes.
    device: Option<Device>,
    /// The server that let us in.
    server: Option<Server>,
    /// Whether there are several ways to sign in, so that nobody can tell which is meant.
    #[serde(skip)]
    several: bool,
}

/// The server that let us in.
#[derive(Debug, Serialize)]
struct Server {
    /// Where it was looked for.
    urls: Vec<String>,
    /// What it is called.
    name: String,
    /// Which nats-server it is.
    version: String,
    /// Whether everybody gets in.
    open: bool,
}

impl Told {
    /// What is known without asking anybody.
    fn of(global: &Global) -> Self {
        let sign_in = &global.sign_in;
        let ways = [("credentials", &sign_in.creds), ("token", &sign_in.token_file), ("nkey", &sign_in.nkey)];
        let mut ways = ways.into_iter().filter_map(|(by, file)| Some((by, file.as_ref()?.display().to_string())));
        let (way, another) = (ways.next(), ways.next());
        if another.is_some() {
            return Self { several: true, ..Self::default() };
        }
        let (by, file) = way.unzip();
        let told = Self { by, file, ..Self::default() };
        let Some(token) = token(global) else {
            return Self { device: this_device(global).ok(), ..told };
        };
        let device = match (&token.grant.bearer, &global.device) {
            (Bearer::Service { name, .. }, _) => Device::service(name),
            (Bearer::Device { .. }, Some(device)) | (Bearer::Device { device, .. }, None) => device.clone(),
        };
        let expires = Timestamp::from_nanos(token.expires.saturating_mul(SECOND));
        let (token, grant) = (Some(token.id), Some(token.grant));
        Self { token, grant, expires: Some(expires), device: Some(device), ..told }
    }

    /// The same for people.
    fn lines(&self, now: Timestamp) -> Vec<String> {
        let mut lines = vec![format!("who      {}", self.who())];
        if let (Some(id), Some(expires)) = (self.token, self.expires) {
            let over = if expires <= now { "; its time is over" } else { "" };
            lines.push(format!("token    {id}, until {expires}{over}"));
        }
        if let Some(Server { urls, name, version, open }) = &self.server {
            let [urls, name, version] = [&urls.join(", "), name, version].map(|part| show::text(part));
            lines.push(format!("server   {urls}: {name}, nats-server {version}"));
            let whoever = if *open { "everybody, whatever a token says" } else { "who signs in" };
            lines.push(format!("gets in  {whoever}"));
        }
        lines
    }

    fn who(&self) -> String {
        match (&self.grant, self.by, &self.file) {
            (Some(grant), ..) if grant.apps == Apps::All => show::text(&format!("{grant}, for all apps")),
            (Some(grant), ..) => show::text(&grant.to_string()),
            (None, Some(by), Some(file)) => format!("whoever the server knows by the {by} in {}", show::text(file)),
            (None, ..) if self.several => "nobody can tell: there are several ways to sign in".to_owned(),
            (None, ..) => {
                let device = self.device.as_ref().map_or("of no name", |device| device.as_str());
                format!("device {} of whomever a command names", show::text(device))
            }
        }
    }
}

/// Connects, and says to what.
async fn connect(global: &Global, grant: Option<&Grant>) -> Result<Server, Failure> {
    let settings = BusSettings { inbox_prefix: grant.map(inbox), ..bus_settings(global) };
    let bus = Bus::connect(&settings.signed_in_as(Role::Operator), "roam-whoami").await;
    let bus = bus.map_err(|error| not_on_the_bus(WHAT, &error))?;
    let (name, version) = bus.server();
    let urls = global.server.iter().map(|url| without_secret(url)).collect();
    let server = Server { urls, name, version, open: !bus.asks_who_comes() };
    let answered = match grant {
        Some(grant) => ask(&bus, grant).await,
        None => Ok(()),
    };
    bus.close().await;
    answered.map(|()| server)
}

/// Asks something that the token is good for: a connection may stand before the server has been told who comes.
async fn ask(bus: &Bus, grant: &Grant) -> Result<(), Failure> {
    let profile = profile(grant).map_err(|error| Failure::because(WHAT, &error))?;
    let request = LatestRequest { limit: Some(1), ..LatestRequest::default() };
    let payload = encode(&request, Encoding::Postcard).map_err(|error| Failure::because(WHAT, &error))?;
    let headers = Headers::new().with_content_type(Encoding::Postcard);
    let subject = subjects::request(Verb::Latest, &profile);
    bus.request(subject, headers, payload.into(), ANSWER_WITHIN).await.map(|_| ()).or_else(unanswered)
}

/// What it says of whoever asks that there is no answer.
fn unanswered(error: RequestError) -> Result<(), Failure> {
    match error {
        // Whoever is told that was let in.
        RequestError::NoResponders | RequestError::Denied => Ok(()),
        RequestError::TimedOut => Err(Failure::later(WHAT, error.to_string()).hint("is the token expired or revoked?")),
        RequestError::TooLarge { .. } | RequestError::Subject | RequestError::Closed => {
            Err(Failure::because(WHAT, &error))
        }
    }
}

/// A profile that the bearer may ask about, whether it is there or not.
fn profile(grant: &Grant) -> Result<Profile, NameError> {
    let user = match &grant.bearer {
        Bearer::Device { user, .. } => user.clone(),
        Bearer::Service { .. } => User::parse("nobody")?,
    };
    let app = first(&grant.apps).map_or_else(|| App::parse("none"), |app| Ok(app.clone()))?;
    Ok(Profile { tenant: grant.tenant.clone(), user, app })
}

/// What the reply subjects of the bearer begin with.
fn inbox(grant: &Grant) -> String {
    let tenant = grant.tenant.clone();
    let identity = match grant.bearer.clone() {
        Bearer::Device { user, device } => Identity::Device { tenant, user, device },
        Bearer::Service { name, .. } => Identity::Service { tenant, name },
    };
    let whole = identity.inbox_prefix();
    match first(&grant.apps) {
        Some(app) => subjects::inbox_for_app(&whole, app),
        None => whole,
    }
}

/// The first of the apps that a token is for, unless it is for all.
fn first(apps: &Apps) -> Option<&App> {
    match apps {
        Apps::All => None,
        Apps::Only(apps) => apps.first(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use roam_schemas::{Access, ServiceName, Tenant};

    use super::*;
    use crate::{cli::Cli, failure::Exit};

    fn grant(apps: &[&str]) -> Grant {
        let apps: Vec<App> = apps.iter().map(|app| App::parse(*app).unwrap()).collect();
        let apps = if apps.is_empty() { Apps::All } else { Apps::Only(apps) };
        let (user, device) = (User::parse("alice").unwrap(), Device::parse("laptop").unwrap());
        Grant::device(Tenant::parse("acme").unwrap(), user, device, apps).unwrap()
    }

    fn server(open: bool) -> Option<Server> {
        let [name, version] = ["one", "2.12.0"].map(str::to_owned);
        Some(Server { urls: vec!["nats://a".to_owned()], name, version, open })
    }

    #[test]
    fn a_bearer_reads_who_it_is_and_until_when() {
        let now = Timestamp::from_nanos(2 * SECOND);
        let id = TokenId::parse("0193a1c2-7b1e-7c00-8000-0123456789ab");
        let expires = Some(Timestamp::from_nanos(SECOND));
        let told = Told { token: id, grant: Some(grant(&[])), expires, server: server(false), ..Told::default() };
        assert_eq!(
            told.lines(now),
            [
                "who      device laptop of acme/alice, for all apps",
                "token    0193a1c2-7b1e-7c00-8000-0123456789ab, until 1970-01-01T00:00:01.000000000Z; its time is over",
                "server   nats://a: one, nats-server 2.12.0",
                "gets in  who signs in",
            ]
        );
        let told = Told { grant: Some(grant(&["mail", "news"])), ..Told::default() };
        assert_eq!(told.lines(now), ["who      device laptop of acme/alice, for mail, news"]);
    }

    #[test]
    fn nobody_is_named_who_is_not_known_here() {
        let file = Some("/k/\u{1b}operator.nk".to_owned());
        let told = Told { by: Some("nkey"), file, ..Told::default() };
        assert_eq!(told.who(), "whoever the server knows by the nkey in /k/\\u{1b}operator.nk");
        let told = Told { device: Device::parse("pc").ok(), server: server(true), ..Told::default() };
        let lines = told.lines(Timestamp::from_nanos(0));
        assert_eq!(lines[0], "who      device pc of whomever a command names");
        assert_eq!(lines[2], "gets in  everybody, whatever a token says");
    }

    #[test]
    fn nobody_is_named_where_there_are_several_ways_to_sign_in() {
        let mut global = Cli::read(["roam", "whoami"]).unwrap().global;
        let sign_in = &mut global.sign_in;
        (sign_in.creds, sign_in.token_file) = (Some("/nonexistent/c".into()), Some("/nonexistent/t".into()));
        let told = Told::of(&global);
        assert_eq!((told.by, &told.file, &told.device), (None, &None, &None));
        assert_eq!(told.who(), "nobody can tell: there are several ways to sign in");
        global.sign_in.creds = None;
        assert_eq!(Told::of(&global).by, Some("token"));
    }

    #[test]
    fn silence_alone_may_be_over_later() {
        for let_in in [RequestError::NoResponders, RequestError::Denied] {
            assert_eq!(unanswered(let_in), Ok(()));
        }
        for (error, exit) in [
            (RequestError::TimedOut, Exit::TryLater),
            (RequestError::Closed, Exit::Failed),
            (RequestError::Subject, Exit::Failed),
        ] {
            let failure = unanswered(error).unwrap_err();
            assert_eq!((failure.exit, failure.hint.is_some()), (exit, exit == Exit::TryLater), "{error}");
        }
    }

    #[test]
    fn what_is_asked_is_what_the_token_is_good_for() {
        assert_eq!(profile(&grant(&["mail"])).unwrap().to_string(), "acme/alice/mail");
        assert_eq!(inbox(&grant(&["mail"])), "_INBOX.acme.alice.laptop.mail");
        assert_eq!(inbox(&grant(&[])), "_INBOX.acme.alice.laptop");
        let (tenant, name) = (Tenant::parse("acme").unwrap(), ServiceName::parse("mailer").unwrap());
        let service = Grant::service(tenant, name, Access::Read, Apps::All).unwrap();
        assert_eq!(profile(&service).unwrap().to_string(), "acme/nobody/none");
        assert_eq!(inbox(&service), "_INBOX.acme.$svc.mailer");
    }
}
