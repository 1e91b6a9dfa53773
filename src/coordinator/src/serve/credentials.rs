//! Certificates, keys and tokens from files, read again while the coordinator runs.

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::io::AsyncReadExt;
use tokio::sync::Notify;
use tracing::{info, warn};

use super::tls::{Faces, Live, Pem, TlsError, Which};
use crate::access::{Access, TokenFileError, Tokens};
use crate::clock::Clock;
use crate::config::{Settings, TlsFiles};

/// The largest file that is read: ten thousand tokens, or a bundle of all public authorities, fit.
const MAX_FILE_BYTES: u64 = 4 << 20;

/// Why a file of credentials cannot be used. What is in it is not told.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CredentialsError {
    /// It cannot be read.
    #[error("{setting}: cannot read {path}")]
    Read {
        /// The setting that names it.
        setting: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// It is no certificate, key or bundle that can be used.
    #[error("{setting}: {path} cannot be used")]
    Tls {
        /// The setting that names it.
        setting: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: TlsError,
    },
    /// It is no file of tokens.
    #[error("auth.token_file: {path} cannot be used")]
    Tokens {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: TokenFileError,
    },
}

/// Asks a running coordinator to read its files again at once.
#[derive(Debug, Clone, Default)]
pub struct Reload(Arc<Notify>);

impl Reload {
    /// Certificates, keys and tokens are read now. What cannot be used is logged, and what was in use stays.
    pub fn now(&self) {
        self.0.notify_one();
    }
}

/// Reads the files of certificates, keys and tokens that settings name, and lets go of them again.
///
/// # Errors
/// A [`CredentialsError`] that names the first that cannot be used.
pub async fn check_files(settings: &Settings) -> Result<(), CredentialsError> {
    Credentials::load(settings).await.map(drop)
}

/// What lets callers in, and the files that it was made of.
#[derive(Debug)]
pub(super) struct Credentials {
    pub(super) access: Access,
    pub(super) tls: Option<Live>,
    pub(super) reload: Reload,
    files: Files,
}

#[derive(Debug, Clone)]
struct Files {
    tls: Option<TlsFiles>,
    tokens: Option<PathBuf>,
}

/// What the files had when they were last looked at, whether it could be used or not.
#[derive(Default)]
struct Seen {
    pem: Option<Pem>,
    tokens: Option<Vec<u8>>,
    /// The last failure to read, so that it is logged once.
    failed: Option<String>,
}

impl Credentials {
    pub(super) async fn load(settings: &Settings) -> Result<Self, CredentialsError> {
        let files = Files {
            tls: settings.tls.clone(),
            tokens: settings.token_file.clone(),
        };
        let mut access = Access::open().with_rules(settings.rules.clone());
        let mut live = None;
        if let Some(files) = &files.tls {
            let faces = faces(files, &pem(files).await?)?;
            live = Some(Arc::new(ArcSwap::from_pointee(faces)));
            if files.client_ca.is_some() {
                access = access.with_certificates();
            }
        }
        if let Some(path) = &files.tokens {
            access = access.with_tokens(tokens(path, &read("auth.token_file", path).await?)?);
        }
        Ok(Self {
            access,
            tls: live,
            reload: Reload::default(),
            files,
        })
    }

    /// Says once what a network that is not this machine's own can do here.
    pub(super) fn warn_if_open(&self, settings: &Settings) {
        let (encrypted, asks) = (self.tls.is_some(), self.access.asks());
        let addresses = [("listen", settings.listen), ("http", settings.http)];
        for (setting, address) in addresses.iter().filter(|(_, at)| !at.ip().is_loopback()) {
            match (encrypted, asks) {
                (true, true) => {}
                (false, true) => {
                    warn!(setting, %address, "bearer tokens travel in the clear: configure TLS");
                }
                (_, false) => warn!(
                    setting,
                    %address,
                    "whoever reaches this address may do everything: configure credentials, or \
                     listen on loopback"
                ),
            }
        }
    }

    /// Reads the files again and again; ends at once if there are none.
    pub(super) fn watch(&self, clock: &Arc<dyn Clock>, every: Duration) -> Option<Watch> {
        let Files { tls, tokens } = &self.files;
        if tls.is_none() && tokens.is_none() {
            return None;
        }
        Some(Watch {
            access: self.access.clone(),
            live: self.tls.clone(),
            files: self.files.clone(),
            asked: self.reload.clone(),
            clock: Arc::clone(clock),
            every,
            seen: Seen::default(),
        })
    }
}

/// Takes what the files have whenever they have changed. What cannot be used changes nothing.
pub(super) struct Watch {
    access: Access,
    live: Option<Live>,
    files: Files,
    asked: Reload,
    clock: Arc<dyn Clock>,
    every: Duration,
    seen: Seen,
}

impl Watch {
    pub(super) async fn run(mut self) {
        loop {
            // They may have changed since they were loaded, so the first look takes them once more.
            if let Err(error) = self.look().await {
                self.tell(&error);
            } else {
                self.seen.failed = None;
            }
            tokio::select! {
                () = self.clock.sleep(self.every) => {}
                () = self.asked.0.notified() => info!("asked to read certificates and tokens again"),
            }
        }
    }

    async fn look(&mut self) -> Result<(), CredentialsError> {
        let certificates = self.look_at_certificates().await;
        // One bad file does not keep the other from being taken.
        self.look_at_tokens().await.and(certificates)
    }

    async fn look_at_certificates(&mut self) -> Result<(), CredentialsError> {
        let (Some(files), Some(live)) = (&self.files.tls, &self.live) else {
            return Ok(());
        };
        let now = pem(files).await?;
        if self.seen.pem.as_ref() == Some(&now) {
            return Ok(());
        }
        let is_first = self.seen.pem.is_none();
        let made = faces(files, &now);
        self.seen.pem = Some(now);
        live.store(Arc::new(made?));
        if !is_first {
            info!(certificate = %files.cert.display(), "new certificates are in use");
        }
        Ok(())
    }

    async fn look_at_tokens(&mut self) -> Result<(), CredentialsError> {
        let Some(path) = &self.files.tokens else {
            return Ok(());
        };
        let now = read("auth.token_file", path).await?;
        if self.seen.tokens.as_ref() == Some(&now) {
            return Ok(());
        }
        let is_first = self.seen.tokens.is_none();
        let made = tokens(path, &now);
        self.seen.tokens = Some(now);
        let made = made?;
        let count = made.count();
        self.access.replace_tokens(made);
        if !is_first {
            info!(file = %path.display(), count, "new tokens are in use");
        }
        Ok(())
    }

    fn tell(&mut self, error: &CredentialsError) {
        let told = error.to_string();
        if self.seen.failed.as_ref() != Some(&told) {
            let cause: &dyn Error = error;
            warn!(
                error = cause,
                "credentials cannot be taken; those before stay in use"
            );
            self.seen.failed = Some(told);
        }
    }
}

async fn read(setting: &'static str, path: &Path) -> Result<Vec<u8>, CredentialsError> {
    let read = async {
        let mut bytes = Vec::new();
        let file = tokio::fs::File::open(path).await?;
        file.take(MAX_FILE_BYTES + 1)
            .read_to_end(&mut bytes)
            .await?;
        if u64::try_from(bytes.len()).is_ok_and(|length| length <= MAX_FILE_BYTES) {
            return Ok(bytes);
        }
        let what = format!("it has more than {MAX_FILE_BYTES} bytes");
        Err(io::Error::new(io::ErrorKind::FileTooLarge, what))
    };
    read.await.map_err(|source| CredentialsError::Read {
        setting,
        path: path.to_owned(),
        source,
    })
}

async fn pem(files: &TlsFiles) -> Result<Pem, CredentialsError> {
    Ok(Pem {
        certificates: read("tls.cert_file", &files.cert).await?,
        key: read("tls.key_file", &files.key).await?,
        client_ca: match &files.client_ca {
            Some(path) => Some(read("tls.client_ca_file", path).await?),
            None => None,
        },
    })
}

fn faces(files: &TlsFiles, pem: &Pem) -> Result<Faces, CredentialsError> {
    Faces::new(pem).map_err(|(which, source)| {
        let (setting, path) = match which {
            Which::Certificate => ("tls.cert_file", Some(&files.cert)),
            Which::Key => ("tls.key_file", Some(&files.key)),
            Which::ClientCa => ("tls.client_ca_file", files.client_ca.as_ref()),
        };
        CredentialsError::Tls {
            setting,
            path: path.cloned().unwrap_or_default(),
            source,
        }
    })
}

fn tokens(path: &Path, bytes: &[u8]) -> Result<Tokens, CredentialsError> {
    let failed = |source| CredentialsError::Tokens {
        path: path.to_owned(),
        source,
    };
    // Where it is not text it is no TOML, and says where.
    Tokens::parse(&String::from_utf8_lossy(bytes)).map_err(failed)
}

#[cfg(test)]
mod tests;
