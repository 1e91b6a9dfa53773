//! Certificate authorities of tests, and what they issue.

use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, SanType, date_time_ymd,
};

/// A certificate and its key, in PEM form.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The certificate.
    pub cert: String,
    /// The private key.
    pub key: String,
}

impl Identity {
    /// Writes both beside each other, as `NAME.pem` and `NAME.key`, and says where.
    ///
    /// # Panics
    /// Where it cannot.
    #[must_use]
    pub fn write(&self, directory: &Path, name: &str) -> (PathBuf, PathBuf) {
        let cert = directory.join(format!("{name}.pem"));
        let key = directory.join(format!("{name}.key"));
        std::fs::write(&cert, &self.cert).expect("a test's directory can be written to");
        std::fs::write(&key, &self.key).expect("a test's directory can be written to");
        (cert, key)
    }
}

/// A certificate authority.
#[derive(Debug)]
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    /// A new one, that nobody trusts yet.
    ///
    /// # Panics
    /// Where the system has no random numbers.
    #[must_use]
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate().expect("a key can be made");
        let issuer = CertifiedIssuer::self_signed(params, key).expect("it signs itself");
        Self { issuer }
    }

    /// Its own certificate.
    #[must_use]
    pub fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// For a server on this machine.
    #[must_use]
    pub fn server(&self) -> Identity {
        self.issue(&["DNS:localhost", "IP:127.0.0.1"], false, true)
    }

    /// For a client whose alternative names are given as `URI:...` and `DNS:...`
    #[must_use]
    pub fn client(&self, names: &[&str]) -> Identity {
        self.issue(names, true, true)
    }

    /// For a client, but no longer.
    #[must_use]
    pub fn expired_client(&self, names: &[&str]) -> Identity {
        self.issue(names, true, false)
    }

    fn issue(&self, names: &[&str], is_client: bool, is_valid: bool) -> Identity {
        let mut params = CertificateParams::default();
        params.subject_alt_names = names.iter().map(|name| alternative(name)).collect();
        params.extended_key_usages = vec![if is_client {
            ExtendedKeyUsagePurpose::ClientAuth
        } else {
            ExtendedKeyUsagePurpose::ServerAuth
        }];
        if !is_valid {
            params.not_before = date_time_ymd(2000, 1, 1);
            params.not_after = date_time_ymd(2001, 1, 1);
        }
        let key = KeyPair::generate().expect("a key can be made");
        let cert = params.signed_by(&key, &self.issuer).expect("it signs");
        Identity {
            cert: cert.pem(),
            key: key.serialize_pem(),
        }
    }
}

fn alternative(name: &str) -> SanType {
    let (kind, value) = name.split_once(':').expect("KIND:VALUE");
    let text = || value.try_into().expect("ASCII");
    match kind {
        "URI" => SanType::URI(text()),
        "DNS" => SanType::DnsName(text()),
        "IP" => SanType::IpAddress(value.parse().expect("an address")),
        "EMAIL" => SanType::Rfc822Name(text()),
        other => panic!("no alternative name is of kind {other}"),
    }
}
