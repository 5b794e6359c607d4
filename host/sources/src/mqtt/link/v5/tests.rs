use std::time::Duration;

use super::*;
use crate::mqtt::link::{self, Version};

/// An agent with much to catch up with seemed to hang: it took 650 messages a second, and a whole
/// core. Before each acknowledgement the client looked for unfinished messages of its own under
/// every packet id that it may use, although it sends none: so there may only be a few.
#[tokio::test]
async fn the_client_has_few_packets_of_its_own_to_look_through() {
    let settings = LinkSettings {
        broker: link::broker("mqtt://broker").unwrap(),
        version: Version::V5,
        topics: vec!["plant/#".into()],
        client_id: "levada-a-b".into(),
        user: None,
        password: None,
        at_least_once: true,
        window: 1000,
        keep_alive: Duration::from_secs(30),
        connect_timeout: Duration::from_secs(5),
        session_expiry: Duration::from_secs(60),
        max_event: 1 << 20,
    };
    let options = session(&settings);
    let few = options.get_outgoing_inflight_upper_limit();
    assert!(few.is_some_and(|few| few <= 64), "{few:?}");

    // A session that is taken up again must not bring the old room back.
    let stored = NothingSent
        .load(&options.session_store_key())
        .await
        .unwrap();
    let stored = stored.unwrap().outgoing_inflight_upper_limit;
    assert_eq!(stored, few);
}
