//! The rule for listening without TLS.

use std::net::SocketAddr;

use levada_core::{Problem, Problems, Table, settings::Setting};

levada_core::choice! {
    /// What the owner says about a listener that anybody on the network can read along with.
    pub enum Plaintext {
        /// The network between is trusted.
        AcceptRisk = "accept-risk",
    }
}

/// Adds a problem for a listener off loopback without TLS, unless the risk was accepted.
///
/// `listen` and `plaintext` are the values of these keys of `table`.
pub fn plaintext_problem(
    listen: SocketAddr,
    plaintext: Option<Plaintext>,
    table: &Table,
    problems: &mut Problems,
) {
    if plaintext.is_some() || listen.ip().to_canonical().is_loopback() {
        return;
    }
    let key = table.path_of("listen");
    let message = "listens beyond this machine without TLS";
    let problem = match table.get("listen") {
        Some((_, value)) => value.problem(&key, message),
        None => Problem::error(Some(table.span), key, message).found(listen.to_string()),
    };
    problems.push(problem.allowed("a loopback address").help(format!(
        "events can be read and forged on the way; set `tls`, or if the network is trusted, add \
         plaintext = {}",
        Plaintext::allowed()
    )));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(listen: &str, plaintext: Option<Plaintext>) -> Vec<Problem> {
        let mut problems = Problems::new();
        let table = Table {
            path: "sources.x".into(),
            ..Table::default()
        };
        plaintext_problem(listen.parse().unwrap(), plaintext, &table, &mut problems);
        problems.into_sorted()
    }

    #[test]
    fn only_loopback_is_open_without_a_word() {
        for fine in [
            "127.0.0.1:4141",
            "127.9.9.9:1",
            "[::1]:4141",
            "[::ffff:127.0.0.1]:1",
        ] {
            assert_eq!(problems(fine, None), [], "{fine}");
        }
        for risky in ["0.0.0.0:4141", "10.0.0.1:4141", "[::]:4141"] {
            let found = problems(risky, None);
            assert_eq!(found.len(), 1, "{risky}");
            assert_eq!(found[0].key, "sources.x.listen");
            assert!(
                found[0]
                    .help
                    .as_ref()
                    .unwrap()
                    .contains("plaintext = \"accept-risk\"")
            );
            assert_eq!(problems(risky, Some(Plaintext::AcceptRisk)), []);
        }
    }
}
