use levada_core::settings::{Key, Severity, Span};

use super::*;

#[test]
fn settings_are_checked_with_their_place() {
    let check = |entries: &[(&str, Value)], expected: &[(&str, Severity)]| {
        let deps = Deps {
            transport: Arc::new(Memory::new()),
            registry: Registry::new(),
            clock: Arc::new(SystemClock),
            chance: Chance::seeded(1),
            agent: "a".into(),
        };
        let key = |name: &str| Key {
            name: name.into(),
            span: Span::default(),
        };
        let entries = entries
            .iter()
            .map(|(name, value)| (key(name), value.clone()))
            .collect();
        let table = Table {
            path: "sources.in".into(),
            span: Span::default(),
            entries,
        };
        let mut problems = Problems::new();
        let part = PartId::parse("sources.in").unwrap();
        let built = kinds(&deps)[0].check(&part, &table, &[], &mut problems);
        let found = problems.into_sorted();
        let found: Vec<_> = found
            .iter()
            .map(|found| (&*found.key, found.severity))
            .collect();
        assert_eq!(found, expected);
        let fatal = expected
            .iter()
            .any(|(_, severity)| *severity == Severity::Error);
        assert_eq!(built.is_none(), fatal);
    };
    let error = |key| (key, Severity::Error);
    check(&[], &[]);
    check(
        &[("listen", "0.0.0.0:4141".into())],
        &[error("sources.in.listen")],
    );
    check(
        &[
            ("listen", "0.0.0.0:4141".into()),
            ("plaintext", "accept-risk".into()),
        ],
        &[],
    );
    check(
        &[("plaintext", "yes".into())],
        &[error("sources.in.plaintext")],
    );
    check(
        &[("max-event", "17MiB".into())],
        &[error("sources.in.max-event")],
    );
    check(
        &[("max-frame", "2GiB".into())],
        &[error("sources.in.max-frame")],
    );
    check(
        &[("put-timeout", "20s".into())],
        &[("sources.in.put-timeout", Severity::Warning)],
    );
    check(&[("tls", true.into())], &[error("sources.in.tls")]);
}
