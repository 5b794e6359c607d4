use super::*;

/// A component without anything in it.
const EMPTY: &[u8] = b"\0asm\x0d\0\x01\0";

#[test]
fn the_manifest_is_found_in_the_component() {
    let about = parse(
        "[handler]\nmemory = \"16MiB\"\n[settings.fields]\ntype = \"array\"\nitems = { type = \"string\" }",
    )
    .unwrap();
    let text = about.manifest("redact", "1.2.3").unwrap();
    let long = format!("{text}{}", " ".repeat(300));
    for text in [text.as_str(), long.as_str()] {
        let component = add(EMPTY.to_vec(), text).unwrap();
        let found = levada_wasm::inspect(&component).unwrap().manifest.unwrap();
        assert_eq!(found, text);
        assert!(add(component, text).is_err());
    }
    let manifest: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        manifest,
        json!({
            "manifest": 1,
            "name": "redact",
            "version": "1.2.3",
            "lowest-host": env!("CARGO_PKG_VERSION"),
            "memory": "16MiB",
            "uses": [],
            "settings": {
                "type": "object",
                "properties": {"fields": {"type": "array", "items": {"type": "string"}}},
                "additionalProperties": false,
            },
        })
    );
}

#[test]
fn mistakes_are_named() {
    for (text, named) in [
        ("[handler]\nuse = []", "`use`"),
        ("[handler]\nuses = [\"stat\"]", "did you mean `state`?"),
        ("[handler]\nmemory = \"much\"", "`much`"),
        ("[handler]\nlowest-host = \"new\"", "`new`"),
        ("[handlers]", "`handlers`"),
        ("[settings]\nfields = 1", "fields"),
    ] {
        let error = format!("{:#}", parse(text).unwrap_err());
        assert!(error.contains(named), "{error}");
    }
}

#[test]
fn what_is_imported_is_what_is_said() {
    let import = |name: &str, given| levada_wasm::Import {
        name: name.into(),
        given,
    };
    let granted = |line: &str| levada_wasm::Given::Granted(line.into());
    let mut seen = levada_wasm::inspect(EMPTY).unwrap();
    seen.imports = vec![
        import("levada:handler/state@0.1.0", granted("grants = { state }")),
        import(
            "levada:handler/http-client@0.1.0",
            granted("grants = { http }"),
        ),
        import("wasi:random/random@0.2.6", levada_wasm::Given::Inert),
    ];
    let about = |uses: &str| parse(&format!("[handler]\nuses = {uses}")).unwrap();
    let error = about(r#"["state"]"#)
        .compare(&seen)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("does not say: http; write uses = [\"state\",\"http\"]"),
        "{error}"
    );
    let said = about(r#"["state", "http", "lookup", "wall-clock", "random"]"#);
    assert_eq!(said.compare(&seen).unwrap(), ["lookup", "wall-clock"]);
}
