//! Attempts against receivers on loopback that do what receivers do.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Instant;
use std::{fs, thread};

use rcgen::{CertificateParams, CertifiedIssuer, KeyPair, date_time_ymd};
use reqwest::dns::Resolve as _;
use reqwest::header::{HeaderMap, HeaderName};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::*;
use crate::endpoint::{Address, Field};
use crate::keys::Keys;
use crate::signature::Secret;

const SECRETS: [&str; 2] = ["whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX", "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"];
/// For what comes within a moment.
const LONG: Duration = Duration::from_secs(60);
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

/// A request as it came.
#[derive(Debug)]
struct Request {
    line: String,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Request {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

fn read_request(stream: &mut impl Read) -> Option<Request> {
    let mut octets = Vec::new();
    let mut octet = [0];
    while !octets.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut octet).ok()?;
        octets.push(octet[0]);
    }
    let head = String::from_utf8(octets).unwrap();
    let mut lines = head.split("\r\n").filter(|line| !line.is_empty());
    let line = lines.next()?.to_owned();
    let headers: HeaderMap = lines
        .map(|line| {
            let (name, value) = line.split_once(": ").unwrap();
            (name.parse::<HeaderName>().unwrap(), value.parse().unwrap())
        })
        .collect();
    let mut body = vec![0; headers.get("content-length").map_or(0, |n| n.to_str().unwrap().parse().unwrap())];
    stream.read_exact(&mut body).ok()?;
    Some(Request { line, headers, body })
}

/// A receiver: `answer` is what it does with each request; requests come out of the channel.
fn receiver(answer: impl Fn(&mut TcpStream) + Send + 'static) -> (String, Receiver<Request>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    let (to, requests) = channel();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            while let Some(request) = read_request(&mut stream) {
                answer(&mut stream);
                if to.send(request).is_err() {
                    return;
                }
            }
        }
    });
    (url, requests)
}

fn says(answer: impl Into<String>) -> (String, Receiver<Request>) {
    let answer = answer.into();
    receiver(move |stream| drop(stream.write_all(answer.as_bytes())))
}

fn endpoint(url: &str) -> Endpoint {
    let keys = Keys::Given(SECRETS.iter().map(|text| Secret::parse(text).unwrap()).collect());
    let mut endpoint = Endpoint::new("ops", Address::parse(url).unwrap(), keys);
    endpoint.timeout = LONG;
    endpoint.connect_timeout = LONG;
    endpoint
}

fn message() -> Message {
    Message { id: "01JABCDEFGHJKMNPQRSTVWXYZ0".into(), body: br#"{"type":"config.loaded","text":"\u00e4"}"#.to_vec() }
}

fn carry(endpoint: Endpoint) -> Result<u16, Failure> {
    let courier = Http::new(endpoint, HeaderValue::from_static("cygnet/1.2"));
    run(async { courier.carry(&message()).await })
}

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

#[track_caller]
fn fails(url: &str, class: Class, text: &str) -> Failure {
    fails_with(endpoint(url), class, text)
}

#[track_caller]
fn fails_with(endpoint: Endpoint, class: Class, text: &str) -> Failure {
    let failure = carry(endpoint).unwrap_err();
    assert!(failure.class == class && failure.text.contains(text), "{failure:?}");
    failure
}

#[test]
fn a_message_is_what_the_specification_says() {
    let (url, requests) = says(OK);
    let url = url.replace("http://", "http://me:pass%20word@");
    let mut endpoint = endpoint(&url);
    endpoint.fields.push(Field::parse("X-Tenant", "blue").unwrap());
    assert_eq!(carry(endpoint), Ok(200));
    let request = requests.recv().unwrap();
    assert_eq!(request.line, "POST /hook HTTP/1.1");
    assert_eq!((request.header("content-type"), request.header("user-agent")), ("application/json", "cygnet/1.2"));
    assert_eq!((request.header("webhook-id"), request.header("x-tenant")), (message().id.as_str(), "blue"));
    assert_eq!(request.header("authorization"), "Basic bWU6cGFzcyB3b3Jk");
    assert_eq!(request.body, message().body);
    for secret in SECRETS {
        standardwebhooks::Webhook::new(secret).unwrap().verify(&request.body, &request.headers).unwrap();
    }
    let other = standardwebhooks::Webhook::new("whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA").unwrap();
    assert!(other.verify(&request.body, &request.headers).is_err());
}

#[test]
fn each_status_means_what_it_should() {
    for status in [200, 201, 202, 204, 299] {
        assert_eq!(carry(endpoint(&says(format!("HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n")).0)), Ok(status));
    }
    let cases = [
        (304, Class::Redirect),
        (400, Class::Refused),
        (401, Class::Refused),
        (404, Class::Refused),
        (410, Class::Gone),
        (429, Class::Busy),
        (500, Class::Server),
        (502, Class::Server),
        (503, Class::Busy),
    ];
    for (status, class) in cases {
        let url = says(format!("HTTP/1.1 {status} X\r\nContent-Length: 4\r\nRetry-After: 7\r\n\r\noops")).0;
        let failure = fails(&url, class, &format!("answered {status}"));
        let asked = (class == Class::Busy).then_some(Duration::from_secs(7));
        assert_eq!((failure.status, failure.asked), (Some(status), asked));
    }
}

#[test]
fn a_redirect_is_not_followed() {
    let (other, requests) = says(OK);
    for status in [301, 302, 303, 307, 308] {
        let url = says(format!("HTTP/1.1 {status} X\r\nLocation: {other}\r\nContent-Length: 0\r\n\r\n")).0;
        fails(&url, Class::Redirect, "redirects are not followed");
    }
    assert!(requests.try_recv().is_err(), "nobody went there");
}

#[test]
fn nobody_there_and_nobody_answering_are_told_apart() {
    fails("http://127.0.0.1:1/", Class::Connect, "Connection refused");
    let (failed, has_failed) = channel::<()>();
    let (url, _requests) = receiver(move |_| has_failed.recv().unwrap_or_default());
    let impatient = Endpoint { timeout: Duration::from_millis(500), ..endpoint(&url) };
    fails_with(impatient, Class::Timeout, "no answer in time");
    drop(failed);
    // What is accepted and closed, and what is no HTTP.
    let (url, _requests) = receiver(|stream| drop(stream.shutdown(std::net::Shutdown::Both)));
    fails(&url, Class::Protocol, "no HTTP answer");
    fails(&says("220 mail.example ESMTP\r\n").0, Class::Protocol, "no HTTP answer");
    let endless = format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(4 << 20));
    fails(&says(endless).0, Class::Protocol, "no HTTP answer");
}

/// What an answer is worth stands in its status: its body neither fills our memory nor takes our time.
#[test]
fn slow_and_giant_bodies_change_nothing() {
    let (url, _requests) = receiver(|stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        while stream.write_all(b"1\r\nx\r\n").is_ok() {
            thread::sleep(Duration::from_millis(100));
        }
    });
    let began = Instant::now();
    assert_eq!(carry(endpoint(&url)), Ok(200));
    assert!(began.elapsed() < LONG / 2, "{:?}", began.elapsed());
    for head in ["Transfer-Encoding: chunked", "Content-Length: 1073741824"] {
        let (told, written) = channel();
        let (url, _requests) = receiver(move |stream| {
            let _ = stream.write_all(format!("HTTP/1.1 500 X\r\n{head}\r\n\r\n").as_bytes());
            let mut sum = 0;
            let chunk = format!("10000\r\n{}\r\n", "x".repeat(0x10000));
            while sum < 64 << 20 && stream.write_all(chunk.as_bytes()).is_ok() {
                sum += chunk.len();
            }
            let _ = told.send(sum);
        });
        fails(&url, Class::Server, "500");
        let sum = written.recv().unwrap();
        assert!(sum < 32 << 20, "{sum} octets were taken");
    }
}

#[test]
fn names_and_addresses_are_judged() {
    fails("http://nowhere.invalid/", Class::Resolve, "the name nowhere.invalid cannot be resolved");
    fails("http://169.254.169.254/latest", Class::Forbidden, "link-local");
    fails("http://[fe80::1]/", Class::Forbidden, "link-local");
    fails("http://0.0.0.0:1/", Class::Forbidden, "no address of anybody");
    // What a name stands for is judged by the resolver itself, whoever asks it.
    let ask = |name: &str, allow_link_local| {
        let answer = run(Guarded { allow_link_local }.resolve(name.parse().unwrap()));
        answer.map(|found| found.count()).map_err(|error| error.to_string())
    };
    assert!(ask("169.254.169.254", false).unwrap_err().contains("stands for a forbidden address"));
    assert_eq!(ask("169.254.169.254", true), Ok(1));
    assert!(ask("localhost", false).unwrap() >= 1);
    let (url, requests) = says(OK);
    assert_eq!(carry(endpoint(&url.replace("127.0.0.1", "localhost"))), Ok(200), "through the resolver");
    requests.recv().unwrap();
}

#[test]
fn a_proxy_is_used_where_one_is_named() {
    let (proxy, requests) = says(OK);
    let mut endpoint = endpoint("http://hooks.invalid/hook");
    endpoint.proxy = Some(Address::parse(&proxy).unwrap());
    assert_eq!(carry(endpoint), Ok(200));
    assert_eq!(requests.recv().unwrap().line, "POST http://hooks.invalid/hook HTTP/1.1");
    let mut endpoint = self::endpoint("http://hooks.invalid/hook");
    endpoint.proxy = Some(Address::parse("http://[::ffff:169.254.169.254]:3128/").unwrap());
    assert_eq!(carry(endpoint).unwrap_err().class, Class::Forbidden);
}

#[test]
fn files_that_are_missing_are_told_of() {
    let mut without = endpoint("http://127.0.0.1:1/");
    without.keys = Keys::File("/nonexistent/secret".into());
    let failure = carry(without).unwrap_err();
    assert!(failure.class == Class::Settings && failure.text.contains("/nonexistent/secret"), "{failure:?}");
    let mut without = endpoint("https://127.0.0.1:1/");
    without.ca_file = Some("/nonexistent/ca.pem".into());
    let failure = carry(without).unwrap_err();
    assert!(failure.class == Class::Settings && failure.text.contains("/nonexistent/ca.pem"), "{failure:?}");
}

/// A certification authority and its file.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    file: PathBuf,
}

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let file = std::env::temp_dir().join(format!("webhook-ca-{}-{name}.pem", std::process::id()));
        fs::write(&file, issuer.pem()).unwrap();
        Self { issuer, file }
    }

    /// A receiver over TLS with a certificate for `name`, good until `year`.
    fn receiver(&self, name: &str, year: i32) -> String {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(year, 1, 1);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let chain = vec![CertificateDer::from_pem_slice(certificate.pem().as_bytes()).unwrap()];
        let key = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let config = Arc::new(config);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let connection = rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
                let mut stream = rustls::StreamOwned::new(connection, stream);
                if read_request(&mut stream).is_some() {
                    let _ = stream.write_all(OK.as_bytes());
                    let _ = stream.flush();
                }
            }
        });
        format!("https://localhost:{port}/hook")
    }
}

/// One that speaks first, and no TLS.
fn greeter() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.write_all(b"220 mail.example ESMTP\r\n");
            let _ = stream.read(&mut [0; 4096]);
        }
    });
    format!("https://localhost:{port}/hook")
}

impl Drop for Authority {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.file);
    }
}

#[test]
fn only_the_right_certificate_is_talked_to() {
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let to = |url: &str, ca: &Authority| {
        let mut endpoint = endpoint(url);
        endpoint.ca_file = Some(ca.file.clone());
        carry(endpoint)
    };
    let good = ours.receiver("localhost", 2090);
    assert_eq!(to(&good, &ours), Ok(200));
    let cases = [
        (good, &theirs, "UnknownIssuer"),
        (ours.receiver("localhost", 2021), &ours, "expired"),
        (ours.receiver("elsewhere.example", 2090), &ours, "not valid for name"),
        (greeter(), &ours, "no TLS connection"),
    ];
    for (url, authority, text) in cases {
        let failure = to(&url, authority).unwrap_err();
        assert!(failure.class == Class::Tls && failure.text.contains(text), "{text}: {failure:?}");
    }
    // The system trusts none of them, or nobody at all.
    let failure = carry(endpoint(&ours.receiver("localhost", 2090))).unwrap_err();
    assert!(matches!(failure.class, Class::Tls | Class::Settings), "{failure:?}");
}

/// A certificate that was put right is found by the next attempt.
#[test]
fn trusted_certificates_are_read_again_after_a_refusal() {
    let (ours, theirs) = (Authority::new("renewed"), Authority::new("outdated"));
    let mut endpoint = endpoint(&ours.receiver("localhost", 2090));
    endpoint.ca_file = Some(theirs.file.clone());
    let courier = Http::new(endpoint, HeaderValue::from_static("cygnet/1.2"));
    run(async {
        assert_eq!(courier.carry(&message()).await.unwrap_err().class, Class::Tls);
        fs::copy(&ours.file, &theirs.file).unwrap();
        assert_eq!(courier.carry(&message()).await, Ok(200));
    });
}
