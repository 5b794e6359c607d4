use super::*;

#[test]
fn the_protocol_is_the_one_that_real_peers_took() {
    assert_eq!(PROTOCOL.len(), 509);
}
