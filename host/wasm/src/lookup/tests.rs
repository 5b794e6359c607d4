use std::{fs, path::PathBuf};

use tempfile::TempDir;

use super::*;

fn table(dir: &TempDir, name: &str, text: &str, key: Option<&str>) -> LookupParams {
    let file: PathBuf = dir.path().join(name);
    fs::write(&file, text).unwrap();
    LookupParams {
        file,
        key: key.map(str::to_owned),
    }
}

fn found(params: &LookupParams, key: &str) -> Option<String> {
    let rows = read(params).unwrap();
    let row = rows.get(key)?;
    let pairs: Vec<_> = row
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    Some(pairs.join(" "))
}

#[test]
fn rows_are_found_in_csv_and_json() {
    let dir = tempfile::tempdir().unwrap();
    let csv = "id,site,\"lat, long\"\n7,North,\"1, 2\"\n8,South,\n7,Newer,\"3, 4\"\n";
    let by_first = table(&dir, "a.csv", csv, None);
    assert_eq!(found(&by_first, "7").unwrap(), "site=Newer lat, long=3, 4");
    assert_eq!(found(&by_first, "8").unwrap(), "site=South lat, long=");
    assert_eq!(found(&by_first, "id"), None);
    let by_site = table(&dir, "b.csv", csv, Some("site"));
    assert_eq!(found(&by_site, "South").unwrap(), "id=8 lat, long=");
    let object = r#"{"7": {"site": "North", "floor": 2, "on": true}, "8": "South"}"#;
    let object = table(&dir, "c.json", object, None);
    assert_eq!(found(&object, "7").unwrap(), "floor=2 on=true site=North");
    assert_eq!(found(&object, "8").unwrap(), "value=South");
    let list = r#"[{"id": 7, "site": "North"}, {"id": "x", "site": null}]"#;
    let list = table(&dir, "d.json", list, Some("id"));
    assert_eq!(found(&list, "7").unwrap(), "site=North");
    assert_eq!(found(&list, "x").unwrap(), "site=null");
}

#[test]
fn what_is_no_table_is_refused_with_its_reason() {
    let dir = tempfile::tempdir().unwrap();
    let cases = [
        ("a.csv", "id,site\n7\n", None, "line: 2"),
        (
            "b.csv",
            "id,site\n7,North\n",
            Some("sight"),
            "no column `sight`",
        ),
        ("c.json", "{\"a\": ", None, "EOF"),
        ("d.json", "[{\"id\": 7}]", None, "`key`"),
        (
            "e.json",
            "[{\"id\": 7}, {}]",
            Some("id"),
            "no `id` in row 2",
        ),
        ("f.json", "7", None, "no JSON object"),
    ];
    for (name, text, key, words) in cases {
        let error = read(&table(&dir, name, text, key)).unwrap_err();
        assert!(reason(&error).contains(words), "{name}: {}", reason(&error));
    }
    let missing = LookupParams {
        file: dir.path().join("none.csv"),
        key: None,
    };
    let tables = BTreeMap::from([("t".to_owned(), missing)]);
    assert_eq!(Tables::open(&tables).unwrap_err().0, "t");
}

#[test]
fn a_file_that_changes_is_read_again_and_a_broken_one_is_not_taken() {
    let dir = tempfile::tempdir().unwrap();
    let params = table(&dir, "a.csv", "id,site\n7,North\n", None);
    let file = params.file.clone();
    let tables = Tables::open(&BTreeMap::from([("t".to_owned(), params)])).unwrap();
    let site = || {
        tables.look();
        let row = tables.find("t", "7");
        row.map(|row| row[0].1.to_string())
    };
    assert_eq!(site().as_deref(), Some("North"));
    // Each text has a length of its own, so that no clock is needed to tell them apart.
    fs::write(&file, "id,site\n7,Southern\n").unwrap();
    assert_eq!(site().as_deref(), Some("Southern"));
    fs::write(&file, "id,site\n7\n").unwrap();
    assert_eq!(site().as_deref(), Some("Southern"));
    fs::remove_file(&file).unwrap();
    assert_eq!(site().as_deref(), Some("Southern"));
    fs::write(&file, "id,site\n9,East\n").unwrap();
    assert_eq!(site(), None);
    assert!(tables.find("other", "9").is_none());
}
