//! What is loaded, what is refused and with which words.

use std::error::Error;

use super::*;

fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        text.push_str(": ");
        text.push_str(&error.to_string());
        next = error.source();
    }
    text
}

async fn refused(house: &House, bytes: &[u8]) -> String {
    let mut spec = HandlerSpec::new(house.file(bytes));
    spec.limits.deadline = Duration::from_secs(60);
    let error = house.try_load(&spec).await.unwrap_err();
    let help = error.help().unwrap_or_default();
    format!("{}; {help}", chain(&error))
}

#[tokio::test]
async fn what_is_no_handler_is_refused_with_what_to_do() {
    let house = house();
    let module = wat::parse_str("(module)").unwrap();
    assert!(
        refused(&house, &module)
            .await
            .contains("levada handler build")
    );
    assert!(
        refused(&house, PUPPET.as_bytes())
            .await
            .contains("wasm-tools parse")
    );
    assert!(
        refused(&house, b"\x7fELF\xff")
            .await
            .contains("not WebAssembly")
    );
    let empty = wat::parse_str("(component)").unwrap();
    assert!(
        refused(&house, &empty)
            .await
            .contains("it exports no interface")
    );
    let mut broken = wat::parse_str(PUPPET).unwrap();
    broken.truncate(broken.len() / 2);
    assert!(refused(&house, &broken).await.contains("damaged"));
    let huge = vec![0; (32 << 20) + 1];
    assert!(
        refused(&house, &huge)
            .await
            .contains("more than the 33554432 allowed")
    );
    let missing = HandlerSpec::new("/nowhere/guest.wasm");
    let error = house.try_load(&missing).await.unwrap_err();
    assert!(chain(&error).contains("cannot read the component `/nowhere/guest.wasm`"));
}

#[tokio::test]
async fn forbidden_imports_are_named_before_anything_is_compiled() {
    let house = house();
    let wat = r#"(component
        (import "levada:handler/http-client@0.1.0" (instance))
        (import "levada:handler/logging@0.2.0" (instance))
        (import "wasi:http/types@0.2.3" (instance))
        (import "wasi:cli/environment@0.3.0" (instance))
        (import "other:thing/store@1.0.0" (instance))
        (import "wasi:io/poll@0.2.9" (instance))
        (import "levada:handler/settings@0.1.7" (instance)))"#;
    let text = refused(&house, &wat::parse_str(wat).unwrap()).await;
    for part in [
        "`levada:handler/http-client@0.1.0`: not granted; this line grants it: `grants = { http = ",
        "`levada:handler/logging@0.2.0`: this host speaks 0.1",
        "`wasi:http/types@0.2.3`: the line `grants = ",
        "`wasi:cli/environment@0.3.0`: this host speaks 0.2 of WASI",
        "`other:thing/store@1.0.0`: not in this version",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
    assert!(
        !text.contains("wasi:io/poll") && !text.contains("settings"),
        "{text}"
    );
}

#[tokio::test]
async fn a_component_is_inspected_without_running_it() {
    let seen = inspect(&wat::parse_str(PUPPET).unwrap()).unwrap();
    assert_eq!(seen.roles, [Role::PackedInterceptor]);
    assert_eq!(seen.exports, ["levada:handler/packed-interceptor@0.1.0"]);
    assert!(seen.imports.is_empty() && seen.manifest.is_none());
    assert_eq!(seen.digest.len(), 71);
    let wat = r#"(component (@custom "levada:manifest" "{\"name\":\"x\"}"))"#;
    let seen = inspect(&wat::parse_str(wat).unwrap()).unwrap();
    assert_eq!(seen.manifest.as_deref(), Some("{\"name\":\"x\"}"));
}

#[tokio::test]
async fn features_that_are_off_are_refused() {
    let house = house();
    let modules = [
        ("exceptions", "(module (tag))"),
        ("threads", "(module (memory 1 1 shared))"),
        ("memory64", "(module (memory i64 1))"),
        ("tail calls", "(module (func $f return_call $f))"),
        ("gc", "(module (type (struct)) (func (param (ref null 0))))"),
        (
            "function references",
            "(module (type $f (func)) (func (param (ref null $f))))",
        ),
        (
            "relaxed simd",
            "(module (func (result v128) (i8x16.relaxed_swizzle (v128.const i64x2 0 0) (v128.const i64x2 0 0))))",
        ),
        ("custom page sizes", "(module (memory 1 (pagesize 1)))"),
    ];
    for (name, module) in modules {
        let module = module.strip_prefix("(module").unwrap();
        let wat = PUPPET.replacen("(component", &format!("(component (core module{module}"), 1);
        let text = refused(&house, &wat::parse_str(&wat).unwrap()).await;
        assert!(text.contains("cannot be compiled"), "{name}: {text}");
    }
    let on = "(component (core module (memory 1) (memory 1) (global i32 (i32.add (i32.const 1) (i32.const 2)))
        (func (result v128) (v128.const i64x2 0 0)) (table 2 funcref)
        (func (param f32) (result i32) (i32.trunc_sat_f32_s (local.get 0))))";
    let wat = PUPPET.replacen("(component", on, 1);
    house.load(&house.spec(&wat)).await;
}

#[tokio::test]
async fn a_guest_that_wants_too_much_at_start_is_refused_by_limit() {
    let house = house();
    let instances = "(core instance (instantiate $m))".repeat(70);
    let cases = [
        (
            "(memory (export \"memory\") 4)".to_owned(),
            "(memory (export \"memory\") 2000)".to_owned(),
            "memory",
        ),
        (
            "(core instance $i".to_owned(),
            format!(
                "(core module $e) {} (core instance $i",
                instances.replace("$m", "$e")
            ),
            "core-instances",
        ),
        (
            "(memory (export \"memory\") 4)".to_owned(),
            format!("(memory (export \"memory\") 4) {}", "(memory 0)".repeat(9)),
            "memories",
        ),
        (
            "(memory (export \"memory\") 4)".to_owned(),
            format!(
                "(memory (export \"memory\") 4) {}",
                "(table 0 funcref)".repeat(70)
            ),
            "tables",
        ),
        (
            "(memory (export \"memory\") 4)".to_owned(),
            "(memory (export \"memory\") 4) (table 70000 funcref)".to_owned(),
            "table-elements",
        ),
        (
            "(memory (export \"memory\") 4)".to_owned(),
            "(memory (export \"memory\") 4) (func $s (loop $l (br $l))) (start $s)".to_owned(),
            "cpu",
        ),
    ];
    for (from, to, limit) in cases {
        let wat = PUPPET.replacen(&from, &to, 1);
        let text = refused(&house, &wat::parse_str(&wat).unwrap()).await;
        assert!(
            text.contains(&format!("the limit `{limit}`")),
            "{limit}: {text}"
        );
    }
}

#[tokio::test]
async fn cached_code_is_believed_only_with_its_hash() {
    let house = house();
    let spec = house.spec(PUPPET);
    house.load(&spec).await;
    let cache = house.dir.path().join("cache");
    let file = || {
        let files = std::fs::read_dir(&cache)
            .unwrap()
            .map(|entry| entry.unwrap().path());
        files
            .filter(|path| !path.ends_with("key"))
            .collect::<Vec<_>>()
    };
    let [path] = &file()[..] else {
        panic!("one component, one file")
    };
    let good = std::fs::read(path).unwrap();
    let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(cache.join("key")).unwrap());
    assert_eq!(mode & 0o777, 0o600);
    // A compiler that cannot start shows whether the cache was used.
    let mut config = config(&house.dir, &house.registry);
    config.compiler = Compiler::Child {
        program: "/nowhere/compiler".into(),
        args: Vec::new(),
        bounds: CompileBounds::default(),
    };
    let cached = Handlers::open(config).unwrap();
    cached.load(&part("handlers.test"), &spec).await.unwrap();
    for at in [0, 40, good.len() - 1] {
        let mut bad = good.clone();
        bad[at] ^= 1;
        std::fs::write(path, bad).unwrap();
        let error = cached
            .load(&part("handlers.test"), &spec)
            .await
            .unwrap_err();
        assert!(
            chain(&error).contains("cannot start the compiler"),
            "byte {at}"
        );
        // One that can start compiles again and mends the file.
        house.load(&spec).await;
        cached.load(&part("handlers.test"), &spec).await.unwrap();
    }
}

#[tokio::test]
async fn the_small_profile_runs_the_same_guests() {
    let dir = tempfile::tempdir().unwrap();
    let registry = Registry::new();
    let mut config = config(&dir, &registry);
    config.memory_reservation = MemoryReservation::Small;
    let handlers = Handlers::open(config).unwrap();
    let path = dir.path().join("guest.wasm");
    std::fs::write(&path, wat::parse_str(PUPPET).unwrap()).unwrap();
    let handler = handlers
        .load(&part("handlers.test"), &HandlerSpec::new(path))
        .await
        .unwrap();
    let handler = handler.interceptor.unwrap();
    let (out, effects) = call(&*handler, &bodies(["a", "O", "G", "b"]))
        .await
        .unwrap();
    assert_eq!(texts(&out), ["a", "b"]);
    assert_eq!(effects.dead_letters.len(), 2);
}
