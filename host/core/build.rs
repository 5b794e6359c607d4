//! Notes when this version is built: a clock that is before that is not set.

use std::{
    env,
    time::{SystemTime, UNIX_EPOCH},
};

fn main() {
    // <https://reproducible-builds.org/specs/source-date-epoch/>
    println!("cargo::rerun-if-env-changed=SOURCE_DATE_EPOCH");
    let told = env::var("SOURCE_DATE_EPOCH").ok();
    let seconds = told.and_then(|told| told.parse().ok()).unwrap_or_else(|| {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        since.map_or(0, |since| since.as_secs())
    });
    println!("cargo::rustc-env=LEVADA_BUILT={seconds}");
}
