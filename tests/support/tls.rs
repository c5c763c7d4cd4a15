//! An authority of the test's own, and certificates by it, made by openssl.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use super::unique;

/// A folder of certificates; it ends with its value.
#[derive(Debug)]
pub struct Certificates {
    folder: PathBuf,
}

impl Certificates {
    /// An authority that has signed for a server on 127.0.0.1 and for a client.
    pub fn new() -> Self {
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(unique("tls"));
        std::fs::create_dir_all(&folder).expect("a folder for certificates");
        let certificates = Self { folder };
        certificates
            .openssl("req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=test-authority -keyout ca.key -out ca.pem");
        for (name, extensions) in [
            ("server", "subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth"),
            ("client", "extendedKeyUsage=clientAuth"),
        ] {
            std::fs::write(certificates.folder.join("extensions"), extensions).expect("a file for openssl");
            certificates
                .openssl(&format!("req -newkey rsa:2048 -nodes -subj /CN={name} -keyout {name}.key -out {name}.csr"));
            certificates.openssl(&format!(
                "x509 -req -days 2 -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -extfile extensions -out {name}.pem"
            ));
        }
        certificates
    }

    /// The authority's own certificate.
    pub fn roots(&self) -> PathBuf {
        self.folder.join("ca.pem")
    }

    /// Roots, certificate and key of the server.
    pub fn server(&self) -> [PathBuf; 3] {
        ["ca.pem", "server.pem", "server.key"].map(|name| self.folder.join(name))
    }

    /// Roots, certificate and key of the client.
    pub fn client(&self) -> [PathBuf; 3] {
        ["ca.pem", "client.pem", "client.key"].map(|name| self.folder.join(name))
    }

    fn openssl(&self, arguments: &str) {
        let made = Command::new("openssl")
            .args(arguments.split(' '))
            .current_dir(Path::new(&self.folder))
            .stdin(Stdio::null())
            .output()
            .expect("openssl is not installed; `make test` installs it");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    }
}

impl Drop for Certificates {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
