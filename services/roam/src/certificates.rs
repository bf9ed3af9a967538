//! The certificates of a deployment: a certificate authority of its own, and what it vouches for, as PEM files in the
//! directory of the keys. Made once and never replaced here: replacing one is an operator's step (docs/security.md).

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use roam_auth::write_private;
use roam_nats::{BusSettings, ServerTls};

const CA: &str = "ca.pem";
const CA_KEY: &str = "ca.key";

/// The files of the certificates.
#[derive(Debug, Clone)]
pub(crate) struct Certificates {
    dir: PathBuf,
}

/// The certificates cannot be made or read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CertificateError {
    /// A file cannot be used.
    #[error("{} cannot be used", path.display())]
    Io { path: PathBuf, source: io::Error },
    /// A certificate cannot be made.
    #[error("the certificate {name} cannot be made")]
    Make { name: &'static str, source: rcgen::Error },
}

impl Certificates {
    /// Opens the certificates in a directory that is there. What is missing is made: `ca`, `server` for these host names
    /// and addresses, and `client`, for the services and for devices of servers that ask for one.
    pub(crate) fn open(dir: &Path, hosts: &[String]) -> Result<Self, CertificateError> {
        let certificates = Self { dir: dir.to_owned() };
        if !certificates.ca().exists() {
            certificates.make_ca()?;
        }
        certificates.make_missing("server", hosts, &ExtendedKeyUsagePurpose::ServerAuth)?;
        certificates.make_missing("client", &[], &ExtendedKeyUsagePurpose::ClientAuth)?;
        Ok(certificates)
    }

    /// The certificate authority.
    pub(crate) fn ca(&self) -> PathBuf {
        self.dir.join(CA)
    }

    /// What a server needs. With `verify` it asks clients for a certificate.
    pub(crate) fn of_server(&self, verify: bool) -> ServerTls {
        let [certificate, key] = self.pair("server");
        ServerTls { certificate, key, ca: self.ca(), verify }
    }

    /// How a client reaches such a server.
    pub(crate) fn bus(&self, server: String, verify: bool) -> BusSettings {
        let [certificate, key] = self.pair("client");
        let (certificate, key) = if verify { (Some(certificate), Some(key)) } else { (None, None) };
        BusSettings { tls: true, ca: Some(self.ca()), certificate, key, ..BusSettings::at(server) }
    }

    /// The files of a certificate and its key.
    pub(crate) fn pair(&self, name: &str) -> [PathBuf; 2] {
        ["pem", "key"].map(|kind| self.dir.join(format!("{name}.{kind}")))
    }

    fn make_ca(&self) -> Result<(), CertificateError> {
        let made = || {
            let mut params = params("Roam local certificate authority", &[])?;
            params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
            params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
            let key = KeyPair::generate()?;
            Ok((params.self_signed(&key)?.pem(), key.serialize_pem()))
        };
        let (certificate, key) = made().map_err(|source| CertificateError::Make { name: "ca", source })?;
        self.write(CA_KEY, &key)?;
        self.write(CA, &certificate)
    }

    fn make_missing(
        &self,
        name: &'static str,
        hosts: &[String],
        purpose: &ExtendedKeyUsagePurpose,
    ) -> Result<(), CertificateError> {
        if self.pair(name).iter().all(|file| file.exists()) {
            return Ok(());
        }
        let (ca, ca_key) = (self.read(CA)?, self.read(CA_KEY)?);
        let made = || {
            let issuer = Issuer::from_ca_cert_pem(&ca, KeyPair::from_pem(&ca_key)?)?;
            let mut params = params(&format!("Roam {name}"), hosts)?;
            // A route between two servers is one of them being the other's client.
            params.extended_key_usages = vec![purpose.clone(), ExtendedKeyUsagePurpose::ClientAuth];
            params.extended_key_usages.dedup();
            let key = KeyPair::generate()?;
            Ok((params.signed_by(&key, &issuer)?.pem(), key.serialize_pem()))
        };
        let (certificate, key) = made().map_err(|source| CertificateError::Make { name, source })?;
        self.write(&format!("{name}.key"), &key)?;
        self.write(&format!("{name}.pem"), &certificate)
    }

    fn read(&self, name: &str) -> Result<String, CertificateError> {
        let path = self.dir.join(name);
        fs::read_to_string(&path).map_err(|source| CertificateError::Io { path, source })
    }

    fn write(&self, name: &str, content: &str) -> Result<(), CertificateError> {
        let path = self.dir.join(name);
        // One half without the other is of no use.
        let _ = fs::remove_file(&path);
        write_private(&path, content.as_bytes()).map_err(|source| CertificateError::Io { path, source })
    }
}

fn params(name: &str, hosts: &[String]) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(hosts)?;
    params.distinguished_name.push(DnType::CommonName, name);
    Ok(params)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn certificates_are_made_once() {
        let dir = tempfile::tempdir().unwrap();
        let hosts = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        Certificates::open(dir.path(), &hosts).unwrap();
        let read = || ["ca.pem", "server.pem", "client.pem"].map(|name| fs::read(dir.path().join(name)).unwrap());
        let before = read();
        Certificates::open(dir.path(), &hosts).unwrap();
        assert_eq!(read(), before);
        fs::remove_file(dir.path().join("server.pem")).unwrap();
        Certificates::open(dir.path(), &hosts).unwrap();
        assert_ne!(read()[1], before[1], "what is missing is made again");
        assert_eq!(read()[0], before[0]);
    }
}
