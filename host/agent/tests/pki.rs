//! `levada pki` as it is typed.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Output},
};

use serde_json::Value;

fn pki(below: &Path, line: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_levada"));
    command.current_dir(below).arg("pki").args(line);
    command.output().unwrap()
}

/// What a line that succeeds writes to standard output.
fn said(below: &Path, line: &[&str]) -> String {
    let output = pki(below, line);
    assert!(output.status.success(), "{line:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// What a line that fails writes to standard error.
fn refused(below: &Path, line: &[&str]) -> String {
    let output = pki(below, line);
    assert_eq!(output.status.code(), Some(1), "{line:?}");
    String::from_utf8(output.stderr).unwrap()
}

fn listed(below: &Path) -> Vec<Value> {
    let list: Value = serde_json::from_str(&said(below, &["list", "--json"])).unwrap();
    list.as_array().unwrap().clone()
}

#[test]
fn an_authority_and_certificates_are_made_in_one_command_each() {
    let folder = tempfile::tempdir().unwrap();
    let below = folder.path();
    assert!(refused(below, &["issue", "edge-1"]).contains("`levada pki init --dir pki`"));
    said(below, &["init"]);
    let text = said(
        below,
        &[
            "issue",
            "edge-1",
            "--host",
            "10.0.0.7",
            "--host",
            "edge.example",
        ],
    );
    let line = r#"tls = { cert = "edge-1.pem", key = "edge-1.key", ca = "ca.pem" }"#;
    assert!(
        text.contains(line) && text.contains(r#"server-name = "edge-1""#),
        "{text}"
    );
    for file in ["ca.pem", "ca.key", "edge-1.pem", "edge-1.key"] {
        let mode = fs::metadata(below.join("pki").join(file))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
    let mode = fs::metadata(below.join("pki"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o700);
    let list = listed(below);
    assert_eq!(list.len(), 2);
    assert_eq!(list[0]["authority"], true);
    assert_eq!(list[1]["name"], "edge-1");
    assert_eq!(
        list[1]["names"],
        serde_json::json!(["edge-1", "10.0.0.7", "edge.example"])
    );
    // 90 days, and a little for the time this takes.
    let now = std::time::SystemTime::UNIX_EPOCH
        .elapsed()
        .unwrap()
        .as_millis();
    let days = (u128::from(list[1]["until-ms"].as_u64().unwrap()) - now + 3_600_000) / 86_400_000;
    assert_eq!(days, 90);
}

#[test]
fn a_certificate_is_renewed_and_an_authority_never_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let below = folder.path();
    said(below, &["init"]);
    said(below, &["issue", "edge-1", "--days", "2"]);
    let before = listed(below)[1].clone();
    assert!(said(below, &["list"]).contains("days left"));
    said(below, &["issue", "edge-1"]);
    let after = listed(below)[1].clone();
    assert_eq!(before["name"], after["name"]);
    assert_ne!(before["serial"], after["serial"]);
    assert!(before["until-ms"].as_u64() < after["until-ms"].as_u64());
    let authority = fs::read(below.join("pki/ca.key")).unwrap();
    assert!(refused(below, &["init"]).contains("is there already"));
    assert_eq!(fs::read(below.join("pki/ca.key")).unwrap(), authority);
}

#[test]
fn what_cannot_be_certified_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let below = folder.path();
    said(below, &["init", "--days", "30"]);
    for name in ["ca", "../edge", "a b", ""] {
        assert!(
            refused(below, &["issue", name]).contains("is no name for an agent"),
            "{name}"
        );
    }
    let host = refused(below, &["issue", "edge", "--host", "edge:4141"]);
    assert!(host.contains("neither a DNS name nor an address"), "{host}");
    // Nothing is good for longer than who signed it.
    said(below, &["issue", "edge"]);
    let list = listed(below);
    assert!(list[1]["until-ms"].as_u64() <= list[0]["until-ms"].as_u64());
    fs::write(below.join("pki/ca.key"), "nonsense").unwrap();
    assert!(refused(below, &["issue", "edge"]).contains("ca.key"));
}

#[test]
fn a_certificate_is_revoked_until_another_is_issued_under_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let below = folder.path();
    said(below, &["init"]);
    for name in ["edge-1", "edge-2"] {
        said(below, &["issue", name]);
    }
    let revoked = |name: &str| {
        let all = listed(below);
        let found = all.iter().find(|shown| shown["name"] == name);
        found.unwrap()["revoked"] == true
    };
    let text = said(below, &["revoke", "edge-1"]);
    assert!(
        text.contains("pki/ca.crl") && text.contains(r#"crl = "ca.crl""#),
        "{text}"
    );
    assert!(revoked("edge-1") && !revoked("edge-2"));
    assert!(said(below, &["list"]).contains("REVOKED"));
    assert!(said(below, &["revoke", "edge-1"]).contains("was revoked before"));
    // Both are on the list then; a new certificate is another one.
    said(below, &["revoke", "edge-2"]);
    said(below, &["issue", "edge-1"]);
    assert!(!revoked("edge-1") && revoked("edge-2"));
    let list: Value = serde_json::from_str(&said(below, &["revoke", "edge-2", "--json"])).unwrap();
    assert_eq!(
        (list["revoked"].as_u64(), &list["new"]),
        (Some(2), &Value::Bool(false))
    );
    assert!(refused(below, &["revoke", "edge-3"]).contains("levada pki list"));
    assert!(refused(below, &["revoke", "ca"]).contains("cannot revoke itself"));
}
