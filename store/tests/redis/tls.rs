//! A server that wants TLS, a certificate of ours, and a user with few rights.

use std::path::Path;
use std::time::Duration;

use holdfast_store::{RedisOptions, RedisStore};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

use crate::load::Load;
use crate::redis_server::{RedisServer, free_port};

/// What docs/operating.md gives the user.
const USER: &str = "user holdfast on >secret ~hf* resetchannels -@all +@read +@write +@connection +@scripting +info +role +wait +time +cluster|slots +cluster|info";

/// Makes an authority and certificates by it: `ca.pem`, and `server` and `client` with their keys.
fn make_certificates(directory: &Path) {
    let mut params = CertificateParams::new(vec![]).unwrap();
    params.distinguished_name.push(DnType::CommonName, "an authority for a test");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let write = |name: &str, text: String| std::fs::write(directory.join(name), text).unwrap();
    write("ca.pem", authority.pem());
    for name in ["server", "client"] {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        write(&format!("{name}.pem"), params.signed_by(&key, &authority).unwrap().pem());
        write(&format!("{name}.key"), key.serialize_pem());
    }
}

#[test]
fn a_server_is_spoken_to_over_tls_with_a_certificate_and_a_user_of_few_rights() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_str().unwrap();
    make_certificates(directory.path());
    let port = free_port();
    let arguments = format!(
        "--tls-port {port} --tls-ca-cert-file {path}/ca.pem --tls-cert-file {path}/server.pem \
         --tls-key-file {path}/server.key --tls-auth-clients yes"
    );
    let server = RedisServer::configured(free_port(), &arguments, USER);
    let connect = |user: &str, port: u16, query: &str| {
        let options = RedisOptions { deadline: Duration::from_secs(10), ..RedisOptions::default() };
        RedisStore::connect(&format!("rediss://{user}@127.0.0.1:{port}/?{query}"), options)
    };
    let whole = format!("ca={path}/ca.pem&cert={path}/client.pem&key={path}/client.key");
    let store = connect("holdfast:secret", port, &whole).unwrap();
    let mut load = Load::new(&store);
    load.run(5);
    load.check();
    drop(store);

    let refusal = |user: &str, port: u16, query: &str| {
        let refusal = connect(user, port, query).err().expect("it is refused").to_string();
        assert!(!refusal.contains('\n') && !refusal.contains("secret"), "{refusal}");
        refusal
    };
    let wrong = refusal("holdfast:wrong-secret", port, &whole);
    assert!(wrong.contains("does not accept the user and password"), "{wrong}");
    let without_authority = refusal("holdfast:secret", port, &whole.replacen("ca=", "ca=/nowhere", 1));
    assert!(without_authority.contains("cannot be used for TLS"), "{without_authority}");
    // The system's roots do not know the authority.
    let unknown = refusal("holdfast:secret", port, "");
    assert!(unknown.contains("cannot be reached") && unknown.contains("certificate"), "{unknown}");
    let without_certificate = refusal("holdfast:secret", port, &format!("ca={path}/ca.pem"));
    assert!(without_certificate.contains("cannot be reached"), "{without_certificate}");
    let plain = refusal("holdfast:secret", server.port(), &whole);
    assert!(plain.contains("cannot be reached"), "{plain}");
}

#[test]
fn a_file_that_is_no_certificate_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("ca.pem");
    std::fs::write(&file, "-----BEGIN CERTIFICATE-----\nbad\n-----END CERTIFICATE-----\n").unwrap();
    let url = format!("rediss://127.0.0.1:1/?ca={}", file.display());
    let refusal = RedisStore::connect(&url, RedisOptions::default()).err().unwrap().to_string();
    assert!(refusal.contains("its certificates cannot be used") && !refusal.contains('\n'), "{refusal}");
}
