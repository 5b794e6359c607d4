use std::fs;

use super::*;

fn around() -> Surroundings {
    Surroundings::of(|name| match name {
        "HOST" => Some("broker".into()),
        "CREDENTIALS_DIRECTORY" => Some("/nowhere/credentials".into()),
        _ => None,
    })
}

fn check(written: &str, expected: &str) {
    let replaced = replace(written, &around()).map(|replaced| replaced.text);
    assert_eq!(replaced.as_deref(), Ok(expected), "{written}");
}

#[test]
fn variables_are_put_in_wherever_they_stand() {
    check("plain", "plain");
    check("${env:HOST}", "broker");
    check(
        "mqtt://${env:HOST}:1883/${env:HOST}",
        "mqtt://broker:1883/broker",
    );
    check("100 $ and %{header} and {}", "100 $ and %{header} and {}");
}

#[test]
fn a_doubled_dollar_is_a_plain_one() {
    check("$${env:HOST}", "${env:HOST}");
    check("$$${env:HOST}", "$${env:HOST}");
}

#[test]
fn what_came_from_a_file_is_secret_and_has_no_line_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    fs::write(&path, "s3cret\r\n\n").unwrap();
    let written = format!("Bearer ${{file:{}}}", path.display());
    let replaced = replace(&written, &around()).unwrap();
    assert_eq!(
        (replaced.text.as_str(), replaced.secret),
        ("Bearer s3cret", true)
    );
}

#[test]
fn a_credential_is_found_in_the_folder_of_the_service() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("mqtt"), "pass").unwrap();
    let path = folder.path().display().to_string();
    let around = Surroundings::of(move |_| Some(path.clone()));
    let replaced = replace("${cred:mqtt}", &around).unwrap();
    assert_eq!((replaced.text.as_str(), replaced.secret), ("pass", true));
}

#[test]
fn what_is_wrong_with_a_reference_is_said() {
    let wrong = [
        ("${env:NONE}", "the environment variable `NONE` is not set"),
        ("${env:HOST", "`${` without `}`"),
        ("${evn:HOST}", "unknown reference `${evn:HOST}`"),
        ("${}", "unknown reference `${}`"),
        ("${cred:../x}", "`../x` is not the name of a credential"),
        (
            "${file:/dev/zero}",
            "cannot read `/dev/zero`: it is larger than 64 KiB",
        ),
    ];
    for (written, message) in wrong {
        let found = replace(written, &around()).unwrap_err();
        assert_eq!(found.message, message, "{written}");
    }
}
