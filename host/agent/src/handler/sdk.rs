//! The SDK's sources, as they are copied into a new project.

/// Where they go, in the project.
pub(super) const FOLDER: &str = "vendor/levada-sdk";

macro_rules! files {
    ($($path:literal,)*) => {
        &[
            ("Cargo.toml", MANIFEST.as_bytes()),
            ("macros/Cargo.toml", MACROS_MANIFEST.as_bytes()),
            $(($path, include_bytes!(concat!("../../../../sdk/rust/", $path)))),*
        ]
    };
}

/// Every file with its path in the SDK's folder. Tests stay at home; manifests are made for life
/// outside of our workspace.
pub(super) const FILES: &[(&str, &[u8])] = files![
    "macros/src/lib.rs",
    "src/abi.rs",
    "src/abi/events.rs",
    "src/abi/http.rs",
    "src/abi/imports.bin",
    "src/abi/imports.rs",
    "src/abi/imports/granted.rs",
    "src/abi/sink.bin",
    "src/abi/source.bin",
    "src/abi/source.rs",
    "src/abi/timer.bin",
    "src/abi/timer.rs",
    "src/abi/world.bin",
    "src/answer.rs",
    "src/arena.rs",
    "src/batch.rs",
    "src/call.rs",
    "src/clock.rs",
    "src/failure.rs",
    "src/host.rs",
    "src/http.rs",
    "src/json.rs",
    "src/lib.rs",
    "src/log.rs",
    "src/lookup.rs",
    "src/metrics.rs",
    "src/outcome.rs",
    "src/outcomes.rs",
    "src/polled.rs",
    "src/random.rs",
    "src/secrets.rs",
    "src/settings.rs",
    "src/state.rs",
    "src/testing.rs",
    "src/testing/answer.rs",
    "src/testing/host.rs",
    "src/testing/input.rs",
    "src/text.rs",
    "src/verdict.rs",
    "src/verdicts.rs",
];

const MANIFEST: &str = concat!(
    "[package]
name = \"levada-sdk\"
description = \"Write handlers for Levada: a function with an attribute.\"
version = \"",
    env!("CARGO_PKG_VERSION"),
    "\"
edition = \"2024\"
rust-version = \"1.95\"
license = \"Apache-2.0\"
publish = false

[dependencies]
levada-sdk-macros = { path = \"macros\" }

[features]
default = [\"arena\"]
arena = []
"
);

const MACROS_MANIFEST: &str = concat!(
    "[package]
name = \"levada-sdk-macros\"
description = \"The attribute of levada-sdk.\"
version = \"",
    env!("CARGO_PKG_VERSION"),
    "\"
edition = \"2024\"
rust-version = \"1.95\"
license = \"Apache-2.0\"
publish = false

[lib]
proc-macro = true
"
);
