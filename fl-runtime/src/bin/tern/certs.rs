//! `tern certs`: a private authority and a server's certificate.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use clap::Args;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use tern_fl::host::files::write_new_private;
use tern_fl::host::tls;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// Days that the authority's certificate is valid.
const AUTHORITY_DAYS: u32 = 3650;

/// Makes a private authority (once) and a certificate for a server.
///
/// Clients get `ca.pem` and trust servers whose certificate it signed. Keep `ca.key` off the
/// server; it is only needed to make further certificates.
#[derive(Args, Debug)]
pub struct Options {
    /// Host names and addresses by which clients reach the server.
    #[arg(required = true, value_name = "NAME", value_parser = name)]
    names: Vec<String>,
    /// Folder of the files.
    #[arg(long, default_value = "certs")]
    folder: PathBuf,
    /// Days that the server's certificate is valid.
    #[arg(long, default_value_t = 730, value_parser = clap::value_parser!(u32).range(1..=3650))]
    days: u32,
}

fn name(text: &str) -> Result<String, String> {
    match tls::is_server_name(text) {
        true => Ok(text.to_owned()),
        false => Err("expected a host name or an IP address, without scheme and port".into()),
    }
}

/// Writes `ca.pem` and `ca.key` unless they are there, then `server.pem` and `server.key`.
pub fn run(options: &Options) -> Result<()> {
    let folder = &options.folder;
    std::fs::create_dir_all(folder).with_context(|| format!("folder {}", folder.display()))?;
    let [ca, ca_key, certificate, key] =
        ["ca.pem", "ca.key", "server.pem", "server.key"].map(|name| folder.join(name));
    ensure!(
        !key.exists(),
        "{} exists; move it away, it may be in use, or choose another --folder",
        key.display()
    );
    let (authority, made) = match ca_key.exists() {
        true => (load(&ca, &ca_key)?, false),
        false => (create(&ca, &ca_key)?, true),
    };
    let server_key = KeyPair::generate()?;
    let issued = server_parameters(&options.names, options.days)?
        .signed_by(&server_key, &authority)
        .context("server certificate")?;
    write_private(&key, &server_key.serialize_pem())?;
    write(&certificate, &issued.pem())?;
    super::say(format_args!(
        "{} authority {}\nserver certificate {} for {}, key {}",
        if made { "made" } else { "used" },
        ca.display(),
        certificate.display(),
        options.names.join(", "),
        key.display(),
    ));
    Ok(())
}

/// The authority's parameters follow from its key, so that the key alone is enough to sign.
fn authority_parameters(key: &KeyPair) -> Result<CertificateParams> {
    let mut parameters = CertificateParams::new(Vec::new())?;
    let identifier = parameters.key_identifier(key);
    let name: String = identifier.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    parameters.distinguished_name = rcgen::DistinguishedName::new();
    parameters.distinguished_name.push(DnType::CommonName, format!("Tern private CA {name}"));
    parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    valid_for(&mut parameters, AUTHORITY_DAYS);
    Ok(parameters)
}

fn server_parameters(names: &[String], days: u32) -> Result<CertificateParams> {
    let mut parameters = CertificateParams::new(names.to_vec())
        .with_context(|| format!("names {}: expected host names or addresses", names.join(", ")))?;
    parameters.distinguished_name = rcgen::DistinguishedName::new();
    parameters.distinguished_name.push(DnType::CommonName, names[0].clone());
    parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    parameters.use_authority_key_identifier_extension = true;
    valid_for(&mut parameters, days);
    Ok(parameters)
}

fn valid_for(parameters: &mut CertificateParams, days: u32) {
    let now = SystemTime::now();
    // A client's clock may be behind.
    parameters.not_before = (now - DAY).into();
    parameters.not_after = (now + DAY * days).into();
}

fn create(ca: &Path, ca_key: &Path) -> Result<Issuer<'static, KeyPair>> {
    let key = KeyPair::generate()?;
    let parameters = authority_parameters(&key)?;
    let certificate = parameters.self_signed(&key).context("authority")?;
    write_private(ca_key, &key.serialize_pem())?;
    write(ca, &certificate.pem())?;
    Ok(Issuer::new(parameters, key))
}

fn load(ca: &Path, ca_key: &Path) -> Result<Issuer<'static, KeyPair>> {
    ensure!(ca.exists(), "{} is there, but not {}", ca_key.display(), ca.display());
    let text = std::fs::read_to_string(ca_key).with_context(|| ca_key.display().to_string())?;
    let key = KeyPair::from_pem(&text)
        .with_context(|| format!("{}: expected a private key in PEM", ca_key.display()))?;
    Ok(Issuer::new(authority_parameters(&key)?, key))
}

fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).with_context(|| path.display().to_string())
}

fn write_private(path: &Path, text: &str) -> Result<()> {
    write_new_private(path, text.as_bytes()).with_context(|| path.display().to_string())
}
