//! The worlds in binary form say what `wit/` says. `BLESS=1` rewrites them.

use std::{fs, path::Path};

use wit_component::StringEncoding;
use wit_parser::Resolve;

/// Files, and the worlds that they are.
const WORLDS: [(&str, &str); 5] = [
    ("world.bin", "packed-interceptor-handler"),
    ("imports.bin", "imports"),
    ("timer.bin", "timer-handler"),
    ("sink.bin", "packed-sink-handler"),
    ("source.bin", "source-handler"),
];

#[test]
fn the_binary_worlds_are_the_written_ones() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut resolve = Resolve::default();
    let (package, _) = resolve.push_path(here.join("../../wit")).unwrap();
    for (file, name) in WORLDS {
        let world = resolve.select_world(&[package], Some(name)).unwrap();
        let encoded =
            wit_component::metadata::encode(&resolve, world, StringEncoding::UTF8, None).unwrap();
        let file = here.join("src/abi").join(file);
        if std::env::var_os("BLESS").is_some() {
            fs::write(&file, &encoded).unwrap();
        }
        let kept = fs::read(&file).unwrap();
        assert!(
            kept == encoded,
            "{} is out of date: run with BLESS=1",
            file.display()
        );
    }
}
