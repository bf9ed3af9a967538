//! How every command signs in, and the commands about tokens and keys.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
#[cfg(feature = "embedded")]
use roam_schemas::Shards;
use roam_schemas::{Access, App, Device, NameError, ServiceName, Tenant, TokenId, User};

#[cfg(feature = "embedded")]
use super::parse::shards;
use super::{
    Said,
    parse::{app, device, span, tenant, user},
};

/// How a command signs in.
#[derive(Debug, Clone, Args)]
pub(crate) struct SignIn {
    /// A NATS credentials file
    #[arg(long, global = true, env = "ROAM_CREDS", value_name = "FILE")]
    pub(crate) creds: Option<PathBuf>,
    /// A file with the token to sign in with; the device is then the one that the token names
    #[arg(long, global = true, env = "ROAM_TOKEN_FILE", value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// A file with the nkey seed to sign in with, for operators. One of --creds, --token-file and --nkey on the command line
    /// counts, whatever the environment says of the three
    #[arg(long, global = true, env = "ROAM_NKEY", value_name = "FILE")]
    pub(crate) nkey: Option<PathBuf>,
    /// Trust the certificate authorities in this PEM file instead of those of the system
    #[arg(long, global = true, env = "ROAM_CA", value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
    /// Our own certificate, a PEM file, for servers that ask for one
    #[arg(long, global = true, env = "ROAM_CERTIFICATE", value_name = "FILE", requires = "certificate_key")]
    pub(crate) certificate: Option<PathBuf>,
    /// The private key of --certificate, a PEM file
    #[arg(long, global = true, env = "ROAM_CERTIFICATE_KEY", value_name = "FILE", requires = "certificate")]
    pub(crate) certificate_key: Option<PathBuf>,
}

impl SignIn {
    /// Leaves out what the environment says of how to sign in, if the command line says it.
    ///
    /// # Errors
    /// The command line names more than one way.
    pub(super) fn settle(&mut self, said: &Said) -> Result<(), String> {
        let ways = [("creds", &mut self.creds), ("token-file", &mut self.token_file), ("nkey", &mut self.nkey)];
        let named: Vec<&str> = ways.iter().map(|(way, _)| *way).filter(|way| said.has(way)).collect();
        if named.len() > 1 {
            return Err(format!("sign in by one of these: --{}", named.join(", --")));
        }
        for (way, file) in ways {
            if !named.is_empty() && !named.contains(&way) {
                *file = None;
            }
        }
        Ok(())
    }
}

/// Where the keys of people are.
#[derive(Debug, Args)]
pub(crate) struct KeyDir {
    /// The directory of the keys: registrar.nk, unless --nkey or --creds stands on the command line, and to make tokens
    /// signer.nk; ca.pem is trusted if it is there
    #[arg(long, env = "ROAM_KEYS", value_name = "DIR", global = true)]
    pub(crate) keys: Option<PathBuf>,
}

/// `roam token`.
#[derive(Debug, Args)]
pub(crate) struct Token {
    /// Where the keys are.
    #[command(flatten)]
    pub(crate) keys: KeyDir,
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: TokenCommand,
}

/// What can be done with tokens.
#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Make a token, for a device or for a service
    #[command(after_help = "\
Example:
  roam token create --tenant acme --user alice --device laptop --output laptop.token
  roam token create --tenant acme --user alice --device phone --app mail --app contacts --expires 30d
  roam token create --tenant acme --service mailer --access write")]
    Create(CreateToken),
    /// List the tokens that were made, newest last
    #[command(after_help = "Example:\n  roam token list --tenant acme --json")]
    List(ListTokens),
    /// Revoke a token: nobody gets in with it any more, and who is in is put out within seconds
    #[command(after_help = "Example:\n  roam token revoke 0193a1c2-7b1e-7c00-8000-0123456789ab")]
    Revoke(RevokeToken),
}

/// `roam token create`.
#[derive(Debug, Args)]
pub(crate) struct CreateToken {
    /// The tenant
    #[arg(long, value_parser = tenant)]
    pub(crate) tenant: Tenant,
    /// The user, of a token for a device
    #[arg(long, value_parser = user, requires = "for_device", required_unless_present = "service")]
    pub(crate) user: Option<User>,
    /// The device that the token is for
    #[arg(id = "for_device", long = "device", value_name = "NAME", value_parser = device, requires = "user")]
    pub(crate) device: Option<Device>,
    /// The service that the token is for, instead of a device
    #[arg(long, value_name = "NAME", value_parser = service, conflicts_with_all = ["user", "for_device"], requires = "access")]
    pub(crate) service: Option<ServiceName>,
    /// What the service may do
    #[arg(long, requires = "service")]
    pub(crate) access: Option<ServiceAccess>,
    /// An app that the token is for, again for each; without, all apps
    #[arg(long = "app", value_name = "APP", value_parser = app)]
    pub(crate) apps: Vec<App>,
    /// After how long it expires, in seconds, or with a unit: 15m, 12h, 90d
    #[arg(long, value_name = "SECONDS", value_parser = span, default_value = "90d")]
    pub(crate) expires: u32,
    /// Write the token into this new file, for its owner alone, instead of printing it
    #[arg(long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
}

/// What a service may do, as on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ServiceAccess {
    /// Ask and listen
    Read,
    /// That, and change
    Write,
}

impl From<ServiceAccess> for Access {
    fn from(access: ServiceAccess) -> Self {
        match access {
            ServiceAccess::Read => Self::Read,
            ServiceAccess::Write => Self::Write,
        }
    }
}

/// `roam token list`.
#[derive(Debug, Args)]
pub(crate) struct ListTokens {
    /// Only those of this tenant
    #[arg(long, value_parser = tenant)]
    pub(crate) tenant: Option<Tenant>,
}

/// `roam token revoke`.
#[derive(Debug, Args)]
pub(crate) struct RevokeToken {
    /// The id of the token, as it is listed
    #[arg(value_parser = token_id)]
    pub(crate) id: TokenId,
}

/// `roam keys`.
#[cfg(feature = "embedded")]
#[derive(Debug, Args)]
pub(crate) struct Keys {
    /// The directory, made if it is missing. What is in it stays as it is
    pub(crate) directory: PathBuf,
    /// A host name or address of the NATS servers, for their certificate, again for each
    #[arg(long = "host", value_name = "HOST", required = true)]
    pub(crate) hosts: Vec<String>,
    /// How many shards the deployment has: the servers map subjects, and permissions name the shard
    #[arg(long, value_name = "N", default_value = "1", value_parser = shards)]
    pub(crate) shards: Shards,
    /// Have the servers ask clients for a certificate too
    #[arg(long)]
    pub(crate) mutual_tls: bool,
}

fn service(text: &str) -> Result<ServiceName, NameError> {
    ServiceName::parse(text)
}

fn token_id(text: &str) -> Result<TokenId, String> {
    TokenId::parse(text).ok_or_else(|| "that is no id of a token; roam token list shows them".to_owned())
}
