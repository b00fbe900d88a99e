//! Files that are wrong, and files that change.

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tempfile::TempDir;

use super::*;

fn good(directory: &TempDir) -> TlsFiles {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    let certificate = params.signed_by(&key, &issuer).unwrap();
    let write = |name: &str, pem: String| {
        let file = directory.path().join(name);
        fs::write(&file, pem).unwrap();
        file
    };
    TlsFiles {
        ca: write("ca.pem", issuer.pem()),
        certificate: write("certificate.pem", certificate.pem()),
        key: write("key.pem", key.serialize_pem()),
        allowed_names: Vec::new(),
    }
}

#[test]
fn an_error_names_the_file_and_what_is_wrong_with_it() {
    let directory = TempDir::new().unwrap();
    let files = good(&directory);
    assert!(Tls::load(files.clone()).is_ok());
    let missing = directory.path().join("missing.pem");
    let empty = directory.path().join("empty.pem");
    fs::write(&empty, "").unwrap();
    let broken = directory.path().join("broken.pem");
    fs::write(&broken, "-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n").unwrap();
    let hollow = directory.path().join("hollow.pem");
    fs::write(&hollow, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
    let with = |change: &dyn Fn(&mut TlsFiles)| {
        let mut files = files.clone();
        change(&mut files);
        Tls::load(files).expect_err("the files are bad")
    };
    let error = with(&|files| files.ca = missing.clone());
    assert!(matches!(&error, TlsError::Read { file, .. } if *file == missing), "{error}");
    let error = with(&|files| files.certificate = empty.clone());
    assert!(matches!(&error, TlsError::NoCertificate { file } if *file == empty), "{error}");
    let error = with(&|files| files.key = files.certificate.clone());
    assert!(matches!(&error, TlsError::NoKey { file } if *file == files.certificate), "{error}");
    let error = with(&|files| files.certificate = broken.clone());
    assert!(matches!(&error, TlsError::Pem { file, .. } if *file == broken), "{error}");
    let error = with(&|files| files.ca = hollow.clone());
    assert!(matches!(&error, TlsError::Authority { file, .. } if *file == hollow), "{error}");
    let elsewhere = TempDir::new().unwrap();
    let other = good(&elsewhere);
    let error = with(&|files| files.key = other.key.clone());
    assert!(matches!(&error, TlsError::Pair { key, .. } if *key == other.key), "{error}");
    let error = with(&|files| files.allowed_names = vec![String::new()]);
    assert!(matches!(error, TlsError::EmptyName), "{error}");
}

#[test]
fn changed_files_are_used_and_bad_ones_are_not() {
    let directory = TempDir::new().unwrap();
    let tls = Tls::load(good(&directory)).unwrap();
    let first = Arc::clone(&tls.0.loaded.lock().server);
    let is_first = || Arc::ptr_eq(&tls.0.loaded.lock().server, &first);
    // Time passes.
    let look = || {
        tls.0.loaded.lock().looked = Instant::now().checked_sub(LOOK_INTERVAL).unwrap();
        tls.look();
    };
    look();
    assert_eq!((tls.reloads(), is_first()), ((0, 0), true));

    fs::write(&tls.0.files.certificate, "a certificate that is being written").unwrap();
    look();
    look();
    assert_eq!((tls.reloads(), is_first()), ((0, 1), true), "bad files are read once");

    good(&directory);
    // Not before it is time.
    tls.look();
    assert!(is_first());
    look();
    assert_eq!((tls.reloads(), is_first()), ((1, 1), false));
}
