//! The world in binary form says what `wit/` says. `BLESS=1` rewrites it.

use std::{fs, path::Path};

use wit_component::StringEncoding;
use wit_parser::Resolve;

#[test]
fn the_binary_world_is_the_written_one() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut resolve = Resolve::default();
    let (package, _) = resolve.push_path(here.join("../../wit")).unwrap();
    let world = resolve
        .select_world(&[package], Some("packed-interceptor-handler"))
        .unwrap();
    let encoded =
        wit_component::metadata::encode(&resolve, world, StringEncoding::UTF8, None).unwrap();
    let file = here.join("src/abi/world.bin");
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
