//! What a TLS connection trusts, and what it shows.

use std::path::{Path, PathBuf};

use fred::{
    rustls::{
        ClientConfig, RootCertStore,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    },
    types::config::TlsConnector,
};

use crate::LinkError;

/// Files for `rediss://` and its like, in PEM. All may be left out.
#[derive(Clone, Debug, Default)]
pub struct TlsFiles {
    /// Roots that are trusted in place of the system's.
    pub roots: Option<PathBuf>,
    /// This client's certificate and its key.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// What fred makes its TLS connections with.
pub(crate) fn connector(files: &TlsFiles) -> Result<TlsConnector, LinkError> {
    let roots = match &files.roots {
        Some(path) => roots(path)?,
        None if files.identity.is_none() => {
            return TlsConnector::default_rustls().map_err(|_| unusable("the system's roots cannot be read"));
        }
        None => system_roots()?,
    };
    let config = ClientConfig::builder().with_root_certificates(roots);
    let config = match &files.identity {
        None => config.with_no_client_auth(),
        Some((certificate, key)) => {
            let key = PrivateKeyDer::from_pem_file(key).map_err(|error| of_file(key, &error))?;
            let identity = config.with_client_auth_cert(certificates(certificate)?, key);
            identity.map_err(|error| of_file(certificate, &error))?
        }
    };
    Ok(config.into())
}

fn roots(path: &Path) -> Result<RootCertStore, LinkError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots.add(certificate).map_err(|error| of_file(path, &error))?;
    }
    Ok(roots)
}

fn system_roots() -> Result<RootCertStore, LinkError> {
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(fred::rustls_native_certs::load_native_certs().certs);
    if added == 0 { Err(unusable("the system has no roots")) } else { Ok(roots) }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, LinkError> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path).map_err(|error| of_file(path, &error))?.collect();
    let all = all.map_err(|error| of_file(path, &error))?;
    if all.is_empty() { Err(of_file(path, &"there is no certificate in it")) } else { Ok(all) }
}

fn of_file(path: &Path, why: &dyn std::fmt::Display) -> LinkError {
    LinkError::Tls(format!("{}: {why}", path.display()))
}

fn unusable(why: &str) -> LinkError {
    LinkError::Tls(format!("{why}; name a file of roots"))
}
